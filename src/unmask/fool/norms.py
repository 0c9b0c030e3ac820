"""How large a change is: the L2 and Linf norms, and what an attack needs to know of each."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.errors import UserError, unknown

_ROUNDING = 1e-5


class Norm(ABC):
    """A norm of changes, float[b, ...], one value for each of the b images.

    It supplies start, direction and projection, so that no attack knows which norm it works in.
    """

    name: str

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


NORMS: dict[str, Norm] = {norm.name: norm for norm in (L2(), Linf())}


@dataclass(frozen=True)
class Threat:
    """What a change may be: its norm, and how large, in units of pixels in [0, 1].

    eps None asks for the smallest change there is. Raises UserError for an eps of 0 or below, and
    above 1 in linf.
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
        return f"{self.norm.name} {self.eps:.4g} ({self.eps * 255:.3g}/255)"


def _safe(values: Tensor) -> Tensor:
    return torch.where(values > 0, values, torch.ones_like(values))


def wide(values: Tensor, like: Tensor) -> Tensor:
    """Return values [b] shaped so that they spread over each image of a batch like."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _per_picture(radius: Tensor | float, like: Tensor) -> Tensor:
    return torch.as_tensor(radius, dtype=like.dtype, device=like.device).expand(len(like))
