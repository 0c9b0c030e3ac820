"""How large a change is: the norms, and what an attack needs to know of each."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.errors import UserError, unknown

_ROUNDING = 1e-5
# A step in L1 changes one in so many values.
_SPARSE = 20
# By which part of the radius a projection in L1 stays inside, for the sake of rounding.
_SLACK = 1e-6


class Norm(ABC):
    """A norm of changes, float[b, ...], one value for each of the b images.

    It supplies start, direction and projection, so that no attack knows which norm it works in.
    """

    name: str
    # What sizes are multiples of: 0 where they are any numbers.
    unit = 0.0

    @abstractmethod
    def size(self, change: Tensor) -> Tensor:
        """Return the norm of each change, float[b]."""

    @abstractmethod
    def dual(self, gradient: Tensor) -> Tensor:
        """Return the dual norm of each gradient, float[b]: its largest growth a unit of change."""

    @abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """Return the change of norm 1 along which each gradient grows most; 0 where it is 0."""

    @abstractmethod
    def project(self, change: Tensor, radius: Tensor | float) -> Tensor:
        """Return the nearest change (in L2) whose norm is at most radius, a float or float[b]."""

    @abstractmethod
    def noise(self, like: Tensor, radius: Tensor | float, generator: torch.Generator) -> Tensor:
        """Return changes drawn uniformly from the ball of that radius, shaped like a batch."""

    def step(self, gradient: Tensor) -> Tensor:
        """Return the change of norm 1 that a descent goes by; 0 where the gradient is 0."""
        return self.direction(gradient)


class L2(Norm):
    """The Euclidean norm over all pixels and channels."""

    name = "l2"

    def size(self, change: Tensor) -> Tensor:
        size: Tensor = torch.linalg.vector_norm(change.flatten(1), dim=1)
        return size

    def dual(self, gradient: Tensor) -> Tensor:
        return self.size(gradient)

    def direction(self, gradient: Tensor) -> Tensor:
        # A float32 gradient of 1e-20 has squares below the smallest float: scaled first.
        largest = gradient.flatten(1).abs().amax(1)
        scaled = gradient / wide(_safe(largest), gradient)
        return scaled / wide(_safe(self.size(scaled)), gradient)

    def project(self, change: Tensor, radius: Tensor | float) -> Tensor:
        size = self.size(change)
        factor = (_per_picture(radius, change) / _safe(size)).clamp(max=1)
        return change * wide(factor, change)

    def noise(self, like: Tensor, radius: Tensor | float, generator: torch.Generator) -> Tensor:
        normal = torch.randn(like.shape, generator=generator).to(like)
        # Uniform in the ball: the radius of n dimensions is distributed as U^(1/n).
        part = torch.rand(len(like), generator=generator).to(like) ** (1 / like.shape[1:].numel())
        return self.direction(normal) * wide(part * _per_picture(radius, like), like)


class Linf(Norm):
    """The largest change of any one value."""

    name = "linf"

    def size(self, change: Tensor) -> Tensor:
        return change.flatten(1).abs().amax(1)

    def dual(self, gradient: Tensor) -> Tensor:
        return gradient.flatten(1).abs().sum(1)

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def project(self, change: Tensor, radius: Tensor | float) -> Tensor:
        limit = wide(_per_picture(radius, change), change)
        return torch.minimum(torch.maximum(change, -limit), limit)

    def noise(self, like: Tensor, radius: Tensor | float, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(like.shape, generator=generator).to(like) * 2 - 1
        return uniform * wide(_per_picture(radius, like), like)


class L1(Norm):
    """The sum of the absolute changes of all values."""

    name = "l1"

    def size(self, change: Tensor) -> Tensor:
        return change.flatten(1).abs().sum(1)

    def dual(self, gradient: Tensor) -> Tensor:
        return gradient.flatten(1).abs().amax(1)

    def direction(self, gradient: Tensor) -> Tensor:
        flat = gradient.flatten(1)
        place = flat.abs().argmax(1, keepdim=True)
        return (
            torch.zeros_like(flat).scatter(1, place, flat.gather(1, place).sign()).view_as(gradient)
        )

    def step(self, gradient: Tensor) -> Tensor:
        """Return a change of the steepest twentieth of the values (Tramer and Boneh, 2019)."""
        # The one steepest value would be changed again and again, whatever its bounds.
        flat = gradient.flatten(1)
        count = max(flat.shape[1] // _SPARSE, 1)
        place = flat.abs().topk(count, dim=1).indices
        signs = flat.gather(1, place).sign()
        signs = signs / _safe(signs.abs().sum(1))[:, None]
        return torch.zeros_like(flat).scatter(1, place, signs).view_as(gradient)

    def project(self, change: Tensor, radius: Tensor | float) -> Tensor:
        limit = _per_picture(radius, change)
        flat = change.flatten(1).abs()
        # The soft threshold at which what is left sums up to the radius (Duchi et al., 2008).
        ordered = flat.double().sort(1, descending=True).values
        over = ordered.cumsum(1) - (1 - _SLACK) * limit.double()[:, None]
        counts = torch.arange(1, flat.shape[1] + 1, device=flat.device, dtype=torch.float64)
        kept = (ordered * counts > over).sum(1, keepdim=True).clamp(min=1)
        threshold = (over.gather(1, kept - 1) / kept).clamp(min=0)
        shrunk = (flat.double() - threshold).clamp(min=0).to(flat).view_as(change) * change.sign()
        inside = flat.double().sum(1) <= limit.double()
        return torch.where(wide(inside, change), change, shrunk)

    def noise(self, like: Tensor, radius: Tensor | float, generator: torch.Generator) -> Tensor:
        # Spacings of n + 1 exponentials are uniform in the simplex; signs make it the ball.
        drawn = torch.rand((len(like), like.shape[1:].numel() + 1), generator=generator).to(like)
        spacings = -(1 - drawn).clamp(min=1e-30).log()
        parts = spacings[:, :-1] / _safe(spacings.sum(1))[:, None]
        signs = torch.randint(2, parts.shape, generator=generator).to(like) * 2 - 1
        return (parts * signs).view_as(like) * wide(_per_picture(radius, like), like)


class L0(Norm):
    """How many values are changed, of however many channels; its balls aren't convex.

    Of a unit of change, one value by its whole range, the gradient's growth is its largest entry.
    """

    name = "l0"
    unit = 1.0

    def size(self, change: Tensor) -> Tensor:
        return (change.flatten(1) != 0).sum(1).to(change.dtype)

    def dual(self, gradient: Tensor) -> Tensor:
        return gradient.flatten(1).abs().amax(1)

    def direction(self, gradient: Tensor) -> Tensor:
        return NORMS["l1"].direction(gradient)

    def project(self, change: Tensor, radius: Tensor | float) -> Tensor:
        """Return the change with all but its largest values set to 0, radius of them kept."""
        flat = change.flatten(1)
        order = flat.abs().argsort(dim=1, descending=True, stable=True)
        rank = torch.arange(flat.shape[1], device=flat.device).expand_as(flat)
        kept = rank < _per_picture(radius, change).floor()[:, None]
        mask = torch.zeros_like(kept).scatter(1, order, kept)
        return torch.where(mask, flat, 0).view_as(change)

    def noise(self, like: Tensor, radius: Tensor | float, generator: torch.Generator) -> Tensor:
        """Return changes of radius values drawn at random, each uniform in [-1, 1]."""
        order = torch.rand(like.shape, generator=generator).to(like)
        values = torch.rand(like.shape, generator=generator).to(like) * 2 - 1
        return torch.where(self.project(order, radius) > 0, values, 0)


NORMS: dict[str, Norm] = {norm.name: norm for norm in (L2(), Linf(), L1(), L0())}


@dataclass(frozen=True)
class Threat:
    """What a change may be: its norm, and how large, in units of pixels in [0, 1].

    In L0 it is a number of values. eps None asks for the smallest change there is. Raises UserError
    for an eps of 0 or below, above 1 in linf, and below 1 in l0.
    """

    norm: Norm
    eps: float | None = None

    def __post_init__(self) -> None:
        if self.eps is not None and not 0 < self.eps < float("inf"):
            raise UserError("eps is no size of a change", got=self.eps, do="give a number above 0")
        if self.eps is not None and self.norm.name == "linf" and self.eps > 1:
            raise UserError(
                "eps is above the whole range of a pixel",
                got=f"{self.eps:g}",
                do=f"images are in [0, 1]: write {self.eps:g}/255",
            )
        if self.eps is not None and self.norm.name == "l0" and self.eps < 1:
            raise UserError(
                "in l0 eps is how many values may be changed",
                got=f"{self.eps:g}",
                do="give a number of 1 or more, such as 20",
            )

    @staticmethod
    def of(norm: str, eps: float | None = None) -> Threat:
        """Return the threat of a norm by its name. Raises UserError as the class does."""
        if norm not in NORMS:
            raise unknown("norm", norm, NORMS)
        return Threat(NORMS[norm], eps)

    @staticmethod
    def parse(text: str) -> Threat:
        """Return the threat of "l2", "linf:0.3" or "linf:8/255".

        Raises UserError for another form, an unknown norm or an eps of 0 or below.
        """
        name, colon, size = text.strip().lower().partition(":")
        if name not in NORMS:
            raise unknown("norm", name, NORMS)
        if not colon:
            return Threat(NORMS[name])
        number = re.fullmatch(r"\s*([-+.\deE]+)\s*(?:/\s*([.\d]+)\s*)?", size)
        try:
            eps = float(number[1]) / float(number[2] or 1) if number else float("nan")
        except (ValueError, ZeroDivisionError):
            eps = float("nan")
        if eps != eps:
            raise UserError(
                "eps is no number", got=repr(size), do="write linf:0.3, linf:8/255 or l2:1.5"
            )
        return Threat(NORMS[name], eps)

    @property
    def bound(self) -> float:
        """The largest change allowed; raises UserError where there is none."""
        if self.eps is None:
            raise UserError(
                "this attack needs to know how large a change may be",
                got=str(self),
                do=f"give a size, as in {self.norm.name}:0.3",
            )
        return self.eps

    def allows(self, change: Tensor, slack: Tensor | float = 0.0) -> Tensor:
        """Return bool[b]: whether each change [b, ...] is small enough, but for float rounding.

        slack: units of pixels forgiven besides, a float or float[b]. Without eps all are.
        """
        size = self.norm.size(change)
        if self.eps is None:
            return torch.ones_like(size, dtype=torch.bool)
        return size <= self.eps + slack + _ROUNDING

    def __str__(self) -> str:
        if self.eps is None:
            return f"smallest {self.norm.name}"
        if self.norm.name in ("l0", "l1"):
            return f"{self.norm.name} {self.eps:.4g}"
        return f"{self.norm.name} {self.eps:.4g} ({self.eps * 255:.3g}/255)"


def _safe(values: Tensor) -> Tensor:
    return torch.where(values > 0, values, torch.ones_like(values))


def wide(values: Tensor, like: Tensor) -> Tensor:
    """Return values [b] shaped so that they spread over each image of a batch like."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _per_picture(radius: Tensor | float, like: Tensor) -> Tensor:
    return torch.as_tensor(radius, dtype=like.dtype, device=like.device).expand(len(like))
