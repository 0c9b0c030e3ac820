"""What every net of a sweep has in common, checked before the first one trains."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from unmask.data.images import Images
from unmask.errors import UserError, require_whole, unknown

Engine = Literal["native", "reference", "stacked"]


@dataclass(frozen=True)
class FlatImages:
    """Images as the nets read them.

    Args:
        pixels: uint8[n, values], a row an image.
        labels: int64[n].
        classes: how many.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: int

    @staticmethod
    def of(images: Images) -> FlatImages:
        """Flatten every image to a row."""
        rows = images.pixels.reshape(len(images), math.prod(images.pixels.shape[1:]))
        labels = np.ascontiguousarray(images.labels)
        return FlatImages(np.ascontiguousarray(rows), labels, len(images.class_names))


@dataclass(frozen=True)
class Task:
    """What every net of a sweep has in common.

    Args:
        train: the training images.
        validation: images for the figures after each epoch, or None.
        test: images for the figures at the end, or None.
        probe: images of the per-layer statistics.
        dead: images over which units are judged dead.
        probe_epochs: when the statistics are taken; 0 is before training.
        engine: "native", "reference" or "stacked".
        device: a PyTorch device.
        instructions: the kernel's instruction set, which the last bits of the figures depend on.
        stop: uint8[1], set to 1 to end at once.
    """

    train: FlatImages
    validation: FlatImages | None
    test: FlatImages | None
    probe: FlatImages
    dead: FlatImages
    probe_epochs: tuple[int, ...]
    engine: Engine
    device: str
    instructions: str
    stop: NDArray[np.uint8]


def prepared(
    images: Images,
    *,
    largest_batch: int,
    validation: Images | None = None,
    test: Images | None = None,
    probe_batch: Images,
    dead_probe: Images,
    probe_epochs: Iterable[int] = (),
    threads: int | None = None,
    engine: Engine | None = None,
    device: str = "cpu",
    elsewhere: bool = False,
) -> Task:
    """Check the settings and return what the nets of a sweep have in common.

    Args:
        images: what they are trained on.
        largest_batch: of all nets.
        validation: see train_sweep.
        test: see train_sweep.
        probe_batch: images of the per-layer statistics.
        dead_probe: images over which units are judged dead.
        probe_epochs: when the statistics are taken; 0 is before training.
        threads: see train_sweep.
        engine: see train_sweep.
        device: see train_sweep.
        elsewhere: whether an executor trains them.

    Raises:
        UserError: an engine, a number of threads, a device or images don't fit.
    """
    engine = engine or default_engine(device, elsewhere=elsewhere)
    if engine not in get_args(Engine):
        raise unknown("sweep engine", engine, get_args(Engine))
    if threads is not None:
        require_whole("number of threads", threads, 1, 1 << 16)
    probes = tuple(sorted(set(probe_epochs)))
    for epoch in probes:
        require_whole("epoch at which layers are measured", epoch, 0, 1 << 20)
    if elsewhere and device != "cpu":
        raise UserError(
            "an executor trains nets on processors", got=f"device {device}", do="choose either"
        )
    if elsewhere and engine == "stacked":
        raise UserError(
            "an executor trains nets one by one",
            got="engine stacked",
            do="leave out the engine or the executor",
        )
    if device != "cpu":
        _require(device)
    others = {"validation": validation, "test": test, "probe": probe_batch, "dead": dead_probe}
    _check(images, largest_batch, others)
    return Task(
        train=FlatImages.of(images),
        validation=None if validation is None else FlatImages.of(validation),
        test=None if test is None else FlatImages.of(test),
        probe=FlatImages.of(probe_batch),
        dead=FlatImages.of(dead_probe),
        probe_epochs=probes,
        engine=engine,
        device=device,
        instructions=_instructions(engine, device),
        stop=np.zeros(1, np.uint8),
    )


def default_engine(device: str = "cpu", *, elsewhere: bool = False) -> Engine:
    """Return the engine that trains nets where none is named.

    It is the kernel on the CPU. Where that isn't built, PyTorch replaces it, to the same figures
    but for rounding, with one warning.

    Args:
        device: where the nets train.
        elsewhere: whether an executor trains them, one by one.
    """
    if device != "cpu":
        return "stacked"
    from unmask.sweep.native_net import has_kernel

    if has_kernel():
        return "native"
    warnings.warn(
        "this installation has no C++ kernel: sweeps run on PyTorch, several times slower",
        RuntimeWarning,
        stacklevel=2,
    )
    return "reference" if elsewhere else "stacked"


def digests(data: Sequence[Images | None]) -> list[str | None]:
    """Return the SHA-256 of each set of images, which identify the data of a kept sweep."""
    return [None if images is None else images.sha256 for images in data]


def _require(device: str) -> None:
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise UserError("there is no such device", got=repr(device), do="cpu or cuda") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError("PyTorch finds no CUDA device here", got=device, do="leave it out for cpu")


def _check(images: Images, largest_batch: int, others: Mapping[str, Images | None]) -> None:
    if not len(images):
        raise UserError("a sweep needs training images", got="none")
    if largest_batch > len(images):
        raise UserError(
            "the batch is larger than the training data",
            got=f"a batch of {largest_batch} for {len(images)} images",
            do=f"choose a batch size of at most {len(images)}",
        )
    for name, data in others.items():
        if data is None:
            continue
        if not len(data):
            raise UserError(f"the {name} images must be at least one", got="none")
        shape, expected = data.pixels.shape[1:], images.pixels.shape[1:]
        if shape != expected or data.class_names != images.class_names:
            raise UserError(
                f"the {name} images don't fit the training images",
                got=f"{shape} with {len(data.class_names)} classes "
                f"against {expected} with {len(images.class_names)}",
                do="use images of one size and one list of classes",
            )


def _instructions(engine: Engine, device: str) -> str:
    if engine != "native":
        return f"torch {device}"
    from unmask.sweep.native_net import chosen_instruction_set

    return chosen_instruction_set()
