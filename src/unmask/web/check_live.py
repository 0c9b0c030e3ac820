"""Checks that the page runs: of a shipped model on a sample, or of an upload on uploaded images."""

from __future__ import annotations

import contextlib
import queue
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from unmask.check.result import Check, Part
from unmask.check.run import check_model
from unmask.data.images import Images
from unmask.data.mnist import load_mnist
from unmask.data.samples import cifar10_sample
from unmask.data.sources import Source, load_source
from unmask.errors import UserError
from unmask.models.classifier import Classifier, shipped
from unmask.shift.target import Target, as_target, spread

MODEL_SUFFIXES = (".onnx", ".safetensors")
CARD, ARCHIVE = ".json", ".zip"
SHORTEST = 5.0
_TRAINED, _TESTED = 2000, 500
_TICK = 0.2
# A tensor of an ONNX file that is stored in another file, in any encoding of its lengths.
_EXTERNAL = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)location")
# One check at a time: each uses all cores.
_WORKER = ThreadPoolExecutor(1, thread_name_prefix="check")


@dataclass(frozen=True)
class Sample:
    """Images that ship.

    Args:
        title: what they are, in words.
        shape: channels, height and width.
        load: returns them.
    """

    title: str
    shape: tuple[int, int, int]
    load: Callable[[], Source | Images]


def _digits(*, inverted: bool) -> Source:
    train, test = load_mnist()
    some, few = spread(train, _TRAINED), spread(test, _TESTED)
    if inverted:
        some, few = (replace(images, pixels=255 - images.pixels) for images in (some, few))
    return Source("mnist", some, None, few, "")


SAMPLES = {
    "mnist": Sample(f"MNIST, {_TESTED} test images", (1, 28, 28), partial(_digits, inverted=False)),
    "inverted": Sample(
        f"MNIST, {_TESTED} test images in black on white",
        (1, 28, 28),
        partial(_digits, inverted=True),
    ),
    "cifar10": Sample("CIFAR-10, its first 20 test images", (3, 32, 32), cifar10_sample),
}


@dataclass(frozen=True)
class Progress:
    """The state of a check.

    Args:
        parts: those that have ended.
        question: the one under way.
        check: the whole check, at the end.
    """

    parts: tuple[Part, ...]
    question: str
    check: Check | None = None


def samples_for(model: str) -> dict[str, str]:
    """Return the titles of the samples that a shipped model takes, by name."""
    card = Classifier.load(model).card
    return {name: s.title for name, s in SAMPLES.items() if s.shape == card.input_shape}


def checkable() -> list[str]:
    """Return the shipped models for which there is a sample."""
    return [name for name in shipped() if samples_for(name)]


def opened_uploads(uploads: Mapping[str, tuple[str, bytes]]) -> tuple[Target, Source]:
    """Return the model and the images of uploaded files.

    They lie in a temporary folder only while they are read.

    Args:
        uploads: by suffix, the name and the content of each file: a model, its .json card for a
            .safetensors file, and a .zip with a folder of images for each class.

    Raises:
        UserError: when a file is missing, damaged, or of another kind.
    """
    given = [suffix for suffix in MODEL_SUFFIXES if suffix in uploads]
    if not given:
        raise UserError("there is no model yet", do="choose an ONNX or a safetensors file")
    if ".safetensors" in uploads and CARD not in uploads:
        raise UserError(
            "a safetensors file comes with its card", do="choose the .json beside it too"
        )
    if ARCHIVE not in uploads:
        raise UserError(
            "there are no images yet", do="choose a zip with a folder of images for each class"
        )
    with tempfile.TemporaryDirectory() as folder, _without(folder):
        for suffix, (_, content) in uploads.items():
            if suffix == ".onnx" and _EXTERNAL.search(content):
                raise UserError(
                    "the ONNX file keeps weights in another file",
                    do="save it as one file",
                )
            (Path(folder) / f"upload{suffix}").write_bytes(content)
        target = as_target(Path(folder) / f"upload{given[0]}")
        source = load_source(str(Path(folder) / f"upload{ARCHIVE}"), shape=target.input_shape)
    name = uploads[ARCHIVE][0]
    parts = [
        part and replace(part, name=name) for part in (source.train, source.validation, source.test)
    ]
    assert parts[0] is not None
    source = replace(source, train=parts[0], validation=parts[1], test=parts[2])
    return replace(target, name=uploads[given[0]][0]), source


@contextlib.contextmanager
def _without(folder: str) -> Iterator[None]:
    """Remove the temporary folder's path from messages."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(f"{folder}/", "")) from None


def run_check(target: Target | str, images: Source | Images, seconds: float) -> Iterator[Progress]:
    """Check a model within a time limit, in a thread of its own, one check after another.

    Args:
        target: the model, or the name of one that ships.
        images: what it is checked on.
        seconds: the time allowed, from when its turn comes.

    Yields:
        The state as parts end, and the whole check at last. Closing the iterator ends the check
        after the question under way.

    Raises:
        UserError: when the model or the images can't be used at all.
    """
    news: queue.SimpleQueue[str | Part] = queue.SimpleQueue()
    left = False

    def progress(question: str, used: float) -> None:
        if left:
            raise _LeftError
        news.put(question)

    def work() -> Check:
        return check_model(target, images, minutes=seconds / 60, progress=progress, ended=news.put)

    running = _WORKER.submit(work)
    parts: tuple[Part, ...] = ()
    question = ""
    try:
        yield Progress(parts, "its turn")
        while not (running.done() and news.empty()):
            try:
                new = news.get(timeout=_TICK)
            except queue.Empty:
                continue
            if isinstance(new, Part):
                parts = (*parts, new)
            else:
                question = new
            yield Progress(parts, question)
        yield Progress(parts, "", running.result())
    finally:
        left = True
        running.cancel()


class _LeftError(Exception):
    """Raised in a check that nobody waits for any more."""
