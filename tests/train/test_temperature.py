"""The temperature that fits logits best, and its place in the last layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torch import nn

from unmask.data.images import Images
from unmask.errors import UserError
from unmask.models.classifier import Classifier
from unmask.models.cnn import ARCHITECTURES, build
from unmask.train.evaluation import evaluate
from unmask.train.job import train_classifier
from unmask.train.recipes import Recipe, recipe
from unmask.train.temperature import divide_logits, fitted_temperature


def overconfident(by: float, count: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose softmax is the truth once they are divided by a number."""
    random = torch.Generator().manual_seed(0)
    true = torch.randn(count, 5, generator=random)
    labels = torch.multinomial(true.softmax(1), 1, generator=random)[:, 0]
    return true * by, labels


@pytest.mark.parametrize("by", [0.4, 1.0, 3.0])
def test_the_temperature_is_scipys_minimum_and_near_the_truth(by: float) -> None:
    logits, labels = overconfident(by)
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = logits.numpy() / np.exp(log_temperature)
        return float(-log_softmax(scaled, 1)[rows, labels.numpy()].mean())

    expected = np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)
    found = fitted_temperature(logits, labels)
    assert found == pytest.approx(expected, rel=1e-3)
    assert found == pytest.approx(by, rel=0.15)


def test_logits_that_are_always_right_get_a_bounded_temperature() -> None:
    labels = torch.arange(30) % 3
    logits = nn.functional.one_hot(labels, 3).float()
    assert 0.05 <= fitted_temperature(logits, labels) < 0.1
    assert 10 < fitted_temperature(-logits, labels) <= 20


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architectures_logits_are_divided(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, {}, (3, 16, 16), 4).eval()
    images = torch.rand(5, 3, 16, 16)
    with torch.no_grad():
        before = network(images)
        divide_logits(network, 1.7, images)
        torch.testing.assert_close(network(images) * 1.7, before, rtol=1e-4, atol=1e-4)


def test_a_network_that_ends_otherwise_is_left_as_it_was() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Softmax(1))
    kept = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(UserError, match="can't be divided"):
        divide_logits(network, 2.0, torch.rand(4, 3, 2, 2))
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, kept[name])
    with pytest.raises(UserError, match="over 0"):
        divide_logits(network, 0.0, torch.rand(4, 3, 2, 2))


@pytest.fixture
def small() -> Recipe:
    chosen = recipe("pictures", "fast", 240)
    config = replace(chosen.config, epochs=3, batch_size=32, precision="fp32", seed=5)
    return replace(chosen, config=config, settings={"widths": [8, 8, 8]})


def test_a_calibrated_model_is_stored_divided(
    shapes: Images, small: Recipe, tmp_path: Path
) -> None:
    train, held = shapes.split(180)
    plain = train_classifier(small, train, validation=held, out=tmp_path / "a", device="cpu")
    calibrated = train_classifier(
        small, train, validation=held, calibrate=True, out=tmp_path / "b", device="cpu"
    )
    facts = Classifier.load(tmp_path / "b" / "model").card.facts
    pixels = torch.from_numpy(held.pixels).float() / 255
    with torch.no_grad():
        expected = plain.classifier(pixels) / facts["temperature"]
        torch.testing.assert_close(calibrated.classifier(pixels), expected, rtol=1e-4, atol=1e-4)
    losses = [evaluate(t.classifier, held).loss for t in (plain, calibrated)]
    assert losses[1] <= losses[0]
    assert facts["figures"]["validation_loss"] == pytest.approx(losses[1], rel=1e-4)


def test_there_must_be_something_to_calibrate_with(
    shapes: Images, small: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="hold some out"):
        train_classifier(
            replace(small, holdout=0.0), shapes, calibrate=True, out=tmp_path, device="cpu"
        )
    with pytest.raises(UserError, match="not both"):
        train_classifier(small, shapes, calibrate=True, temperature=2.0, out=tmp_path, device="cpu")
