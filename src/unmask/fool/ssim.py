"""The structural similarity of two pictures."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03
_PICTURES = 512


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean structural similarity of pictures in [0, 1], float64[n], at most 1.

    a, b: float[n, c, h, w]. A Gaussian window of 11 x 11, or as large as the picture allows,
    sigma 1.5, over the places where it fits whole; the mean over them and the channels (Wang et
    al., 2004).
    """
    side = min(_WINDOW, *a.shape[-2:])
    at = torch.arange(side, dtype=torch.float64, device=a.device) - (side - 1) / 2
    window = torch.exp(-(at**2) / (2 * _SIGMA**2))
    window = window / window.sum()
    a, b = a.double(), b.double()
    parts = zip(torch.split(a, _PICTURES), torch.split(b, _PICTURES), strict=True)
    return torch.cat([_similarity(x, y, window) for x, y in parts])


def _similarity(a: Tensor, b: Tensor, window: Tensor) -> Tensor:
    n, c, h, w = a.shape
    moments = torch.stack([a, b, a * a, b * b, a * b]).reshape(-1, 1, h, w)
    smooth = functional.conv2d(moments, window[None, None, :, None])
    smooth = functional.conv2d(smooth, window[None, None, None, :])
    mean_a, mean_b, aa, bb, ab = smooth.reshape(5, n, c * smooth.shape[2] * smooth.shape[3])
    c1, c2 = _K1**2, _K2**2
    likeness = (2 * mean_a * mean_b + c1) * (2 * (ab - mean_a * mean_b) + c2)
    scale = (mean_a**2 + mean_b**2 + c1) * (aa - mean_a**2 + bb - mean_b**2 + c2)
    similarity: Tensor = (likeness / scale).mean(1)
    return similarity
