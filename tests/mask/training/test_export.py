"""A detector in 8 bits: its numbers, what it finds, and what is refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from made_up_squares import Learnt
from unmask.cli.main import main
from unmask.errors import UserError
from unmask.mask.runtime.detector import MaskDetector
from unmask.mask.training import export
from unmask.mask.training.export import Agreement, quantize_detector

pytestmark = pytest.mark.slow


def pictures(learnt: Learnt) -> list[Image.Image]:
    return [Image.fromarray(learnt.annotated.pixels(i)) for i in range(len(learnt.annotated))]


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
