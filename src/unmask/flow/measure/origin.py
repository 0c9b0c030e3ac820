"""The operation that makes the first NaN or infinity of a forward or backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unmask.flow.measure.calls import user_line
from unmask.flow.measure.layers import tensors_in
from unmask.flow.measure.statistics import Origin

# Operations that write infinities on purpose, as attention masks do.
_MEANT = ("masked_fill", "masked_fill_", "full", "full_like", "where", "fill_", "triu", "tril")


def origin(model: nn.Module, inputs: Any, loss: Callable[[], Tensor]) -> Origin | None:
    """Return where NaN or infinity begins in a loss's forward and backward passes, or None.

    Args:
        model: the network; its gradients are changed, so give a copy.
        inputs: of the model.
        loss: computes the loss again, in the same way as when it wasn't finite.
    """
    if any(not bool(x.isfinite().all()) for x in tensors_in(inputs)):
        return Origin("inputs")
    for name, p in model.named_parameters():
        if not bool(p.isfinite().all()):
            return Origin("weights", layer=name.rpartition(".")[0] or name)
    names = {id(m): n for n, m in model.named_modules()}
    seen = _Search()
    handles = [
        nn.modules.module.register_module_forward_pre_hook(
            lambda module, args: seen.enter(names.get(id(module)))
        ),
        nn.modules.module.register_module_forward_hook(
            lambda module, args, output: seen.leave(), always_call=True
        ),
    ]
    try:
        with seen:
            value = loss()
        if seen.first is None and value.requires_grad:
            value.backward()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError):
        pass
    finally:
        for handle in handles:
            handle.remove()
    return seen.first or seen.first_infinity


# Operations of the user's own loss that are searched, from the loss back.
_NEAR = 48
_STEEP = ("Sqrt", "Log", "Log2", "Log10")


def origin_in(loss: Tensor) -> Origin | None:
    """Return the operation of a loss's graph that makes NaN or infinity, or None.

    This is for losses that are computed outside the model, and so can't be run again. Of a finite
    loss, square roots of 0 are found and logarithms of nearly 0, whose derivatives are infinite.

    Args:
        loss: before its backward pass.
    """
    finite, found = bool(loss.isfinite().all()), None
    for name, node in _near(loss):
        try:
            made = _makes(name, node)
        except (AttributeError, RuntimeError):
            # What it saved is gone, or was never needed.
            made = None
        if made is not None and finite == (made == "backward"):
            # Its source is the furthest from the loss.
            operation = "" if made == "factors" else name.lower()
            found = Origin(made, operation, None, user_line(), name != "Softmax")
    return found


def steep(loss: Tensor) -> bool:
    """Return whether a loss has an operation whose derivative is infinite where its result isn't.

    Args:
        loss: before its backward pass.
    """
    return any(name in _STEEP for name, _ in _near(loss))


def _near(loss: Tensor) -> Iterator[tuple[str, Any]]:
    """Yield the operations of a loss's graph by their names, from the loss back."""
    nodes: list[Any] = [loss.grad_fn]
    known: set[Any] = set()
    while nodes and len(known) < _NEAR:
        node = nodes.pop(0)
        if node is None or node in known:
            continue
        known.add(node)
        yield node.name().removesuffix("Backward0").removesuffix("Backward1"), node
        nodes += [parent for parent, _ in node.next_functions]


def _makes(name: str, node: Any) -> str | None:
    """Return the pass in which an operation makes NaN or infinity of what it saved, or None.

    "factors" stands for a product with numbers from outside the graph that aren't finite.
    """
    if name == "Mul":
        outside = [parent is None for parent, _ in node.next_functions]
        factors = (node._saved_self, node._saved_other)
        broken = [f is not None and not bool(f.isfinite().all()) for f in factors]
        return "factors" if any(o and b for o, b in zip(outside, broken, strict=True)) else None
    if name == "Sqrt":
        return None if bool(node._saved_result.all()) else "backward"
    if name in ("Log", "Log2", "Log10"):
        if not bool((node._saved_self > 0).all()):
            return "forward"
        return None if bool(node._saved_self.reciprocal().isfinite().all()) else "backward"
    if name == "Div":
        return None if bool(node._saved_other.all()) else "forward"
    if name in ("Exp", "Rsqrt", "Reciprocal", "Softmax", "Std"):
        return None if bool(node._saved_result.isfinite().all()) else "forward"
    return None


class _Search(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.first: Origin | None = None
        self.first_infinity: Origin | None = None
        self._layers: list[str | None] = []

    def enter(self, layer: str | None) -> None:
        self._layers.append(layer or (self._layers[-1] if self._layers else None))

    def leave(self) -> None:
        if self._layers:
            self._layers.pop()

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation and check whether it made NaN or infinity from finite numbers."""
        result = func(*args, **(kwargs or {}))
        if self.first is None:
            with torch._C.DisableTorchFunction(), torch.no_grad():
                self._look(func, (args, kwargs or {}), result)
        return result

    def _look(self, func: Any, given: Any, result: Any) -> None:
        name = getattr(func, "__name__", str(func)).strip("_")
        layer = self._layers[-1] if self._layers else None
        for out in _tensors(result):
            if bool(out.isnan().any()):
                if any(bool(x.isnan().any()) for x in _tensors(given)):
                    continue
                half = out.dtype == torch.float16
                here = Origin("forward", name, layer, user_line(), half=half)
                infinite = any(bool(x.isinf().any()) for x in _tensors(given))
                blamed = infinite and "softmax" not in name and self.first_infinity is not None
                self.first = self.first_infinity if blamed else here
                return
            made = self.first_infinity is None and name not in _MEANT and bool(out.isinf().any())
            if made and not any(bool(x.isinf().any()) for x in _tensors(given)):
                half = out.dtype == torch.float16
                self.first_infinity = Origin("forward", name, layer, user_line(), True, half)
            if out.grad_fn is not None:
                self._watch(out.grad_fn, name, layer, user_line())

    def _watch(self, node: Any, name: str, layer: str | None, location: str | None) -> None:
        def passed(to_inputs: Any, from_outputs: Any) -> None:
            if self.first is not None:
                return
            if any(not bool(g.isfinite().all()) for g in _tensors(from_outputs)):
                return
            broken = [g for g in _tensors(to_inputs) if not bool(g.isfinite().all())]
            if broken:
                infinite = not any(bool(g.isnan().any()) for g in broken)
                half = any(g.dtype == torch.float16 for g in _tensors(from_outputs))
                self.first = Origin("backward", name, layer, location, infinite, half)

        node.register_hook(passed)


def _tensors(value: Any) -> Iterator[Tensor]:
    yield from tensors_in(value)
