"""A pipe, a device or a socket given as a file is refused at once, and never read."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unmask import load_model
from unmask.cli.flow_watch import watch
from unmask.data.cifar10 import load_cifar10
from unmask.data.detection.dataset import read_annotated
from unmask.data.folder import load_folder
from unmask.data.listing import list_pictures, read_file
from unmask.data.peek import upright_size
from unmask.data.unpack import unpacked
from unmask.errors import UserError
from unmask.fool.source import load_victim
from unmask.mask.runtime.detector import MaskDetector
from unmask.mask.runtime.sources import open_sources
from unmask.models.card import ModelCard
from unmask.models.checkpoint import TensorFile
from unmask.runtime import open_regular, read_regular
from unmask.shift.target import as_target

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")


def sources(path: Path) -> None:
    with open_sources(str(path)):
        pass


def listing(path: Path) -> None:
    with list_pictures(path):
        pass


# What reads a file that a user names, and the suffix that leads to it.
READERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "any file": (read_regular, ""),
    "image": (read_file, ".png"),
    "size of an image": (upright_size, ".png"),
    "detector": (MaskDetector.load, ".onnx"),
    "model card": (ModelCard.read, ".json"),
    "weights": (TensorFile, ".safetensors"),
    "black box": (lambda path: load_victim(str(path)), ".onnx"),
    "model": (lambda path: load_model(str(path)), ".onnx"),
    "script": (lambda path: watch(str(path)), ".py"),
    "target of shift": (lambda path: as_target(str(path)), ".onnx"),
    "video": (sources, ".mp4"),
    "image to search for masks": (sources, ".png"),
    "zip to search for masks": (sources, ".zip"),
    "zip": (listing, ".zip"),
    "archive": (lambda path: unpacked(path, frozenset({".png"})), ".zip"),
    "classes in a zip": (lambda path: load_folder(path, size=(8, 8), channels=1), ".zip"),
    "annotations in a zip": (read_annotated, ".zip"),
    "cifar10": (load_cifar10, ".tar.gz"),
}


@pytest.fixture(params=["pipe", "device", "socket"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Return a path with a pipe nobody writes to, an endless device, or a socket."""
    path = tmp_path / "special"
    if request.param == "pipe":
        os.mkfifo(path)
        yield path
    elif request.param == "device":
        path.symlink_to("/dev/zero")
        yield path
    else:
        with socket.socket(socket.AF_UNIX) as server:
            try:
                server.bind(str(path))
            except OSError as error:
                pytest.skip(f"no socket can be made here: {error}")
            yield path


@pytest.mark.parametrize("reader", READERS)
def test_it_is_refused_in_one_line(special: Path, reader: str) -> None:
    read, suffix = READERS[reader]
    path = special.with_name(f"x{suffix}")
    path.symlink_to(special)
    with pytest.raises(UserError, match=rf"x{suffix}|regular") as refusal:
        read(path)
    assert "\n" not in str(refusal.value)


def test_it_is_left_out_of_a_folder(special: Path) -> None:
    folder = special.with_name("folder")
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "1.png").symlink_to(special)
    with list_pictures(folder) as listing:
        assert not listing.files
        assert listing.warnings == ["'cat/1.png' skipped: it is no regular file"]


def test_a_regular_file_and_a_link_to_it_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").symlink_to("a")
    assert read_regular(tmp_path / "b", 5) == b"12345"
    with pytest.raises(UserError, match="a is too large; the limit is 4 bytes"):
        read_regular(tmp_path / "a", 4)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "c")
