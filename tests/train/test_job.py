"""From images and a recipe to a model on disk whose card tells what it can do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unmask.data.images import Images
from unmask.models.classifier import Classifier
from unmask.train.evaluation import evaluate
from unmask.train.fit import FitInterrupted, FitProgress
from unmask.train.job import train_classifier
from unmask.train.recipes import Recipe, recipe


@pytest.fixture
def small() -> Recipe:
    chosen = recipe("pictures", "fast", 240)
    config = replace(chosen.config, epochs=4, batch_size=32, precision="fp32", seed=5)
    return replace(chosen, config=config, settings={"widths": [8, 8, 8]})


@pytest.mark.parametrize("half", [False, True])
def test_the_cards_figures_are_those_of_the_stored_weights(
    shapes: Images, small: Recipe, tmp_path: Path, half: bool
) -> None:
    train, test = shapes.split(180)
    trained = train_classifier(
        small, train, test=test, out=tmp_path, half=half, device="cpu", licence="CC0"
    )
    model = Classifier.load(tmp_path / "model")
    facts = model.card.facts
    found = evaluate(model, test, test_time="flip")
    assert facts["figures"]["test_accuracy"] == found.accuracy
    assert facts["figures"]["test_averaged_accuracy"] == found.averaged
    assert facts["figures"]["test_loss"] == pytest.approx(found.loss)
    assert trained.test is not None
    assert trained.test.accuracy == found.accuracy > 0.5
    best = trained.history.best
    assert best is not None
    assert facts["figures"]["validation_accuracy"] == best.validation_accuracy
    assert facts["data"]["licence"] == "CC0"
    assert facts["data"]["pictures"] + facts["data"]["validation_pictures"] == 180
    assert facts["recipe"]["seed"] == facts["seed"] == 5
    assert facts["command"].startswith("unmask")


def test_given_validation_pictures_are_used(shapes: Images, small: Recipe, tmp_path: Path) -> None:
    train, validation = shapes.split(180)
    trained = train_classifier(small, train, validation=validation, out=tmp_path, device="cpu")
    data = trained.classifier.card.facts["data"]
    assert (data["pictures"], data["validation_pictures"]) == (180, 60)
    assert data["sha256"] == train.sha256
    assert trained.test is None


def test_ctrl_c_keeps_the_best_so_far_and_resume_goes_on(
    shapes: Images, small: Recipe, tmp_path: Path
) -> None:
    def stop(progress: FitProgress) -> None:
        if progress.epoch == 3:
            raise KeyboardInterrupt

    stopped = train_classifier(small, shapes, out=tmp_path, device="cpu", progress=stop)
    assert stopped.history.ended == "interrupted"
    assert len(stopped.history.epochs) == 2
    assert (tmp_path / "model.safetensors").exists()
    resumed = train_classifier(small, shapes, out=tmp_path, device="cpu", resume=True)
    whole = train_classifier(small, shapes, out=tmp_path / "whole", device="cpu")
    files = [p / "model.safetensors" for p in (tmp_path, tmp_path / "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert resumed.history.best_epoch == whole.history.best_epoch


def test_ctrl_c_in_the_first_epoch_leaves_no_model(
    shapes: Images, small: Recipe, tmp_path: Path
) -> None:
    def stop(progress: FitProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(FitInterrupted):
        train_classifier(small, shapes, out=tmp_path, device="cpu", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_grey_pictures_of_any_small_size_train(tmp_path: Path, small: Recipe) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    pixels = (labels[:, None, None, None] * 100 + random.integers(0, 99, (60, 1, 9, 13))).astype(
        np.uint8
    )
    images = Images(pixels, labels, ("dark", "light"), "grey")
    trained = train_classifier(small, images, out=tmp_path, device="cpu")
    assert trained.classifier.card.input_shape == (1, 9, 13)
