"""Whether a layer holds what an initialisation drew, rather than what a training found."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# The fewest numbers that tell, and the most that are looked at.
_FEWEST, _MOST = 200, 1 << 14
# How far the standard deviation, relative to the true one, and the empirical distribution may lie
# from what they should be, in 1 / sqrt(n): of a hundred draws one or two are further away.
_OFF, _FAR = 2.0, 1.63
# Standard deviations that libraries draw weights with, whatever the size of a layer.
_FIXED = (1.0, 0.02, 0.01)


def drawn(weights: Sequence[Tensor], rest: Sequence[Tensor] = ()) -> bool | None:
    """Return whether weights look freshly drawn by one of the usual initialisations.

    Too few of them, as of a small convolution, don't tell: None.

    Known are uniform and normal weights as PyTorch, He and Glorot draw them, and normal ones with a
    fixed deviation, as of embeddings and transformers. The scale and shift of a normalisation are
    drawn if they are 1 and 0.

    Args:
        weights: of one layer, on the CPU or not.
        rest: its other parameters, which must be zero or within the range that PyTorch draws from.
    """
    matrices = [w.detach() for w in weights if w.ndim > 1]
    if not matrices:
        return all(bool((w == 1).all()) or not bool(w.any()) for w in weights)
    wide = max(1 / math.sqrt(w[0].numel()) for w in matrices)
    if any(bool((b.detach().abs() > wide).any()) for b in rest):
        return False
    found = [_matrix(w) for w in matrices]
    return False if False in found else True if True in found else None


def _matrix(weight: Tensor) -> bool | None:
    flat = weight.flatten()
    flat = flat[:: -(-len(flat) // _MOST)].double().cpu()
    n = len(flat)
    if n < _FEWEST:
        return None
    size = float(flat.std())
    ins, outs = weight[0].numel(), weight.numel() // weight.shape[1]
    # A recurrent layer's gates share a matrix.
    fans = (ins, outs, (ins + outs) / 2, outs / 3, outs / 4)
    # The variance times the number of inputs, of outputs, or their mean, is 1/3, 1 or 2.
    usual = [math.sqrt(v / fan) for fan in fans for v in (1 / 3, 1, 2)]
    alike = [s for s in (*usual, *_FIXED) if abs(size / s - 1) < _OFF / math.sqrt(n)]
    if not alike:
        return False
    ordered = flat.sort()[0]
    places = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    for s in alike:
        even = (ordered / (math.sqrt(3) * s) + 1).clamp(0, 2) / 2
        for below in (even, torch.special.ndtr(ordered / s)):
            if float((below - places).abs().amax()) < _FAR / math.sqrt(n):
                return True
    return False
