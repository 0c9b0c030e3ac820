"""Gradients through steps, which have none: what attacks need of models that round or compare.

Rounding, signs and comparisons are computed as they are, and pass the gradient on as if they were
not there (Bengio et al., 2013; against defences Athalye et al., 2018, BPDA).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

_STEPS = frozenset(
    (
        *(torch.round, torch.floor, torch.ceil, torch.trunc, torch.fix, torch.sign, torch.sgn),
        *(Tensor.round, Tensor.floor, Tensor.ceil, Tensor.trunc, Tensor.fix, Tensor.sign),
        *(Tensor.sgn, torch.heaviside, Tensor.heaviside),
    )
)
_ABOVE = frozenset((torch.gt, torch.ge, Tensor.gt, Tensor.ge, Tensor.__gt__, Tensor.__ge__))
_BELOW = frozenset((torch.lt, torch.le, Tensor.lt, Tensor.le, Tensor.__lt__, Tensor.__le__))
_CASTS = frozenset(
    (
        *(Tensor.float, Tensor.double, Tensor.half, Tensor.to, Tensor.type),
        *(Tensor.int, Tensor.long, Tensor.byte, torch.bucketize),
    )
)
_TIMES = frozenset((torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__))


class ThroughSteps(TorchFunctionMode):
    """While entered, steps of a floating-point tensor pass its gradient on; values don't change."""

    def __init__(self) -> None:
        super().__init__()
        # What each whole-numbered result grows with.
        self._source = WeakIdKeyDictionary()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        x = args[0] if args and isinstance(args[0], Tensor) else None
        if x is None or not isinstance(result, Tensor):
            return result
        learns = x.is_floating_point() and x.requires_grad
        source = x if learns else self._source.get(x)  # type: ignore[no-untyped-call]
        if source is None:
            return result
        if func in _STEPS and learns:
            return _with_gradient_of(x, result)
        if func in _ABOVE or func in _BELOW or (func in _CASTS and not result.is_floating_point()):
            self._source[result] = -source if func in _BELOW else source
        elif learns or result.requires_grad or not result.is_floating_point():
            return result
        elif func in _CASTS:
            return _with_gradient_of(source, result)
        elif func in _TIMES and len(args) == 2:
            return _with_gradient_of(source * args[1], result)
        elif func is torch.where and len(args) == 3:
            return _with_gradient_of(source * (args[1] - args[2]), result)
        return result


def _with_gradient_of(x: Tensor, result: Tensor) -> Tensor:
    """Return the result, to the last bit, with the gradient of x."""
    replaced: Tensor = _Replaced.apply(x, result.detach())  # type: ignore[no-untyped-call]
    return replaced


class _Replaced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, result: Tensor) -> Tensor:
        ctx.shape, ctx.dtype = x.shape, x.dtype
        return result.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.sum_to_size(ctx.shape).to(ctx.dtype), None
