"""Checks of the page: uploads are read and forgotten, and verdicts come as they are found."""

from __future__ import annotations

import io
import tempfile
import zipfile
from importlib import resources
from pathlib import Path

import pytest
from PIL import Image

from unmask.data.mnist import load_mnist
from unmask.errors import UserError
from unmask.shift.target import spread
from unmask.web.check_live import SAMPLES, checkable, opened_uploads, run_check, samples_for

Uploads = dict[str, tuple[str, bytes]]


@pytest.fixture(scope="module")
def archive() -> bytes:
    """A zip of some test digits, with a folder for each class."""
    digits = spread(load_mnist()[1], 40)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        for row, label in enumerate(digits.labels):
            image = io.BytesIO()
            Image.fromarray(digits.pixels[row, 0]).save(image, "PNG")
            out.writestr(f"{digits.class_names[label]}/{row}.png", image.getvalue())
    return buffer.getvalue()


@pytest.fixture(scope="module")
def uploads(archive: bytes) -> Uploads:
    """The classifier of digits as its two files, and the images."""
    folder = resources.files("unmask.models") / "weights"
    names = {suffix: f"mnist{suffix}" for suffix in (".safetensors", ".json")}
    files = {suffix: (name, (folder / name).read_bytes()) for suffix, name in names.items()}
    return {**files, ".zip": ("digits.zip", archive)}


def test_uploads_are_read_and_nothing_of_them_is_kept(
    uploads: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    target, source = opened_uploads(uploads)
    assert (target.name, source.train.name) == ("mnist.safetensors", "digits.zip")
    assert len(source.train) == 40
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({".safetensors": None}, "no model yet"),
        ({".json": None}, "comes with its card"),
        ({".zip": None}, "no images yet"),
        ({".zip": b"no archive"}, "no readable zip archive"),
        ({".safetensors": b"no weights"}, "no readable safetensors file"),
        ({".onnx": b"\x0a\x08location\x12\x0b/etc/passwd"}, "keeps weights in another file"),
    ],
)
def test_a_mistake_gets_one_line_without_the_servers_paths(
    uploads: Uploads, change: dict[str, bytes | None], message: str
) -> None:
    given = {k: v for k, v in uploads.items() if k not in change}
    given |= {k: (f"name{k}", v) for k, v in change.items() if v is not None}
    with pytest.raises(UserError, match=message) as caught:
        opened_uploads(given)
    assert "\n" not in str(caught.value)
    assert tempfile.gettempdir() not in str(caught.value)


def test_parts_arrive_one_by_one_and_then_the_check() -> None:
    *running, last = run_check("mnist", SAMPLES["mnist"].load(), 5)
    counts = [len(state.parts) for state in running]
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert last.check is not None
    assert last.parts == last.check.parts
    assert last.parts[0].name == "preflight"
    assert last.check.healthy
    assert last.check.seconds < 15
    assert "failed" not in {part.status for part in last.parts}


def test_closing_it_frees_the_turn_for_the_next() -> None:
    first = run_check("mnist", SAMPLES["mnist"].load(), 5)
    next(first)
    first.close()
    *_, last = run_check("mnist", SAMPLES["mnist"].load(), 2)
    assert last.check is not None
    assert last.check.seconds < 10


def test_what_can_not_be_checked_is_told() -> None:
    with pytest.raises(UserError, match="images of shape"):
        list(run_check("cifar10", SAMPLES["mnist"].load(), 5))


def test_every_model_of_the_page_has_a_sample_that_it_takes() -> None:
    assert {"mnist", "cifar10"} <= set(checkable())
    assert set(samples_for("mnist")) == {"mnist", "inverted"}
