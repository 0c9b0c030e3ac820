"""The derivatives of the activations of a network, called as modules or as plain functions."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from unmask.flow.measure.calls import REVERSED_MASK
from unmask.flow.measure.magnitude import few
from unmask.flow.measure.masks import Padding
from unmask.flow.measure.statistics import DEAD_BELOW, QUANTILES, SATURATED_BELOW

_NAMES: dict[str, tuple[Any, ...]] = {
    "relu": (functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
    "relu6": (functional.relu6,),
    "leaky_relu": (functional.leaky_relu,),
    "prelu": (functional.prelu, torch.prelu, Tensor.prelu),
    "elu": (functional.elu,),
    "celu": (functional.celu, torch.celu),
    "selu": (functional.selu, torch.selu),
    "gelu": (functional.gelu,),
    "silu": (functional.silu,),
    "mish": (functional.mish,),
    "softplus": (functional.softplus,),
    "tanh": (torch.tanh, Tensor.tanh, Tensor.tanh_, functional.tanh),
    "sigmoid": (torch.sigmoid, Tensor.sigmoid, Tensor.sigmoid_, functional.sigmoid),
    "hardtanh": (functional.hardtanh,),
    "hardsigmoid": (functional.hardsigmoid,),
    "hardswish": (functional.hardswish,),
    "softsign": (functional.softsign,),
    "logsigmoid": (functional.logsigmoid,),
    "erf": (torch.erf, Tensor.erf, torch.special.erf),
}
_NAME_OF = {function: name for name, functions in _NAMES.items() for function in functions}
_GRID, _SAMPLE = (-12.0, 12.0, 2401), 1024

Seen = Callable[[str, Tensor, float], None]

# Operations that pass no gradient, as users write them.
_CUTS: dict[Any, str] = {
    Tensor.detach: ".detach()",
    Tensor.data.__get__: ".data",  # type: ignore[attr-defined]
    Tensor.numpy: ".numpy()",
    Tensor.item: ".item()",
    Tensor.tolist: ".tolist()",
    Tensor.argmax: ".argmax()",
    torch.argmax: "argmax",
    Tensor.round: ".round()",
    torch.round: "round",
    Tensor.sign: ".sign()",
    torch.sign: "sign",
    Tensor.floor: ".floor()",
    Tensor.long: ".long()",
    Tensor.int: ".int()",
}


class ActivationMode(TorchFunctionMode):
    """While entered, reports every activation that is applied with gradients.

    It finds the elementwise functions of _NAMES, whether a module or a forward calls them; others
    are left alone.

    Args:
        seen: receives the name, phi' at the inputs, and the supremum of |phi'|.
        cut: receives the name of each operation that passes no gradient to an input that needs one,
            and of attention that is kept from what it should see.
        drawn: receives what sample() of a distribution draws whose parameters have a graph.
    """

    def __init__(
        self,
        seen: Seen | None,
        cut: Callable[[str], None] | None = None,
        drawn: Callable[[Tensor], None] | None = None,
    ) -> None:
        super().__init__()
        self._seen, self._cut, self._drawn = seen, cut, drawn
        self._suprema: dict[Any, float] = {}
        self._padding = Padding()

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Measure an activation before it runs, since it may overwrite its input."""
        kwargs = kwargs or {}
        if torch.is_grad_enabled() and torch._C._current_graph_task_id() == -1:
            # No error of the measurement may reach the training.
            with contextlib.suppress(Exception):
                self._look(func, args, kwargs)
        result = func(*args, **kwargs)
        if func is torch.normal and self._drawn is not None and _sampled():
            self._drawn(result)
        return result

    def _look(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._cut is not None and func in _CUTS and args:
            if isinstance(args[0], Tensor) and args[0].requires_grad:
                self._cut(_CUTS[func])
            return
        if self._cut is not None and self._padding.alone_seen(func, args, kwargs):
            self._cut(REVERSED_MASK)
        name, seen = _NAME_OF.get(func), self._seen
        if name == "hardtanh" and _clipped_rectifier(args, kwargs):
            name = "relu6"
        if name is not None and seen is not None:
            z, rest, named = (*args, None)[0], args[1:], dict(kwargs)
            z = named.pop("input", None) if z is None else z
            if isinstance(z, Tensor) and z.is_floating_point() and z.numel():

                def phi(x: Tensor) -> Tensor:
                    result: Tensor = func(x, *rest, **named)
                    return result

                seen(name, derivative(phi, few(z)), self._supremum(name, phi, rest, named))

    def _supremum(
        self, name: str, phi: Callable[[Tensor], Tensor], rest: Any, named: dict[str, Any]
    ) -> float:
        if name == "prelu":
            return 1.0
        key = (name, tuple(map(str, rest)), tuple(map(str, named.items())))
        if key not in self._suprema:
            grid = torch.linspace(*_GRID, dtype=torch.float64)
            self._suprema[key] = float(derivative(phi, grid).abs().amax())
        return self._suprema[key]


def derivative(phi: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Return phi'(z) of an elementwise phi, by autograd, in float32 or better."""
    # Checkpointing counts what its region saves for the backward pass, which must exclude this.
    apart = torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x)
    with apart, torch.enable_grad(), torch.autocast(z.device.type, enabled=False):
        leaf = z.detach()
        leaf = (leaf.float() if leaf.dtype in (torch.float16, torch.bfloat16) else leaf).clone()
        leaf.requires_grad_()
        # Times one, since an in-place phi may not overwrite a leaf.
        (slope,) = torch.autograd.grad(phi(leaf * 1).sum(), leaf)
    return slope


def describe(slope: Tensor, supremum: float) -> tuple[float, ...]:
    """Return the quantiles of |phi'|, its RMS, its supremum and the fraction that is saturated.

    The quantiles are those of about 1000 entries, evenly spread.

    Args:
        slope: phi' of any shape.
        supremum: the largest |phi'| of the activation.

    Returns:
        len(QUANTILES) + 3 numbers.
    """
    size = slope.abs()
    flat = size.flatten()
    sample = flat[:: max(1, flat.numel() // _SAMPLE)][:_SAMPLE].sort().values
    at = [round(q * (len(sample) - 1)) for q in QUANTILES]
    saturated = int(torch.count_nonzero(size < SATURATED_BELOW * supremum)) / flat.numel()
    rms = float(torch.linalg.vector_norm(flat)) / math.sqrt(flat.numel())
    return (*sample[at].tolist(), rms, supremum, saturated)


def alive(slope: Tensor, supremum: float, unit_dim: int) -> Tensor:
    """Return for each unit whether |phi'| reached 0.1 % of its supremum for any image.

    Args:
        slope: phi' of any shape.
        supremum: the largest |phi'| of the activation.
        unit_dim: the dimension of the units.

    Returns:
        bool[units].
    """
    size = slope.abs()
    rest = [d for d in range(size.ndim) if d != unit_dim % size.ndim]
    return (size.amax(dim=rest) if rest else size) >= DEAD_BELOW * supremum


def name_of(function: Any) -> str | None:
    """Return the name of the activation that a function of torch applies, or None."""
    return _NAME_OF.get(function)


def _sampled() -> bool:
    """Return whether a normal distribution's sample() draws, with a mean that has a graph."""
    frame = sys._getframe(2)
    if frame.f_code.co_name != "sample" or torch.is_grad_enabled():
        return False
    return bool(getattr(getattr(frame.f_locals.get("self"), "loc", None), "requires_grad", False))


def _clipped_rectifier(args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Return whether a hardtanh's lower end is 0, as that of torch.nn.ReLU6."""
    low = args[1] if len(args) > 1 else named.get("min_val", -1.0)
    return bool(low >= 0)
