"""A detector as ONNX: the same as its network, and in 8 bits nearly so, or refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

from made_up_squares import NAMES, Learnt
from unmask.cli.main import main
from unmask.errors import UserError
from unmask.mask.evaluate.confidence import found_in
from unmask.mask.evaluate.metrics import measured
from unmask.mask.runtime.calibration import Calibration
from unmask.mask.runtime.detector import MaskDetector
from unmask.mask.training import export
from unmask.mask.training.export import Agreement, quantize_detector
from unmask.mask.training.network import FaceNetwork, load_detector, network_detector
from unmask.models.card import ModelCard

pytestmark = pytest.mark.slow


def pictures(learnt: Learnt) -> list[Image.Image]:
    return [Image.fromarray(learnt.annotated.pixels(i)) for i in range(len(learnt.annotated))]


def test_four_pictures_are_learnt_by_heart(learnt: Learnt) -> None:
    annotated = learnt.annotated
    network, _ = load_detector(learnt.weights)
    found = found_in(network_detector(network, NAMES, 1.0), annotated)
    assert measured(annotated, found, threshold=0.3).mean_ap == pytest.approx(1.0)
    # What is exported finds the same boxes as the network in training.
    detector = MaskDetector.load(learnt.onnx)
    through_onnx = found_in(detector.uncalibrated(), annotated)
    for path, one, other in zip(annotated.paths, found, through_onnx, strict=True):
        np.testing.assert_allclose(other.boxes[:3], one.boxes[:3], atol=0.05)
        theirs, sure = detector.detect(path), one.scores >= 0.3
        np.testing.assert_allclose(theirs.boxes, one.boxes[sure], atol=0.05)
        np.testing.assert_allclose(theirs.scores, one.scores[sure], atol=1e-3)
        np.testing.assert_array_equal(theirs.labels, one.labels[sure])


def test_another_process_exports_the_same_bytes(learnt: Learnt, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    command = [sys.executable, "-m", "unmask", "mask", "export", str(learnt.weights), str(other)]
    done = subprocess.run(
        [*command, "--scale", "1", "--json"],
        env={**os.environ, "PYTHONHASHSEED": "12"},
        stdout=subprocess.PIPE,
        check=True,
    )
    told = json.loads(done.stdout)
    assert told["largest_difference"] <= 1e-3
    assert told["bytes"] == other.stat().st_size
    assert other.read_bytes() == learnt.onnx.read_bytes()


@pytest.fixture
def already(learnt: Learnt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have mask export take what it would write, by the test above, instead of making it again."""

    def taken(
        network: FaceNetwork,
        card: ModelCard,
        path: Path,
        *,
        calibration: Calibration,
        scale: float,
    ) -> float:
        stored, its_card = load_detector(learnt.weights)
        for name, tensor in stored.state_dict().items():
            assert torch.equal(tensor, network.state_dict()[name]), name
        assert (card, calibration, scale) == (its_card, Calibration(), 1.0)
        path.write_bytes(learnt.onnx.read_bytes())
        return 0.0

    monkeypatch.setattr(export, "export_detector", taken)


@pytest.fixture(scope="module")
def quantized(learnt: Learnt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantized") / "int8.onnx"
    seen = pictures(learnt)
    assert quantize_detector(learnt.onnx, path, seen, seen) == Agreement(12, 12)
    return path


def tensors(path: Path) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def test_every_filter_is_the_nearest_whole_number_of_its_channels_scale(
    learnt: Learnt, quantized: Path
) -> None:
    filters = {k: v for k, v in tensors(learnt.onnx).items() if v.ndim == 4}
    whole = tensors(quantized)
    floating = [name for name in filters if f"{name}_quantized" not in whole]
    # The first one, and the two that answer where and what.
    assert len(floating) == 3
    assert len(filters) > 30
    for name in filters.keys() - set(floating):
        values, scales = whole[f"{name}_quantized"], whole[f"{name}_scale"]
        assert values.dtype == np.int8
        assert np.abs(values.astype(int)).max() <= 64
        step = scales[:, None, None, None]
        assert (np.abs(values * step - filters[name]) <= 0.5001 * step).all()
        # Every channel takes its whole range.
        assert (np.abs(values.astype(int)).max((1, 2, 3)) >= 63).all()


def test_what_it_finds_is_what_floating_point_finds(learnt: Learnt, quantized: Path) -> None:
    one, other = MaskDetector.load(learnt.onnx), MaskDetector.load(quantized)
    assert other.facts == one.facts
    for path in learnt.annotated.paths:
        found, theirs = one.detect(path), other.detect(path)
        order, their_order = (np.argsort(d.boxes[:, 0]) for d in (found, theirs))
        np.testing.assert_array_equal(theirs.labels[their_order], found.labels[order])
        np.testing.assert_allclose(theirs.boxes[their_order], found.boxes[order], atol=2)
        np.testing.assert_allclose(theirs.scores[their_order], found.scores[order], atol=0.1)


def test_the_file_is_smaller(learnt: Learnt, quantized: Path) -> None:
    assert quantized.stat().st_size < 0.6 * learnt.onnx.stat().st_size


def test_eight_bits_that_lose_faces_are_refused(
    learnt: Learnt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = pictures(learnt)
    # Fewer than nine in ten.
    monkeypatch.setattr(export, "_agreement", lambda *_: Agreement(100, 89))
    with pytest.raises(UserError, match="too few faces again, so nothing was written"):
        quantize_detector(learnt.onnx, tmp_path / "d.onnx", seen, seen)
    with pytest.raises(UserError, match="there is no image to set the ranges"):
        quantize_detector(learnt.onnx, tmp_path / "d.onnx", [], pictures(learnt))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("already")
def test_without_a_face_to_check_by_it_says_so(
    learnt: Learnt,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What a tiny detector finds in a black image is a matter of rounding.
    monkeypatch.setattr(export, "_agreement", lambda *_: Agreement(0, 0))
    Image.new("RGB", (128, 96)).save(tmp_path / "black.png")
    arguments = ["mask", "export", str(learnt.weights), str(tmp_path / "d.onnx"), "--scale", "1"]
    assert main([*arguments, "--int8", str(tmp_path / "black.png")]) == 0
    assert "not checked: no face was found in the images given" in capsys.readouterr().out


@pytest.mark.usefixtures("already")
def test_from_the_command_line_a_broken_picture_is_named(
    learnt: Learnt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "photos", tmp_path / "d.onnx"
    folder.mkdir()
    arguments = ["mask", "export", str(learnt.weights), str(out), "--scale", "1"]
    assert main([*arguments, "--int8", str(folder)]) == 2
    assert f"no images in {folder}" in capsys.readouterr().err
    (folder / "broken.png").write_bytes(b"not an image")
    for i, picture in enumerate(pictures(learnt)):
        picture.save(folder / f"{i}.png")
    assert main([*arguments, "--int8", str(folder)]) == 2
    told = capsys.readouterr()
    assert "broken.png' skipped: " in told.err
    assert "again and says the same of them" in told.out
    assert len(MaskDetector.load(out).detect(folder / "0.png", threshold=0.3)) == 3
