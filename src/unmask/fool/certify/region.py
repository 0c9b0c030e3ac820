"""The images within a threat, and the extremes of a linear function over them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.errors import UserError
from unmask.fool.certify.operations import Interval

# Attacks work in single precision: x + eps may be rounded up by half a unit in the last place.
INPUT_ROUNDING = 1e-7
# Bounds computed in double precision are widened by this fraction of the sizes that were added up.
# The rounding of n sums is at most about n * 1e-16 of that, for n up to a million.
MARGIN = 1e-9
_MULTIPLIERS = 6


@dataclass(frozen=True)
class Region:
    """All images in [0, 1] within eps of the given ones, plus rounding.

    Args:
        images: float[b, c, h, w] in [0, 1].
        eps: the largest change, above 0.
        norm: "linf" or "l2".
    """

    images: Tensor
    eps: float
    norm: str = "linf"

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise UserError("no bounds are known in this norm", got=self.norm, do="linf or l2")
        if not 0 < self.eps <= 1e6:
            raise UserError("eps is no size of a change", got=self.eps, do="give a number above 0")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor | slice) -> Region:
        return Region(self.images[rows], self.eps, self.norm)

    @property
    def box(self) -> Interval:
        """The smallest box that holds the region."""
        reach = self.eps + INPUT_ROUNDING
        return Interval(
            (self.images - reach).clamp(min=0),
            torch.maximum((self.images + reach).clamp(max=1), self.images - reach),
        )

    def lowest(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Return a lower bound of each linear function over the region, and its rounding's scale.

        In Linf the bound is the minimum over the box. In L2 it is the minimum over box and ball of
        the Lagrangian, at the best of a few multipliers of the ball; any of them is sound.

        Args:
            coefficients: float[b, q, c, h, w].

        Returns:
            The bounds, float[b, q], from which the rounding is still to be subtracted, and the sum
            of the absolute values of all terms, float[b, q].
        """
        a = coefficients.flatten(2)
        box = self.box
        low, high = (v.flatten(1)[:, None] for v in (box.lower, box.upper))
        centre, radius = (low + high) / 2, (high - low) / 2
        size = a.abs()
        middle = _dot(a, centre.squeeze(1))
        mass = _dot(size, torch.maximum(low.abs(), high.abs()).squeeze(1))
        found = middle - _dot(size, radius.squeeze(1))
        if self.norm == "l2":
            found = torch.maximum(found, self._within_ball(a, low, high))
        return found, mass

    def _within_ball(self, a: Tensor, low: Tensor, high: Tensor) -> Tensor:
        start = self.images.flatten(1)[:, None]
        reach = self.eps + INPUT_ROUNDING
        low, high = low - start, high - start
        value = _dot(a, start.squeeze(1))
        best: Tensor = value - reach * a.norm(dim=2)
        with torch.no_grad():
            multiplier = a.norm(dim=2, keepdim=True).clamp(min=1e-12) / reach
        for _ in range(_MULTIPLIERS):
            # argmin of a d + (m / 2) |d|^2 over the box, less (m / 2) reach^2.
            d = torch.minimum(torch.maximum(-a / multiplier, low), high)
            lagrangian = (a * d + multiplier / 2 * d * d).sum(2) - multiplier.squeeze(2) / 2 * (
                reach * reach
            )
            best = torch.maximum(best, value + lagrangian)
            with torch.no_grad():
                multiplier = multiplier * d.norm(dim=2, keepdim=True).clamp(min=1e-12) / reach
        return best


def _dot(a: Tensor, x: Tensor) -> Tensor:
    """Return float[b, q] of a, float[b, q, n], and x, float[b, n]."""
    found: Tensor = torch.bmm(a, x[:, :, None]).squeeze(2)
    return found
