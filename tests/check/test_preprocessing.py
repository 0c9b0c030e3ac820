"""Preprocessing that a config states is proved on labelled images, and the likely mistake named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unmask.check.preflight import ask_preflight
from unmask.check.subject import Subject
from unmask.data.images import Images
from unmask.models.preprocessing import Preprocessing, Wrapped
from unmask.shift.target import as_target

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STATED = Preprocessing(size=(8, 8), mean=MEAN, std=STD)
TRUE = {
    "not normalised": Preprocessing(),
    "channels in the order blue, green, red": Preprocessing(mean=MEAN, std=STD, order="BGR"),
    "0 to 255, not normalised": Preprocessing(scale=255),
}


def network() -> nn.Module:
    """Return a network whose class depends on level and scale of what it is given."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.Tanh(), nn.Linear(64, 5))
    return made.eval()


def labelled(right: nn.Module | Preprocessing) -> Images:
    """Return images whose labels are the network's own, fed as it wants."""
    rng = np.random.default_rng(0)
    levels = rng.uniform(40, 215, (300, 3, 1, 1))
    pixels = (levels + rng.normal(0, 25, (300, 3, 8, 8))).clip(0, 255).astype(np.uint8)
    with torch.no_grad():
        logits = network()(right(torch.from_numpy(pixels).float() / 255))
    return Images(pixels, logits.argmax(1).numpy(), tuple("abcde"), "made up")


def asked(images: Images) -> list[str]:
    model = Wrapped(network(), name="net", kind="timm", preprocessing=STATED)
    target = as_target(model)
    assert target.mean == MEAN
    _, verdicts = ask_preflight(Subject(target, images, images, 0), 5.0)
    return [v.cause for v in verdicts if v.kind == "preprocessing"]


def test_preprocessing_that_is_right_gets_no_verdict() -> None:
    assert asked(labelled(STATED)) == []


@pytest.mark.parametrize("mistake", TRUE)
def test_the_likely_mistake_is_named(mistake: str) -> None:
    assert asked(labelled(TRUE[mistake])) == [f"the model expects images {mistake}"]


def test_what_is_done_outside_once_more_is_named() -> None:
    images = labelled(Preprocessing(mean=(-1.0,) * 3, std=(2.0,) * 3))
    model = Wrapped(network(), name="net", kind="timm")
    _, verdicts = ask_preflight(Subject(as_target(model), images, images, 0), 5.0)
    causes = [v.cause for v in verdicts if v.kind == "preprocessing"]
    assert causes == ["the model expects images scaled from -1 to 1 to 0 to 1"]


def test_normalising_twice_is_named() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return STATED(STATED(x))

    assert asked(labelled(Twice())) == ["the model expects images normalised twice"]


def test_a_config_that_states_nothing_is_said() -> None:
    model = Wrapped(network(), name="net", kind="transformers", stated=False)
    assert "since no config says otherwise" in model.describe()
    images = labelled(Preprocessing())
    _, verdicts = ask_preflight(Subject(as_target(model), images, images, 0), 5.0)
    assert "preprocessing not stated" in [v.kind for v in verdicts]


def test_a_softmax_inside_a_wrapped_model_is_still_said() -> None:
    model = Wrapped(nn.Sequential(network(), nn.Softmax(1)), name="net", kind="ONNX")
    images = labelled(Preprocessing())
    _, verdicts = ask_preflight(Subject(as_target(model), images, images, 0), 5.0)
    assert "probabilities" in [v.kind for v in verdicts]
