"""The detector's training: it resumes to the same bits, and its canvases hold what they say."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from made_up_squares import COLOURS, NAMES, SMALL, settings, squares
from unmask.errors import UserError
from unmask.mask.runtime.calibration import Calibration
from unmask.mask.runtime.detector import MaskDetector
from unmask.mask.training import trainer
from unmask.mask.training.canvases import Canvases, CanvasSettings, repeat_factors
from unmask.mask.training.export import recalibrated
from unmask.mask.training.network import (
    FaceNetwork,
    detector_card,
    load_detector,
    save_detector,
)
from unmask.mask.training.trainer import DetectorProgress, rarity_weights, train_detector
from unmask.models.checkpoint import TensorFile, write_tensors


class Stop(Exception):  # noqa: N818
    """What ends a run in its second epoch, as a kill would."""

    @staticmethod
    def second(p: DetectorProgress) -> None:
        if p.epoch == 2:
            raise Stop


def test_a_run_that_is_cut_off_leaves_the_same_files_once_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.DetectorRun, "seconds_between_saves", 0.0)
    annotated = squares(tmp_path, 4)
    plan = settings(2, mosaic=0.5, paste=1.0)
    plan = replace(plan, fit=replace(plan.fit, averaging="ema", averaging_horizon=5))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    network = train_detector(annotated, plan, directory=whole)
    with pytest.raises(Stop):
        train_detector(annotated, plan, directory=parts, progress=Stop.second)
    shutil.copytree(parts, tmp_path / "old")
    again = train_detector(annotated, plan, directory=parts, resume=True)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    files = [folder / "detector.safetensors" for folder in (whole, parts)]
    assert files[0].read_bytes() == files[1].read_bytes()
    for folder in (whole, parts):
        lines = (folder / "history.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    other = replace(plan, fit=replace(plan.fit, rate=1e-3))
    with pytest.raises(UserError, match="another run"):
        train_detector(annotated, other, directory=parts, resume=True)
    # Version 0.1 wrote settings of a classifier's images too, which played no part.
    checkpoint = tmp_path / "old" / "checkpoint.safetensors"
    saved = TensorFile(checkpoint)
    saved.header["key"]["settings"]["fit"] |= {
        "augmentation": {"flip": "none", "shift": 0},
        "label_smoothing": 0.0,
        "target": None,
        "test_time": "none",
        "validate_from": 1,
    }
    write_tensors(checkpoint, saved.tensors(), saved.header)
    train_detector(annotated, plan, directory=tmp_path / "old", resume=True)
    old = tmp_path / "old" / "detector.safetensors"
    assert old.read_bytes() == files[0].read_bytes()


def test_what_a_detector_is_calibrated_with_goes_into_its_file(
    rectangles: Path, tmp_path: Path
) -> None:
    chosen = Calibration(
        slope=0.8,
        offset=-0.1,
        side_slope=2.5,
        temperature=1.3,
        face=0.4,
        certain=0.6,
        smallest=7.0,
        nms_iou=0.45,
    )
    recalibrated(rectangles, tmp_path / "d.onnx", chosen)
    before, facts = (MaskDetector.load(p).facts for p in (rectangles, tmp_path / "d.onnx"))
    assert facts == replace(before, calibration=chosen)
    assert before.calibration != chosen


def test_weights_come_back_from_the_file(tmp_path: Path) -> None:
    network = FaceNetwork(3, SMALL)
    save_detector(tmp_path / "d.safetensors", network, detector_card(NAMES, SMALL, {"data": "x"}))
    again, card = load_detector(tmp_path / "d.safetensors")
    assert card == detector_card(NAMES, SMALL, {"data": "x"})
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_the_network_that_ships_has_under_a_million_parameters() -> None:
    assert sum(p.numel() for p in FaceNetwork(3).parameters()) < 1_000_000


def test_canvases_hold_what_their_boxes_say(tmp_path: Path) -> None:
    annotated = squares(tmp_path, 6)
    plan = CanvasSettings(256, (0.6, 2.5), 0.5, 1.0, (14.0, 60.0))
    canvases = Canvases(annotated, plan)
    for i in range(24):
        canvas = canvases.make(i % 6, np.random.default_rng(i))
        again = canvases.make(i % 6, np.random.default_rng(i))
        np.testing.assert_array_equal(canvas.pixels, again.pixels)
        for box, label in zip(*canvas.faces, strict=True):
            x, y = ((box[:2] + box[2:]) / 2).astype(int)
            if label >= 0:
                np.testing.assert_allclose(canvas.pixels[y, x], COLOURS[label], atol=6)


def test_pictures_with_rare_classes_are_shown_more_often(tmp_path: Path) -> None:
    annotated = squares(tmp_path, 4)
    labels = (np.zeros(3, np.int64), *(np.array([0, 0, 1]) for _ in range(3)))
    skewed = replace(annotated, labels=labels)
    # Class 1 is 3 of 12; a third is wanted, so its images come root(4 / 3) times.
    np.testing.assert_allclose(repeat_factors(skewed, 1 / 3), [1, *[(4 / 3) ** 0.5] * 3])
    torch.testing.assert_close(
        rarity_weights(np.array([800, 100, 1])), torch.tensor([1.0, 2.0, 800 ** (1 / 3)])
    )
