"""Batches for a model of the user's: from images by name, or from a loader of the user's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unmask.cli.console import Console
from unmask.cli.progress import load_shown
from unmask.data.images import Images
from unmask.data.sources import shape_for
from unmask.errors import UserError
from unmask.flow.feed import Batch, call, first_line
from unmask.flow.measure.wrappers import unwrap
from unmask.models.given import channels_of
from unmask.models.imported import foreign, load_object
from unmask.runtime import seeded

USUAL, LEAST = 64, 8
_OPERATIONS = 5e10


@dataclass(frozen=True)
class Batches:
    """Batches without end.

    Args:
        of_seed: returns the batches of a seed.
        title: what they are, in words.
        stamp: what the provenance records about them.
    """

    of_seed: Callable[[int], Iterator[Batch]]
    title: str
    stamp: dict[str, Any] = field(default_factory=dict)


def batches_for(
    model: nn.Module, data: str, batch_size: int | None, size: Sequence[int] | None
) -> Batches:
    """Return batches that the model's forward takes.

    Args:
        model: its parameters decide the device.
        data: mnist, cifar10, a folder or zip archive of images, or the import path of a loader or
            of a function that makes one.
        batch_size: images in a batch, None for as many as usual_batch; a loader decides for itself.
        size: at which to read your own images, None for natural_shape; see sides.

    Returns:
        The batches: of images float32[n, c, h, w] in [0, 1], or float32[n, c * h * w] for a model
        that takes only those, on the model's device.

    Raises:
        UserError: when there are no images or batches, or the forward takes neither shape.
    """
    if ":" in data:
        return _own(data)
    shape = shape_for(data, channels=channels_of(model), size=size)
    images = load_shown(Console(stderr=True), data, None, shape).train
    wanted = min(batch_size or USUAL, len(images))
    first = _pixels(images, seeded(0).integers(len(images), size=wanted))
    device = next(unwrap(model).parameters()).device
    # Nothing can be computed on the meta device; the check reports that.
    place = "cpu" if device.type == "meta" else str(device)
    if batch_size is None and device.type != "meta":
        first = first[: usual_batch(model, first[:2].to(place))]
    flat = device.type != "meta" and _takes_flat_only(model, first.to(place))
    batch_size = len(first)

    def of_seed(seed: int) -> Iterator[Batch]:
        generator = seeded(seed)
        n = len(images)
        while True:
            order = generator.permutation(n)
            for start in range(0, max(n - batch_size, 0) + 1, batch_size):
                rows = order[start : start + batch_size]
                x = _pixels(images, rows).to(place)
                yield x.flatten(1) if flat else x, torch.from_numpy(images.labels[rows]).to(place)

    fed = (first.flatten(1) if flat else first).shape[1:]
    return Batches(
        of_seed,
        f"{len(first)} images of {images.name} a step, fed as {_shape(len(first), *fed)} "
        "between 0 and 1",
        {"data": images.name, "data sha256": images.sha256, "batch size": len(first)},
    )


def usual_batch(model: nn.Module, inputs: Tensor) -> int:
    """Return how many images to feed a network at once.

    Counted operations rather than seconds decide, so that every machine feeds the same.

    Args:
        model: the network.
        inputs: two images.

    Returns:
        64, or halves of it down to 8 where a forward pass would take over 50 billion operations;
        64 where the forward doesn't take such images.
    """
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        refused = _refusal(model, inputs)
    each = counted.get_total_flops() / len(inputs) if refused is None else 0
    batch = USUAL
    while batch > LEAST and batch * each > _OPERATIONS:
        batch //= 2
    return batch


def _pixels(images: Images, rows: Any) -> Tensor:
    return torch.from_numpy(images.pixels[rows]).float() / 255


def _takes_flat_only(model: nn.Module, images: Tensor) -> bool:
    """Return whether the forward takes flat rows of pixels only."""
    error = _refusal(model, images)
    if error is None:
        return False
    flat = images.flatten(1)
    if _refusal(model, flat) is None:
        return True
    raise UserError(
        "the model's forward does not accept these images",
        got=f"{_shape(*images.shape)} between 0 and 1: {first_line(error)}",
        do=f"nor {_shape(*flat.shape)}; --size reads your own images at another size, and "
        "--data my_module:make_loader takes your own batches",
    ) from error


def _refusal(model: nn.Module, inputs: Tensor) -> Exception | None:
    """Return the exception that the forward raises for the inputs, tried on a copy."""
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        try:
            call(copy.deepcopy(unwrap(model)), inputs)
        except UserError:
            raise
        except Exception as error:
            return error
    return None


def _shape(*sizes: int) -> str:
    return f"float32[{', '.join(map(str, sizes))}]"


def _own(path: str) -> Batches:
    target = load_object(path)
    makes = isinstance(target, type) or (callable(target) and not isinstance(target, Iterable))
    if not makes and isinstance(target, Iterator):
        raise UserError(
            f"{path} can be gone through once only",
            got=type(target).__name__,
            do="name the function that makes it",
        )

    def of_seed(seed: int) -> Iterator[Batch]:
        torch.manual_seed(seed)
        for turn in count():
            loader = _made(target, path) if makes else target
            if not isinstance(loader, Iterable):
                raise UserError(
                    f"{path} is no loader",
                    got=type(loader).__name__,
                    do="give what yields (inputs, targets), for instance a DataLoader",
                )
            pairs = _guarded(loader, path)
            first = next(pairs, None)
            if first is None:
                if turn:
                    return
                raise UserError(f"{path} yields no batches")
            yield first
            yield from pairs

    return Batches(of_seed, f"batches of {path}", {"data": path})


def _made(target: Callable[[], Any], path: str) -> Any:
    with foreign(path, do="it must work without arguments"):
        return target()


def _guarded(loader: Iterable[Any], path: str) -> Iterator[Any]:
    batches = None
    while True:
        # The guard surrounds each batch only, since the consumer of the batches may raise too.
        with foreign(path):
            batches = iter(loader) if batches is None else batches
            try:
                batch = next(batches)
            except StopIteration:
                return
        yield batch
