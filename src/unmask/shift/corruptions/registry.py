"""The corruptions by name, applied to images of any size, at any severity, from a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from unmask.errors import UserError, unknown
from unmask.registry import Registry

HIGHEST = 5
SMALLEST_SIDE, LARGEST_SIDE = 8, 4096
# The side of the images that the papers' lengths in pixels are meant for.
REFERENCE_SIDE = 224
_FAMILIES = ("noise", "blur", "weather", "digital", "strokes", "geometry")


@dataclass
class Draw:
    """Random numbers of a batch; those of each image depend on its own key.

    So an image is corrupted alike whatever else is in the batch, and from the same draw at every
    severity: a larger severity shows more of the same noise.

    Args:
        keys: one text an image.
        device: of the numbers; a GPU's differ from a CPU's.
    """

    keys: Sequence[str]
    device: torch.device
    _calls: int = field(default=0, init=False)

    def generators(self) -> list[torch.Generator]:
        """Return a fresh generator for each image; the next call gives others."""
        self._calls += 1
        found = []
        for key in self.keys:
            digest = hashlib.blake2b(f"{key}/{self._calls}".encode(), digest_size=7).digest()
            found.append(torch.Generator(self.device).manual_seed(int.from_bytes(digest)))
        return found

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal float32[b, *shape]."""
        out = torch.empty(len(self.keys), *shape, device=self.device)
        for row, generator in zip(out, self.generators(), strict=True):
            row.normal_(generator=generator)
        return out

    def uniform(self, *shape: int) -> Tensor:
        """Return uniform float32[b, *shape] in [0, 1)."""
        out = torch.empty(len(self.keys), *shape, device=self.device)
        for row, generator in zip(out, self.generators(), strict=True):
            row.uniform_(generator=generator)
        return out

    def sign(self) -> Tensor:
        """Return -1 or 1 for each image, float32[b]."""
        return torch.where(self.uniform() < 0.5, -1.0, 1.0)


Apply = Callable[[Tensor, tuple[float, ...], Draw], Tensor]


@dataclass(frozen=True)
class Corruption:
    """One way in which images change between the laboratory and the wild.

    Args:
        name: as users write it.
        family: one of noise, blur, weather, digital, strokes, geometry.
        paper: that published it.
        apply: (pixels float32[b, c, h, w] in [0, 1], parameters, Draw) to pixels of that shape,
            which needn't be clipped.
        levels: the parameters of severities 1 to 5, all of one length.
        none: the parameters of severity 0, at which nothing changes.
        colour: whether it needs three channels.
        mends: augmentations to train with, by their usual names.
    """

    name: str
    family: str
    paper: str
    apply: Apply
    levels: tuple[tuple[float, ...], ...]
    none: tuple[float, ...]
    colour: bool = False
    mends: str = ""

    def parameters(self, severity: float) -> tuple[float, ...]:
        """Return the parameters of a severity from 0 to 5, interpolated between whole ones."""
        places = (self.none, *self.levels)
        low = min(int(severity), HIGHEST - 1)
        t = severity - low
        return tuple((1 - t) * a + t * b for a, b in zip(places[low], places[low + 1], strict=True))


CORRUPTIONS: Registry[Corruption] = Registry("corruption")


def corruption(
    name: str,
    *,
    family: str,
    paper: str,
    levels: Sequence[float | tuple[float, ...]],
    none: float | tuple[float, ...],
    colour: bool = False,
    mends: str = "",
) -> Callable[[Apply], Apply]:
    """Return a decorator that registers a function as a corruption.

    An installed package that names a module in the entry-point group "unmask.plugins" registers its
    own there, see unmask.registry.

    Args:
        name: as users write it.
        family: one of noise, blur, weather, digital, strokes, geometry.
        paper: that published it.
        levels: the parameters of severities 1 to 5, one number or a tuple each.
        none: the parameters of severity 0, at which nothing changes, of the same form.
        colour: whether it needs three channels.
        mends: augmentations to train with, by their usual names.

    Returns:
        A decorator of a function as Corruption's apply.

    Raises:
        UserError: when the name is taken, the family unknown, or there aren't five levels of equal
            length.
    """

    def register(apply: Apply) -> Apply:
        if family not in _FAMILIES:
            raise unknown("family of corruptions", family, _FAMILIES)
        rows = tuple(v if isinstance(v, tuple) else (v,) for v in levels)
        start = none if isinstance(none, tuple) else (none,)
        if len(rows) != HIGHEST or any(len(a) != len(b) for a, b in pairwise((start, *rows))):
            raise UserError(
                f"the corruption {name} needs {HIGHEST} levels of as many parameters as none",
                got=levels,
            )
        found = Corruption(name, family, paper, apply, rows, start, colour, mends)
        CORRUPTIONS.register(name)(found)
        return apply

    return register


def corruptions() -> Registry[Corruption]:
    """Return all corruptions by name, including those of installed packages."""
    from unmask.shift.corruptions import blur, digital, noise, strokes, weather  # noqa: F401

    return CORRUPTIONS


def find_corruption(name: str) -> Corruption:
    """Return the corruption of that name.

    Args:
        name: such as "fog".

    Raises:
        UserError: for an unknown name.
    """
    known = corruptions()
    if name not in known:
        raise unknown("corruption", name, known)
    return known[name]


def corrupt(
    pixels: Tensor,
    name: str,
    severity: float = 3,
    *,
    seed: int = 0,
    rows: Sequence[int] | None = None,
) -> Tensor:
    """Return images with a corruption applied.

    Lengths in the papers are pixels of images of side 224 and scale with the shorter side.

    Args:
        pixels: float[b, c, h, w] in [0, 1] with c 1 or 3 and sides of 8 to 4096, on any device.
        name: of a corruption, such as "fog"; see corruptions().
        severity: 0 (nothing) to 5, whole or in between.
        seed: of everything random; each image's draw depends on it, the name and its row alone.
        rows: a number for each image that stays the same in any batch; by default its place in this
            batch.

    Returns:
        float32[b, c, h, w] in [0, 1], on the device of pixels.

    Raises:
        UserError: for an unknown name, a severity out of range, or pixels of another form.
    """
    found = find_corruption(name)
    if not 0 <= severity <= HIGHEST:
        raise UserError("a severity is a number", got=severity, do=f"give 0 to {HIGHEST}")
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or not pixels.is_floating_point():
        raise UserError(
            "images to corrupt must be float[b, c, h, w] in [0, 1] of 1 or 3 channels",
            got=f"{str(pixels.dtype).removeprefix('torch.')}{list(pixels.shape)}",
        )
    sides = pixels.shape[2:]
    if min(sides) < SMALLEST_SIDE or max(sides) > LARGEST_SIDE:
        raise UserError(
            "images of this size can't be corrupted",
            got=f"{sides[0]} x {sides[1]} pixels",
            do=f"give sides of {SMALLEST_SIDE} to {LARGEST_SIDE}",
        )
    if found.colour and pixels.shape[1] != 3:
        raise UserError(f"{name} needs colour images", got=f"{pixels.shape[1]} channel")
    pixels = pixels.float()
    if severity == 0 or not len(pixels):
        return pixels.clamp(0, 1)
    numbers = range(len(pixels)) if rows is None else rows
    draw = Draw([f"{seed}/{name}/{row}" for row in numbers], pixels.device)
    with torch.no_grad():
        return found.apply(pixels, found.parameters(severity), draw).clamp_(0, 1)
