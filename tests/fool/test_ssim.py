"""SSIM beside a naive reference in float64, and what follows from its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmask.fool.outcome import ssim


def naive(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. (2004), window by window, one image [c, h, w]."""
    side = min(11, *a.shape[1:])
    at = np.arange(side) - (side - 1) / 2
    window = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for c in range(a.shape[0]):
        for i in range(a.shape[1] - side + 1):
            for j in range(a.shape[2] - side + 1):
                x, y = (p[c, i : i + side, j : j + side] for p in (a, b))
                mx, my = (window * x).sum(), (window * y).sum()
                vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
                both = (window * (x - mx) * (y - my)).sum()
                values.append(
                    (2 * mx * my + 1e-4)
                    * (2 * both + 9e-4)
                    / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
                )
    return float(np.mean(values))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 16, 20), (2, 7, 9)])
def test_it_is_the_naive_one(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(3)
    a = rng.random((4, *shape))
    b = np.clip(a + 0.2 * rng.standard_normal(a.shape), 0, 1)
    ours = ssim(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_allclose(ours, [naive(x, y) for x, y in zip(a, b, strict=True)], rtol=1e-9)


def test_equal_pictures_are_1_and_flat_ones_have_a_closed_form() -> None:
    a = torch.rand(3, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ssim(a, a), torch.ones(3, dtype=torch.float64))
    dark, light = torch.full((1, 1, 12, 12), 0.25), torch.full((1, 1, 12, 12), 0.75)
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    assert float(ssim(dark, light)) == pytest.approx(expected, rel=1e-6)


def test_it_is_symmetric_and_takes_any_number_of_pictures() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.rand(600, 1, 11, 11, generator=generator) for _ in range(2))
    torch.testing.assert_close(ssim(a, b), ssim(b, a))
    torch.testing.assert_close(ssim(a, b)[550:551], ssim(a[550:551], b[550:551]))
    assert ssim(a[:0], b[:0]).shape == (0,)
