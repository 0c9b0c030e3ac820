"""What a network from outside takes: the type of numbers, the channels, and what it can't."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.runtime import sha256
from unmask.text import told

_TYPES = (torch.float16, torch.bfloat16, torch.float64)
_COLOURS = (1, 3)
_SHAPE = re.compile(
    r"shape|size|channel|dimension|expected input|elements|multiplied|broadcast|index|INVALID_ARG"
)
_NUMBERS = re.compile(r"dtype|scalar type|should be the same|data ?type|c10::")


def dtype_of(network: nn.Module) -> torch.dtype:
    """Return the type of numbers that a network takes, that of its first parameter.

    Args:
        network: any; float32 for one without parameters, or with those of a rarer type.
    """
    first = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    return first if first in _TYPES else torch.float32


def channels_of(network: nn.Module) -> int | None:
    """Return the channels of the images that a network takes: 1, 3, or None where it isn't clear.

    Args:
        network: any; its first convolution tells, unless what comes before it may change them.
    """
    first = next(
        (m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.Flatten))), None
    )
    if isinstance(first, nn.Conv2d) and first.in_channels in _COLOURS:
        return first.in_channels
    return None


def identity_of(network: nn.Module) -> str:
    """Return the SHA-256 of a network's parameters and buffers.

    Args:
        network: any; of what isn't a tensor, as quantised layers have, the text counts.
    """
    chunks: list[bytes | memoryview] = []
    for name, value in sorted(network.state_dict().items()):
        chunks.append(name.encode())
        if not isinstance(value, Tensor):
            # A pair of quantised weights and a bias, or a type.
            chunks.append(repr(value).encode())
            continue
        plain = value.detach().dequantize() if value.is_quantized else value.detach()
        chunks.append(plain.cpu().contiguous().float().numpy().tobytes())
    return sha256(*chunks)


def not_finite_in(network: nn.Module) -> str:
    """Return the name of the first parameter or buffer that holds NaN or infinity, or ""."""
    for name, value in network.state_dict().items():
        real = isinstance(value, Tensor) and value.is_floating_point() and not value.is_quantized
        if real and not bool(value.isfinite().all()):
            return name
    return ""


def handed(pixels: Tensor, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """Return a copy of pixels for code from outside, which may change it in place.

    Args:
        pixels: float[b, c, h, w].
        dtype: that the network takes.
        device: where it is; None leaves it where the pixels are.
    """
    return pixels.to(pixels.device if device is None else device, dtype, copy=True)


def failed(error: BaseException, shape: tuple[int, ...]) -> UserError:
    """Return the one line for what a model raised on a batch of images.

    Args:
        error: what it raised.
        shape: of one image.
    """
    wrong, text = f"the model can't take images of shape {list(shape)}", told(error, 200)
    do = "give images of the model's channels and size (--size)"
    if isinstance(error, TypeError) and "argument" in str(error):
        do = "wrap it in a module whose forward takes the images alone"
    elif isinstance(error, MemoryError) or "alloc" in str(error) or "out of memory" in str(error):
        do = "give smaller images"
    elif _NUMBERS.search(str(error)):
        do = "convert all of the model to one type of numbers, such as model.float()"
    elif not _SHAPE.search(str(error)):
        wrong = f"the model failed on images of shape {list(shape)}"
        do = "run it on one of them by itself to see where"
    return UserError(wrong, got=text, do=do)
