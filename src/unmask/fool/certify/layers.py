"""The operation of each kind of layer whose bounds are known.

A maker takes a layer, the shapes of one image before and after it, and a tensor of the dtype and
device to use; it returns None for settings whose bounds aren't known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unmask.fool.certify.operations import (
    Affine,
    Elementwise,
    Maximum,
    Operation,
    Shape,
    linear,
    mapped,
    scaled,
)
from unmask.fool.certify.relaxation import Curve, piecewise, smooth


def _linear(layer: nn.Linear, _before: Shape, _after: Shape, _like: Tensor) -> Operation:
    return linear(layer.weight, layer.bias)


def _convolution(
    layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, before: Shape, _after: Shape, like: Tensor
) -> Operation | None:
    if layer.padding_mode != "zeros":
        return None
    run: Callable[..., Tensor] = {
        nn.Conv1d: functional.conv1d,
        nn.Conv2d: functional.conv2d,
        nn.Conv3d: functional.conv3d,
    }[type(layer)]
    turned: Callable[..., Tensor] = {
        nn.Conv1d: functional.conv_transpose1d,
        nn.Conv2d: functional.conv_transpose2d,
        nn.Conv3d: functional.conv_transpose3d,
    }[type(layer)]
    rest = (layer.stride, layer.padding, layer.dilation, layer.groups)
    sides = len(layer.kernel_size)
    bias = 0.0 if layer.bias is None else layer.bias
    spread = (-1, *[1] * sides)
    terms = layer.weight[0].numel() + 1
    if isinstance(layer.padding, str):
        return mapped(
            lambda x: run(x, layer.weight, None, *rest),
            before,
            like,
            absolute=lambda r: run(r, layer.weight.abs(), None, *rest),
            bias=bias,
            terms=terms,
            spread=spread,
        )
    padding = layer.padding

    def back(c: Tensor) -> Tensor:
        extra = tuple(
            before[1 + i]
            - (
                (c.shape[2 + i] - 1) * layer.stride[i]
                - 2 * padding[i]
                + layer.dilation[i] * (layer.kernel_size[i] - 1)
                + 1
            )
            for i in range(sides)
        )
        return turned(
            c, layer.weight, None, layer.stride, padding, extra, layer.groups, layer.dilation
        )

    return Affine(
        apply=lambda x: run(x, layer.weight, None, *rest),
        absolute=lambda r: run(r, layer.weight.abs(), None, *rest),
        back=back,
        shift=bias,
        terms=terms,
        spread=spread,
    )


def _batch_norm(
    layer: nn.modules.batchnorm._BatchNorm, before: Shape, _after: Shape, _like: Tensor
) -> Operation | None:
    if layer.running_mean is None or layer.running_var is None:
        return None
    scale = (layer.running_var + layer.eps).rsqrt()
    if layer.weight is not None:
        scale = scale * layer.weight
    shift = -layer.running_mean * scale
    if layer.bias is not None:
        shift = shift + layer.bias
    wide = (-1, *[1] * (len(before) - 1))
    return scaled(scale.reshape(wide), shift.reshape(wide))


def reshaped(before: Shape, after: Shape, _like: Tensor) -> Operation:
    """Return the same values in another shape."""
    return Affine(
        apply=lambda x: x.reshape(len(x), *after),
        absolute=lambda r: r.reshape(len(r), *after),
        back=lambda c: c.reshape(len(c), *before),
        shift=0.0,
        terms=0,
        diagonal=True,
    )


def _averaged(layer: nn.Module, before: Shape, _after: Shape, like: Tensor) -> Operation:
    count = 1
    for side in before[1:]:
        count *= side
    return mapped(layer, before, like, terms=count)


def _padded(layer: nn.Module, before: Shape, _after: Shape, like: Tensor) -> Operation | None:
    if getattr(layer, "value", 0.0) != 0:
        return None
    return mapped(layer, before, like)


def pooled(layer: Any, before: Shape, after: Shape, like: Tensor) -> Operation | None:
    """Return the maxima of a torch.nn.MaxPool2d; None for settings whose bounds aren't known."""
    if layer.return_indices or layer.dilation not in (1, (1, 1)):
        return None
    size, stride, padding = (
        (v, v) if isinstance(v, int) else tuple(v)
        for v in (layer.kernel_size, layer.stride, layer.padding)
    )
    channels, height, width = before
    rows = torch.arange(after[1])[:, None] * stride[0] - padding[0] + torch.arange(size[0])
    columns = torch.arange(after[2])[:, None] * stride[1] - padding[1] + torch.arange(size[1])
    places = rows[:, None, :, None] * width + columns[None, :, None, :]
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & (
        (columns >= 0) & (columns < width)
    )[None, :, None, :]
    first = torch.arange(channels)[:, None, None, None, None] * (height * width)
    windows = torch.where(inside[None], first + places[None], -1).flatten(3).flatten(0, 2)
    return Maximum(windows.to(like.device), after)


def over_dimensions(dims: list[int], before: Shape, after: Shape, like: Tensor) -> Maximum:
    """Return the maximum over dimensions, where the batch counts as 0."""
    rank = len(before) + 1
    gone = sorted(d % rank - 1 for d in dims)
    kept = [i for i in range(len(before)) if i not in gone]
    count = 1
    for side in before:
        count *= side
    places = torch.arange(count).reshape(before).permute(*kept, *gone)
    windows = places.flatten(len(kept)) if kept else places.reshape(1, -1)
    windows = windows.reshape(-1, windows.shape[-1])
    return Maximum(windows.to(like.device), after)


def _curve(curve: Curve) -> Callable[..., Operation]:
    return lambda *_: Elementwise(curve)


def _leaky(layer: nn.LeakyReLU, *_: Any) -> Operation | None:
    if not 0 <= layer.negative_slope <= 1:
        return None
    return Elementwise(piecewise(layer.negative_slope, 1.0))


def _when(good: Callable[[Any], bool], curve: Curve) -> Callable[..., Operation | None]:
    return lambda layer, *_: Elementwise(curve) if good(layer) else None


_RELU = piecewise(0.0, 1.0)
CURVES: dict[str, Curve] = {
    "relu": _RELU,
    "relu_": _RELU,
    **{name: smooth(name) for name in ("tanh", "sigmoid", "erf", "gelu", "silu", "softplus")},
}
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
# Linear functions without negative coefficients.
POSITIVE = (
    *("mean", "sum", "avg_pool2d", "adaptive_avg_pool2d", "permute", "transpose", "squeeze"),
    *("unsqueeze", "movedim", "getitem"),
)
LAYERS: dict[type[nn.Module], Callable[..., Operation | None]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.ReLU: _curve(_RELU),
    nn.LeakyReLU: _leaky,
    nn.Sigmoid: _curve(smooth("sigmoid")),
    nn.Tanh: _curve(smooth("tanh")),
    nn.ELU: _when(lambda e: e.alpha == 1, smooth("elu")),
    nn.SELU: _curve(smooth("selu")),
    nn.GELU: _when(lambda e: e.approximate == "none", smooth("gelu")),
    nn.SiLU: _curve(smooth("silu")),
    nn.Softplus: _when(lambda e: e.beta == 1 and e.threshold >= 20, smooth("softplus")),
    nn.Flatten: lambda _, before, after, like: reshaped(before, after, like),
    nn.Unflatten: lambda _, before, after, like: reshaped(before, after, like),
    nn.MaxPool2d: pooled,
    nn.AvgPool1d: _averaged,
    nn.AvgPool2d: _averaged,
    nn.AdaptiveAvgPool1d: _averaged,
    nn.AdaptiveAvgPool2d: _averaged,
    nn.ZeroPad1d: _padded,
    nn.ZeroPad2d: _padded,
    nn.ConstantPad1d: _padded,
    nn.ConstantPad2d: _padded,
    **{kind: (lambda *_: None) for kind in NOTHING},
}
