"""The size of a tensor's entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# The part of a batch that gives the statistics of its activations to a per cent.
ENTRIES, LEAST_IMAGES = 1 << 16, 8
# The entries of a tensor among which zeros are counted, evenly spread.
COUNTED = 1 << 18
# Between these a float32 holds the square of every entry that matters beside the largest.
SAFE = (1e-12, 1e12)


@dataclass(frozen=True)
class Magnitude:
    """The size of a tensor's entries.

    Args:
        maximum: of |x|; not finite for a tensor with NaN or infinity.
        mean: of |x|.
        rms: the root mean square of x.
        zero: the fraction of entries that are exactly 0.
        tiny: the fraction of entries that are not 0 but below the smallest normal number of their
            type, where digits are lost.
        count: the number of entries.
    """

    maximum: float
    mean: float
    rms: float
    zero: float
    tiny: float
    count: int

    @property
    def finite(self) -> bool:
        """Return whether no entry was NaN or infinite."""
        return math.isfinite(self.maximum)

    @staticmethod
    def pooled(rows: Sequence[Sequence[float]], counts: Sequence[int]) -> Magnitude | None:
        """Return the magnitude of several tensors taken together, or None when there are none.

        Args:
            rows: what measure returned for each.
            counts: the number of entries of each.
        """
        if not rows:
            return None
        total = sum(counts)
        maxima = [r[0] for r in rows]
        largest = max(maxima) if all(map(math.isfinite, maxima)) else math.nan
        scale = largest if largest > 0 else 1.0
        share = [n / total for n in counts]
        pairs = list(zip(rows, share, strict=True))
        return Magnitude(
            maximum=largest,
            mean=sum(w * r[1] * r[0] for r, w in pairs),
            rms=scale * math.sqrt(sum(w * (r[2] * (r[0] / scale)) ** 2 for r, w in pairs)),
            zero=sum(w * r[3] for r, w in pairs),
            tiny=sum(w * r[4] for r, w in pairs),
            count=total,
        )


def few(tensor: Tensor) -> Tensor:
    """Return the first images of a batch: about ENTRIES numbers, but at least eight images."""
    each = max(tensor[0].numel(), 1) if tensor.ndim > 1 else 1
    return tensor[: max(ENTRIES // each, LEAST_IMAGES)] if tensor.ndim else tensor


def measure(tensor: Tensor) -> tuple[float, float, float, float, float]:
    """Return (max, mean / max, rms / max, fraction of zeros, fraction of tiny entries) of |tensor|.

    Entries are divided by the maximum where it is extreme: in float32 the plain sum of squares of
    entries near 1e-30 is exactly 0.

    Args:
        tensor: floating-point, of any shape.
    """
    import torch
    from torch.nn.functional import threshold

    smallest = torch.finfo(tensor.dtype).tiny
    size = magnitudes(tensor)
    count = size.numel()
    if not count:
        return 0.0, 0.0, 0.0, 0.0, 0.0
    largest = float(size.amax())
    zero = tiny = 0.0
    if not float(size.amin()) > smallest:
        # An odd stride meets all columns of a matrix.
        some = size.flatten()[:: count // COUNTED | 1]
        normal = int(torch.count_nonzero(threshold(some, smallest, 0.0)))
        nonzero, of = int(torch.count_nonzero(some)), some.numel()
        zero, tiny = (of - nonzero) / of, (nonzero - normal) / of
    if largest == 0 or not math.isfinite(largest):
        return largest, 0.0, 0.0, zero, tiny
    scale = largest
    if SAFE[0] < largest < SAFE[1]:
        scale = 1.0
    else:
        size = size / largest
    share = scale / largest
    mean, norm = float(size.mean()), float(torch.linalg.vector_norm(size))
    return largest, mean * share, norm * share / math.sqrt(count), zero, tiny


def magnitudes(tensor: Tensor) -> Tensor:
    """Return |tensor| in float32 or better; of a sparse tensor the stored entries."""
    import torch

    x = tensor.detach()
    if x.is_sparse:
        x = x.coalesce().values()
    x = x.abs()
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
