"""The size of a change: the norms, and what an attack needs to know of each."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from unmask.errors import UserError, unknown

_ROUNDING = 1e-5
# A step in L1 changes one in this many values.
_SPARSE = 20
# The fraction of the radius by which a projection in L1 stays inside the ball, for rounding.
_SLACK = 1e-6
_BYTE = 255


class Norm(ABC):
    """A norm of changes, float[b, ...], one value for each of the b images.

    It supplies step, direction, projection and noise, so that no attack knows which norm it works
    in.
    """

    name: str
    # Sizes are multiples of this; 0 where they can be any number.
    unit = 0.0

    @abstractmethod
    def size(self, change: Tensor) -> Tensor:
        """Return the norm of each change, float[b]."""

    @abstractmethod
    def dual(self, gradient: Tensor) -> Tensor:
        """Return the dual norm of each gradient, float[b]: its growth per unit of change."""

    @abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """Return the change of norm 1 along which each gradient grows most; 0 where it is 0."""

    @abstractmethod
    def project(self, change: Tensor, radius: Tensor | float) -> Tensor:
        """Return the nearest change (in L2) whose norm is at most radius.

        Args:
            change: float[b, ...].
            radius: one number, or float[b].
        """

    @abstractmethod
    def noise(self, like: Tensor, radius: Tensor | float, generator: torch.Generator) -> Tensor:
        """Return changes drawn uniformly from a ball.

        Args:
            like: a batch, float[b, ...], whose shape, dtype and device the changes get.
            radius: of the ball, one number or float[b].
            generator: on the CPU.
        """

    @abstractmethod
    def shrunk(self, change: Tensor, weight: Tensor) -> Tensor:
        """Return the change that is best by half the squared distance plus weight[b] times norm."""

    def step(self, gradient: Tensor) -> Tensor:
        """Return the change of norm 1 that a descent moves by; 0 where the gradient is 0."""
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
        # A float32 gradient of 1e-20 has squares below the smallest float, so it is scaled first.
        largest = gradient.flatten(1).abs().amax(1)
        scaled = gradient / wide(_safe(largest), gradient)
        return scaled / wide(_safe(self.size(scaled)), gradient)

    def project(self, change: Tensor, radius: Tensor | float) -> Tensor:
        size = self.size(change)
        factor = (_per_picture(radius, change) / _safe(size)).clamp(max=1)
        return change * wide(factor, change)

    def noise(self, like: Tensor, radius: Tensor | float, generator: torch.Generator) -> Tensor:
        normal = torch.randn(like.shape, generator=generator).to(like)
        # In a uniform ball of n dimensions the radius is distributed as U^(1/n).
        part = torch.rand(len(like), generator=generator).to(like) ** (1 / like.shape[1:].numel())
        return self.direction(normal) * wide(part * _per_picture(radius, like), like)

    def shrunk(self, change: Tensor, weight: Tensor) -> Tensor:
        size = self.size(change)
        return change * wide((1 - weight / _safe(size)).clamp(min=0), change)


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

    def shrunk(self, change: Tensor, weight: Tensor) -> Tensor:
        # What is taken away is the projection onto the ball of the dual norm (Moreau, 1962).
        return change - NORMS["l1"].project(change, weight)


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
        """Return an equal change of the steepest 5 % of the values (Tramer and Boneh, 2019)."""
        # A step along the steepest value alone would change that value at every step.
        flat = gradient.flatten(1)
        count = max(flat.shape[1] // _SPARSE, 1)
        place = flat.abs().topk(count, dim=1).indices
        signs = flat.gather(1, place).sign()
        signs = signs / _safe(signs.abs().sum(1))[:, None]
        return torch.zeros_like(flat).scatter(1, place, signs).view_as(gradient)

    def project(self, change: Tensor, radius: Tensor | float) -> Tensor:
        limit = _per_picture(radius, change)
        flat = change.flatten(1).abs()
        # The soft threshold after which the values sum up to the radius (Duchi et al., 2008).
        ordered = flat.double().sort(1, descending=True).values
        over = ordered.cumsum(1) - (1 - _SLACK) * limit.double()[:, None]
        counts = torch.arange(1, flat.shape[1] + 1, device=flat.device, dtype=torch.float64)
        kept = (ordered * counts > over).sum(1, keepdim=True).clamp(min=1)
        threshold = (over.gather(1, kept - 1) / kept).clamp(min=0)
        shrunk = (flat.double() - threshold).clamp(min=0).to(flat).view_as(change) * change.sign()
        inside = flat.double().sum(1) <= limit.double()
        return torch.where(wide(inside, change), change, shrunk)

    def noise(self, like: Tensor, radius: Tensor | float, generator: torch.Generator) -> Tensor:
        # Spacings of n + 1 exponentials are uniform in the simplex; random signs make it the ball.
        drawn = torch.rand((len(like), like.shape[1:].numel() + 1), generator=generator).to(like)
        spacings = -(1 - drawn).clamp(min=1e-30).log()
        parts = spacings[:, :-1] / _safe(spacings.sum(1))[:, None]
        signs = torch.randint(2, parts.shape, generator=generator).to(like) * 2 - 1
        return (parts * signs).view_as(like) * wide(_per_picture(radius, like), like)

    def shrunk(self, change: Tensor, weight: Tensor) -> Tensor:
        return change - NORMS["linf"].project(change, weight)


class L0(Norm):
    """The number of changed values, each channel counted; its balls aren't convex.

    A unit of change is one value changed by its whole range, so the dual norm of a gradient is its
    largest entry.
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
        """Return the change with its largest values kept, radius of them, and others set to 0."""
        flat = change.flatten(1)
        order = flat.abs().argsort(dim=1, descending=True, stable=True)
        rank = torch.arange(flat.shape[1], device=flat.device).expand_as(flat)
        kept = rank < _per_picture(radius, change).floor()[:, None]
        mask = torch.zeros_like(kept).scatter(1, order, kept)
        return torch.where(mask, flat, 0).view_as(change)

    def noise(self, like: Tensor, radius: Tensor | float, generator: torch.Generator) -> Tensor:
        """Return changes of radius values at random places, each uniform in [-1, 1]."""
        order = torch.rand(like.shape, generator=generator).to(like)
        values = torch.rand(like.shape, generator=generator).to(like) * 2 - 1
        return torch.where(self.project(order, radius) > 0, values, 0)

    def shrunk(self, change: Tensor, weight: Tensor) -> Tensor:
        return torch.where(change.square() > 2 * wide(weight, change), change, 0)


NORMS: dict[str, Norm] = {norm.name: norm for norm in (L2(), Linf(), L1(), L0())}


def require_number(eps: object) -> None:
    """Raise UserError for a size that is no number: a text, as the command line takes it."""
    if isinstance(eps, str):
        raise UserError("eps is a number here", got=repr(eps), do=f"write {eps} without quotes")
    if eps is not None and not isinstance(eps, Real):
        raise UserError("eps is one number here", got=repr(eps)[:80])


@dataclass(frozen=True)
class Threat:
    """The changes that are allowed: their norm and their largest size.

    Args:
        norm: the norm.
        eps: the largest change in units of pixels in [0, 1], above 0 and in linf at most 1; in l0
            the number of values, at least 1. None searches for the smallest change.

    Raises:
        UserError: for an eps outside these ranges.
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
                do=f"images are in [0, 1]: write {self.eps:g}/255"
                if self.eps <= _BYTE
                else "images are in [0, 1]: write 0.3 or 8/255",
            )
        if self.eps is not None and self.norm.name == "l0" and self.eps < 1:
            raise UserError(
                "in l0 eps is how many values may be changed",
                got=f"{self.eps:g}",
                do="give a number of 1 or more, such as 20",
            )

    @staticmethod
    def of(norm: str, eps: float | None = None) -> Threat:
        """Return the threat of a norm by its name.

        Args:
            norm: "l2", "linf", "l1" or "l0".
            eps: see Threat.

        Raises:
            UserError: for an unknown norm, and as Threat raises it.
        """
        if norm not in NORMS:
            raise unknown("norm", norm, NORMS)
        require_number(eps)
        return Threat(NORMS[norm], eps)

    @staticmethod
    def parse(text: str) -> Threat:
        """Return the threat that a text names.

        Args:
            text: a norm, as in "l2", or a norm and eps, as in "linf:0.3" or "linf:8/255".

        Raises:
            UserError: for another form, an unknown norm, and an eps that Threat refuses.
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
        """The largest change allowed.

        Raises:
            UserError: where eps is None.
        """
        if self.eps is None:
            raise UserError(
                "this attack needs to know how large a change may be",
                got=str(self),
                do=f"give a size, as in {self.norm.name}:0.3",
            )
        return self.eps

    def allows(self, change: Tensor, slack: Tensor | float = 0.0) -> Tensor:
        """Return whether each change is small enough, up to float rounding, bool[b].

        Args:
            change: float[b, ...].
            slack: how much larger than eps a change may be, in units of pixels: one number, or
                float[b].

        Returns:
            All True where eps is None.
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
    """Return values [b] reshaped to broadcast over each image of a batch like."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _per_picture(radius: Tensor | float, like: Tensor) -> Tensor:
    return torch.as_tensor(radius, dtype=like.dtype, device=like.device).expand(len(like))
