"""Building blocks of several corruptions: blurs, displacements, plasma, grey."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

from unmask.shift.corruptions.registry import REFERENCE_SIDE, Draw


def scale_of(x: Tensor) -> float:
    """Return the shorter side in units of the papers' 224 pixels."""
    return min(x.shape[2:]) / REFERENCE_SIDE


def grey(x: Tensor) -> Tensor:
    """Return luma [b, 1, h, w] of [b, c, h, w] (ITU-R BT.601)."""
    if x.shape[1] == 1:
        return x
    return 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]


@functools.lru_cache(maxsize=64)
def _blur_matrix(side: int, sigma: float) -> Tensor:
    """Return the matrix [side, side] that blurs a line, continued by its end values."""
    radius = max(1, math.ceil(4 * sigma))
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    weights /= weights.sum()
    places = (torch.arange(side)[:, None] + offsets).clamp(0, side - 1)
    matrix = torch.zeros(side, side, dtype=torch.float64)
    matrix.scatter_add_(1, places, weights.expand(side, -1))
    return matrix.float()


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Return x blurred along its last two dimensions; sigma in pixels, 0 for none."""
    if sigma < 0.05:
        return x
    height, width = x.shape[-2:]
    sigma = round(sigma, 6)
    rows = _banded(_blur_matrix(height, sigma).to(x), sigma)
    columns = _banded(_blur_matrix(width, sigma).to(x), sigma)
    x = torch.cat([part @ x[..., first:last, :] for part, first, last in rows], -2)
    return torch.cat([x[..., first:last] @ part.T for part, first, last in columns], -1)


def _banded(matrix: Tensor, sigma: float) -> list[tuple[Tensor, int, int]]:
    """Return blocks of rows of a blur's matrix, each with the columns that aren't 0."""
    side, reach = len(matrix), max(1, math.ceil(4 * sigma))
    # Blocks as large as the columns beyond them waste the least.
    block = max(32, 2 * reach)
    found = []
    for start in range(0, side, block):
        first, last = max(0, start - reach), min(side, start + block + reach)
        found.append((matrix[start : start + block, first:last], first, last))
    return found


@functools.lru_cache(maxsize=64)
def _fast_length(length: int) -> int:
    from scipy.fft import next_fast_len

    return int(next_fast_len(length, real=True))


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Return x[b, c, h, w] convolved with kernel[1 or b, k, k], k odd, its edges replicated."""
    height, width = x.shape[2:]
    k = kernel.shape[-1]
    half = k // 2
    padded = functional.pad(x, (half, half, half, half), mode="replicate")
    size = [_fast_length(s) for s in padded.shape[2:]]
    spectrum = torch.fft.rfft2(padded, size) * torch.fft.rfft2(kernel[:, None], size)
    out: Tensor = torch.fft.irfft2(spectrum, size)
    return out[:, :, k - 1 : k - 1 + height, k - 1 : k - 1 + width]


def disk(radius: float, alias: float, device: torch.device) -> Tensor:
    """Return the kernel of a lens out of focus, of sum 1.

    Args:
        radius: of the disk in pixels.
        alias: the standard deviation of the blur of its rim, in pixels.
        device: of the kernel.

    Returns:
        float32[1, k, k], k odd.
    """
    half = math.ceil(radius) + 2
    line = torch.arange(-half, half + 1, device=device, dtype=torch.float32)
    distance = torch.hypot(line[:, None], line[None])
    kernel = (radius + 0.5 - distance).clamp(0, 1)
    kernel = gaussian_blur(kernel[None], alias)
    return kernel / kernel.sum()


def streaks(length: float, sigma: float, angles: Tensor) -> Tensor:
    """Return kernels of motion along a line.

    The point i pixels from the middle, i < length, has the weight exp(-i^2 / 2 sigma^2).

    Args:
        length: of the line in pixels.
        sigma: in pixels.
        angles: float[b], in radians.

    Returns:
        float32[b, k, k], each of sum 1.
    """
    half = math.ceil(length)
    i = torch.arange(half + 1, device=angles.device, dtype=torch.float32)
    weights = torch.exp(-0.5 * (i / max(sigma, 1e-3)) ** 2) * (length - i).clamp(0, 1)
    kernels = angles.new_zeros(len(angles), 2 * half + 1, 2 * half + 1)
    x = (half + angles.cos()[:, None] * i).round().long()
    y = (half + angles.sin()[:, None] * i).round().long()
    rows = torch.arange(len(angles), device=angles.device)[:, None].expand_as(x)
    kernels.index_put_((rows, y, x), weights.expand_as(x).contiguous(), accumulate=True)
    return kernels / kernels.sum((1, 2), keepdim=True)


def zoomed(x: Tensor, factor: float, dims: tuple[int, int] = (-2, -1)) -> Tensor:
    """Return the middle of x, enlarged by factor (bilinear), at the same size.

    Args:
        x: float32, any shape.
        factor: 1 or more.
        dims: those of height and width. Reading is fast where they come first.
    """
    for dim in dims:
        side = x.shape[dim]
        place = torch.arange(side, device=x.device, dtype=torch.float32) - (side - 1) / 2
        place = (place / factor + (side - 1) / 2).clamp(0, side - 1)
        low = place.long().clamp(max=side - 2)
        part = (place - low).reshape([-1 if d == dim % x.ndim else 1 for d in range(x.ndim)])
        x = torch.lerp(x.index_select(dim, low), x.index_select(dim, low + 1), part)
    return x


def displaced(x: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Return images sampled bilinearly at displaced points, reflected at the edges.

    Args:
        x: float32[b, c, h, w].
        dx: the displacement to the right in pixels, float32[b, h, w].
        dy: the displacement downwards, likewise.
    """
    height, width = x.shape[2:]
    across = torch.arange(width, device=x.device) + dx
    down = torch.arange(height, device=x.device)[:, None] + dy
    grid = torch.stack(
        [across * (2 / max(width - 1, 1)) - 1, down * (2 / max(height - 1, 1)) - 1], dim=-1
    )
    return functional.grid_sample(x, grid, padding_mode="reflection", align_corners=True)


def plasma(x: Tensor, decay: float, draw: Draw) -> Tensor:
    """Return clouds by the diamond-square rule (Fournier et al., 1982).

    Args:
        x: float32[b, c, h, w], of whose size the clouds are.
        decay: the factor by which the random heights shrink at each halving, 1 (rough) to 2
            (smooth).
        draw: the random numbers.

    Returns:
        float32[b, 1, h, w] in [0, 1].
    """
    height, width = x.shape[2:]
    size = 1 << max(3, (max(height, width) - 1).bit_length())
    noise = draw.uniform(size, size) * 2 - 1
    m = torch.zeros(len(x), size, size, device=x.device)
    step, wibble = size, 100.0
    while step >= 2:
        half = step // 2
        corners = m[:, ::step, ::step]
        total = corners + corners.roll(-1, 1)
        m[:, half::step, half::step] = (total + total.roll(-1, 2)) / 4 + (
            wibble**2 * noise[:, half::step, half::step]
        )
        centres = m[:, half::step, half::step]
        up = centres.roll(1, 1) + centres + corners + corners.roll(-1, 2)
        left = centres.roll(1, 2) + centres + corners + corners.roll(-1, 1)
        m[:, ::step, half::step] = up / 4 + wibble**2 * noise[:, ::step, half::step]
        m[:, half::step, ::step] = left / 4 + wibble**2 * noise[:, half::step, ::step]
        step, wibble = half, wibble / decay
    low, high = m.amin((1, 2), keepdim=True), m.amax((1, 2), keepdim=True)
    return ((m - low) / (high - low))[:, None, :height, :width]
