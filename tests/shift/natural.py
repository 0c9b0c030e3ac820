"""Images with the spectrum of photographs, made from a seed, and statistics of what became of them.

Both NumPy alone, so that the tables of another library can be remade where torch isn't.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

STATISTICS = ("mean", "std", "difference", "gradient", "colour")


@functools.cache
def natural(count: int, side: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return uint8[count, side, side, 3] whose amplitude falls as 1 / f (Field, 1987)."""
    rng = np.random.default_rng(seed)
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    f[0, 0] = np.inf
    shape = (count, 3, side, side // 2 + 1)
    noise = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / f
    # Channels of photographs are correlated.
    noise = noise.mean(1, keepdims=True) * 2 + noise * 0.4
    x = np.fft.irfft2(noise, (side, side))
    x = 0.45 + 0.2 * x / x.std((1, 2, 3), keepdims=True)
    return (x.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)


def statistics(clean: NDArray[np.float64], changed: NDArray[np.float64]) -> tuple[float, ...]:
    """Return the STATISTICS of [n, h, w, 3] in [0, 1]: mean, spread over pixels, mean absolute
    change, mean absolute difference of neighbours, and spread between an image's channels."""
    gradient = np.abs(np.diff(changed, axis=1)).mean() + np.abs(np.diff(changed, axis=2)).mean()
    return (
        float(changed.mean()),
        float(changed.std((1, 2)).mean()),
        float(np.abs(changed - clean).mean()),
        float(gradient / 2),
        float(changed.std(3).mean()),
    )
