"""The operation of each kind of layer whose bounds are known.

A maker takes a layer, the shapes of one image before and after it, and a tensor of the dtype and
device to use; it returns None for settings whose bounds aren't known.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
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
from unmask.fool.certify.relaxation import Curve, bent, curved, piecewise, smooth


def _linear(layer: nn.Linear, _before: Shape, _after: Shape, _like: Tensor) -> Operation:
    return linear(layer.weight, layer.bias)


def _convolution(layer: Any, before: Shape, _after: Shape, like: Tensor) -> Operation | None:
    """Return a convolution's operation.

    Args:
        layer: an nn.Conv1d, nn.Conv2d or nn.Conv3d, or the settings of one.
        before: channels and sides of its input.
        like: a tensor of the dtype and device to use.
    """
    sides = len(layer.kernel_size)
    run, turned = _CONVOLUTIONS[sides], _TRANSPOSED[sides]
    rest = (layer.stride, layer.padding, layer.dilation, layer.groups)
    bias = 0.0 if layer.bias is None else layer.bias
    spread = (-1, *[1] * sides)
    terms = layer.weight[0].numel() + 1
    if layer.padding_mode != "zeros":
        return mapped(
            lambda x: layer._conv_forward(x, layer.weight, None),
            before,
            like,
            absolute=lambda r: layer._conv_forward(r, layer.weight.abs(), None),
            bias=bias,
            terms=terms,
            spread=spread,
        )
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


def convolution(
    sides: int, settings: dict[str, Any], before: Shape, after: Shape, like: Tensor
) -> Operation | None:
    """Return the operation of torch.nn.functional.conv1d, conv2d or conv3d.

    Args:
        sides: how many sides an image has.
        settings: its arguments but the input, by name.
        before, after: channels and sides of its input and output.
        like: a tensor of the dtype and device to use.
    """
    given = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1, **settings}
    for name in ("stride", "padding", "dilation"):
        value = given[name]
        given[name] = (value,) * sides if isinstance(value, int) else value
    size = tuple(given["weight"].shape[2:])
    layer = SimpleNamespace(**given, kernel_size=size, padding_mode="zeros")
    return _convolution(layer, before, after, like)


def _transposed(layer: Any, before: Shape, _after: Shape, like: Tensor) -> Operation:
    run = _TRANSPOSED[len(layer.kernel_size)]
    rest = (layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)
    return mapped(
        lambda x: run(x, layer.weight, None, *rest),
        before,
        like,
        absolute=lambda r: run(r, layer.weight.abs(), None, *rest),
        bias=0.0 if layer.bias is None else layer.bias,
        terms=layer.weight[:, 0].numel() + 1,
        spread=(-1, *[1] * len(layer.kernel_size)),
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
    return replace(scaled(scale.reshape(wide), shift.reshape(wide)), norm=layer)


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


def _moved(layer: nn.Module, before: Shape, _after: Shape, like: Tensor) -> Operation:
    """Return a layer that copies values, or mixes some of them with positive weights."""
    with torch.no_grad():
        # Zero but where a padding has another value.
        bias = layer(like.new_zeros(1, *before))[0]
    if not bool(bias.any()):
        return mapped(layer, before, like, terms=16)
    return mapped(lambda x: layer(x) - bias, before, like, bias=bias, terms=17)


def _resized(layer: nn.Upsample, before: Shape, after: Shape, like: Tensor) -> Operation | None:
    # Cubic weights are partly negative.
    return None if layer.mode == "bicubic" else _moved(layer, before, after, like)


def pooled(layer: Any, before: Shape, after: Shape, like: Tensor) -> Operation | None:
    """Return the maxima of a torch.nn.MaxPool2d; None for settings whose bounds aren't known."""
    if layer.return_indices:
        return None
    size, stride, padding, apart = (
        (v, v) if isinstance(v, int) else tuple(v)
        for v in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    )
    rows, columns = (
        torch.arange(after[1 + i])[:, None] * stride[i]
        - padding[i]
        + torch.arange(size[i]) * apart[i]
        for i in (0, 1)
    )
    return _windows(rows, columns, before, after, like)


def _adaptive(layer: Any, before: Shape, after: Shape, like: Tensor) -> Operation | None:
    if layer.return_indices:
        return None

    def places(size: int, count: int) -> Tensor:
        starts = torch.arange(count) * size // count
        ends = -(-(torch.arange(1, count + 1) * size) // count)
        found = starts[:, None] + torch.arange(int((ends - starts).max()))
        return torch.where(found < ends[:, None], found, -1)

    return _windows(places(before[1], after[1]), places(before[2], after[2]), before, after, like)


def _windows(rows: Tensor, columns: Tensor, before: Shape, after: Shape, like: Tensor) -> Maximum:
    """Return the maxima over windows.

    Args:
        rows: int64[outputs, k], those of each window; outside the image where there is none.
        columns: likewise.
        before, after: channels, height, width of the input and of the output.
        like: a tensor on the device to use.
    """
    channels, height, width = before
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


def _leaky(layer: nn.LeakyReLU, *_: Any) -> Operation:
    return Elementwise(piecewise(float(layer.negative_slope), 1.0))


def _prelu(layer: nn.PReLU, *_: Any) -> Operation | None:
    if layer.weight.numel() != 1 or layer.weight.requires_grad:
        return None
    return Elementwise(piecewise(float(layer.weight), 1.0))


def _elu(layer: nn.ELU | nn.CELU, *_: Any) -> Operation | None:
    if layer.alpha <= 0:
        return None
    if layer.alpha == 1:
        return Elementwise(smooth("elu"))
    grown = isinstance(layer, nn.CELU)
    steepest = 1.0 if grown else max(1.0, layer.alpha)
    return Elementwise(curved(_function(layer), 0.0, steepest, layer.alpha ** (-1 if grown else 1)))


def _softplus(layer: nn.Softplus, *_: Any) -> Operation | None:
    # Above the threshold it is x, a step of exp(-threshold) / beta.
    if layer.threshold < 20 or layer.beta <= 0:
        return None
    if layer.beta == 1:
        return Elementwise(smooth("softplus"))
    return Elementwise(curved(_function(layer), 0.0, 1.0, layer.beta / 4))


def _gelu(layer: nn.GELU, *_: Any) -> Operation:
    if layer.approximate == "none":
        return Elementwise(smooth("gelu"))
    return Elementwise(curved(_function(layer), -0.1291, 1.1291, 0.7979))


def _clipped(layer: nn.Hardtanh, *_: Any) -> Operation:
    return Elementwise(clipped(layer.min_val, layer.max_val))


def clipped(low: float, high: float) -> Curve:
    """Return the function that clips to [low, high], of which one may be infinite."""
    knots = tuple(end for end in (low, high) if math.isfinite(end))
    return bent(lambda x: x.clamp(low, high), knots, 1.0)


def _shrunk(layer: nn.Softshrink, *_: Any) -> Operation:
    return Elementwise(bent(_function(layer), (-layer.lambd, layer.lambd), 1.0))


def _function(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    if not getattr(layer, "inplace", False):
        return layer
    # Where a layer writes is no part of its function.
    plain = copy.copy(layer)
    vars(plain)["inplace"] = False
    return plain


_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {
    1: functional.conv1d,
    2: functional.conv2d,
    3: functional.conv3d,
}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}
_RELU = piecewise(0.0, 1.0)
CURVES: dict[str, Curve] = {
    "relu": _RELU,
    "abs": piecewise(-1.0, 1.0),
    **{name: smooth(name) for name in ("tanh", "sigmoid", "erf")},
}
# The layers whose settings these functions take, in this order.
FUNCTIONS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "leaky_relu": (nn.LeakyReLU, ("negative_slope",)),
    "elu": (nn.ELU, ("alpha",)),
    "celu": (nn.CELU, ("alpha",)),
    "selu": (nn.SELU, ()),
    "gelu": (nn.GELU, ("approximate",)),
    "silu": (nn.SiLU, ()),
    "mish": (nn.Mish, ()),
    "softplus": (nn.Softplus, ("beta", "threshold")),
    "softsign": (nn.Softsign, ()),
    "logsigmoid": (nn.LogSigmoid, ()),
    "tanhshrink": (nn.Tanhshrink, ()),
    "softshrink": (nn.Softshrink, ("lambd",)),
    "relu6": (nn.ReLU6, ()),
    "hardtanh": (nn.Hardtanh, ("min_val", "max_val")),
    "hardswish": (nn.Hardswish, ()),
    "hardsigmoid": (nn.Hardsigmoid, ()),
    "max_pool2d": (
        nn.MaxPool2d,
        ("kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode"),
    ),
    "adaptive_max_pool2d": (nn.AdaptiveMaxPool2d, ("output_size", "return_indices")),
}
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
# Linear functions without negative coefficients.
POSITIVE = (
    *("mean", "sum", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"),
    *("permute", "transpose", "squeeze", "unsqueeze", "movedim", "swapaxes", "getitem", "narrow"),
    *("select", "roll", "flip", "unfold", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle"),
    *("expand", "repeat", "repeat_interleave", "interpolate", "pad"),
)
# These return several tensors, of which getitem takes one.
PARTS = ("chunk", "split", "tensor_split", "unbind")
# These return what they are given, if in another type.
UNCHANGED = (
    *("dropout", "dropout2d", "contiguous", "clone", "detach", "float", "double", "half"),
    *("bfloat16", "to", "type", "type_as"),
)
# What these make of an image doesn't depend on its values.
CONSTANT = ("new_tensor", "new_zeros", "new_ones", "new_full", "zeros_like", "ones_like")
ARITHMETIC = {
    **dict.fromkeys(("add", "iadd", "add_"), "add"),
    **dict.fromkeys(("sub", "isub", "sub_"), "sub"),
    **dict.fromkeys(("mul", "imul", "mul_"), "mul"),
    **dict.fromkeys(("truediv", "itruediv", "div", "div_", "true_divide"), "truediv"),
    **dict.fromkeys(("neg", "neg_", "negative"), "neg"),
}
LAYERS: dict[type[nn.Module], Callable[..., Operation | None]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.ConvTranspose1d: _transposed,
    nn.ConvTranspose2d: _transposed,
    nn.ConvTranspose3d: _transposed,
    nn.ReLU: _curve(_RELU),
    nn.LeakyReLU: _leaky,
    nn.PReLU: _prelu,
    nn.Sigmoid: _curve(smooth("sigmoid")),
    nn.Tanh: _curve(smooth("tanh")),
    nn.ELU: _elu,
    nn.CELU: _elu,
    nn.SELU: _curve(smooth("selu")),
    nn.GELU: _gelu,
    nn.SiLU: _curve(smooth("silu")),
    nn.Softplus: _softplus,
    nn.Mish: _curve(curved(functional.mish, -0.113, 1.089, 0.645)),
    nn.Softsign: _curve(curved(functional.softsign, 0.0, 1.0, 2.0)),
    nn.LogSigmoid: _curve(curved(functional.logsigmoid, 0.0, 1.0, 0.25)),
    nn.Tanhshrink: _curve(curved(functional.tanhshrink, 0.0, 1.0, 0.77)),
    nn.Softshrink: _shrunk,
    nn.ReLU6: _clipped,
    nn.Hardtanh: _clipped,
    nn.Hardswish: _curve(curved(functional.hardswish, -0.5, 1.5, 1 / 3 + 1e-9, (-3.0, 3.0))),
    nn.Hardsigmoid: _curve(bent(functional.hardsigmoid, (-3.0, 3.0), 1 / 6)),
    nn.Flatten: lambda _, before, after, like: reshaped(before, after, like),
    nn.Unflatten: lambda _, before, after, like: reshaped(before, after, like),
    nn.MaxPool2d: pooled,
    nn.AdaptiveMaxPool2d: _adaptive,
    nn.AvgPool1d: _averaged,
    nn.AvgPool2d: _averaged,
    nn.AdaptiveAvgPool1d: _averaged,
    nn.AdaptiveAvgPool2d: _averaged,
    nn.Upsample: _resized,
    nn.UpsamplingNearest2d: _resized,
    nn.UpsamplingBilinear2d: _resized,
    **dict.fromkeys(
        (
            *(nn.ZeroPad1d, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ReflectionPad1d),
            *(nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d, nn.CircularPad1d),
            *(nn.CircularPad2d, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
        ),
        _moved,
    ),
    **{kind: (lambda *_: None) for kind in NOTHING},
}
