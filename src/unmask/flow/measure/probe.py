"""GradientProbe: per-layer statistics of the gradient flow in anyone's training loop."""

from __future__ import annotations

import math
import sys
from types import TracebackType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from unmask.errors import UserError
from unmask.flow.measure.layers import Collected, Layer, Units, input_stats, layers_of, tensors_in
from unmask.flow.measure.slopes import ActivationMode
from unmask.flow.measure.statistics import FlowStats, InputStats, few
from unmask.flow.measure.wrappers import unwrap

EARLY_STEPS = frozenset((0, 1, 2, 4, 8))
DEFAULT_EVERY = 100


class Scaler(Protocol):
    """What the probe asks of a torch.amp.GradScaler."""

    def get_scale(self) -> float:
        """Return what the loss is multiplied by."""
        ...


class GradientProbe:
    """Collects the gradient flow of a network while its own training loop runs.

        with GradientProbe(model) as probe:
            for x, y in loader:
                ...  # the loop as it was
        probe.history  # one FlowStats a probed step

    Steps 0, 1, 2, 4, 8 and every every-th are probed; between them nothing is attached to the
    network, and nothing is ever stored in it. A step begins with the first forward pass and ends
    when every optimiser that holds its parameters has stepped, so gradients may be accumulated
    over any number of passes. Pass the GradScaler, where there is one, so that the gradients of
    activations are divided by its scale; a step it skips is probed again. Passes without
    gradients, such as a validation, are left out. A compiled network runs uncompiled during
    probed steps. Raises UserError for networks that can't be measured.
    """

    def __init__(
        self, model: nn.Module, *, every: int = DEFAULT_EVERY, scaler: Scaler | None = None
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise UserError(
                "the probe's interval must be a whole number of steps", got=every, do="100 is usual"
            )
        self.model = unwrap(model)
        self.history: list[FlowStats] = []
        self.step = 0
        self._every, self._scaler = every, scaler
        self._layers = layers_of(self.model)
        self._by_module = {id(x.module): x for x in self._layers}
        self._modules = {id(m) for m in self.model.modules()}
        self._parameters = {id(p) for p in self.model.parameters()}
        self._steps: WeakKeyDictionary[Optimizer, int] = WeakKeyDictionary()
        self._units: dict[str, Units] = {}
        self._optimizer_hooks: list[Any] = []
        self._window: _Window | None = None

    @property
    def stats(self) -> FlowStats:
        """Return the latest probed step. Raises UserError when none was."""
        if not self.history:
            raise UserError(
                "the probe has seen no training step",
                do="run forward, backward and optimizer.step() inside the with block",
            )
        return self.history[-1]

    def __enter__(self) -> GradientProbe:
        if self._optimizer_hooks:
            raise UserError("the probe is already running", do="use a new GradientProbe")
        self._optimizer_hooks = [
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        self._open_if_due()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hook in self._optimizer_hooks:
            hook.remove()
        self._optimizer_hooks = []
        window, self._window = self._window, None
        if window is not None:
            window.close()
            if error is None and window.saw_backward():
                self.history.append(window.read(self.step, self._units))

    def _open_if_due(self) -> None:
        due = self.step % self._every == 0 or self.step in EARLY_STEPS
        if self._window is None and due:
            self._window = _Window(self)

    def _owns(self, optimizer: Optimizer) -> bool:
        if optimizer not in self._steps:
            groups = optimizer.param_groups
            if not any(id(p) in self._parameters for g in groups for p in g["params"]):
                return False
            self._steps[optimizer] = self.step
        return True

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._window is not None and self._owns(optimizer):
            self._window.before_step(optimizer, closure=_closure(args, kwargs) is not None)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not self._owns(optimizer):
            return
        window = self._window
        self._steps[optimizer] += 1
        if window is not None:
            window.after_step(optimizer)
            if not window.complete(list(self._steps)):
                return
            window.close()
            self.history.append(window.read(self.step, self._units))
            self._window = None
        self.step = max(self._steps.values())
        self._open_if_due()


class _Window:
    """One probed step: the hooks while it lasts, and what they saw."""

    def __init__(self, probe: GradientProbe) -> None:
        self._probe = probe
        self._forget()
        self._depth = 0
        self._mode = ActivationMode(self._see_slope)
        self._scale = self._current_scale()
        self._handles = [
            hooks.register_module_forward_pre_hook(self._before_forward),
            hooks.register_module_forward_hook(self._after_forward, always_call=True),
        ]
        self._stance: Any = None
        # A compiled network would run past the hooks; only loaded dynamo can have compiled one.
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
            self._stance = torch.compiler.set_stance("force_eager")

    def _forget(self) -> None:
        self._collected: dict[str, Collected] = {}
        self._current: Layer | None = None
        self._input: InputStats | None = None
        self._before: dict[Optimizer, list[tuple[Collected, list[Tensor]]]] = {}
        self._stepped: set[int] = set()
        self._optimizer: tuple[str, float] | None = None

    def close(self) -> None:
        """Detach from everything."""
        for handle in self._handles:
            handle.remove()
        if self._depth:
            self._depth = 0
            self._mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        if self._stance is not None:
            self._stance.__exit__(None, None, None)
            self._stance = None

    def saw_backward(self) -> bool:
        """Return whether a gradient came back through any layer."""
        return any(c.output_gradient.rows for c in self._collected.values())

    def complete(self, optimizers: list[Optimizer]) -> bool:
        """Return whether every optimiser known, or of every trainable weight, has stepped."""
        trainable = {id(p) for p in self._probe.model.parameters() if p.requires_grad}
        mine = {id(p) for o in self._before for g in o.param_groups for p in g["params"]}
        again = all(id(o) in self._stepped for o in optimizers) and self._probe.step > 0
        return trainable <= mine or again

    def _current_scale(self) -> float:
        return self._probe._scaler.get_scale() if self._probe._scaler is not None else 1.0

    def _of(self, layer: Layer) -> Collected:
        return self._collected.setdefault(layer.name, Collected(layer, len(self._collected)))

    def _before_forward(self, module: nn.Module, args: Any) -> None:
        if id(module) not in self._probe._modules:
            return
        if self._depth == 0:
            scale = self._current_scale()
            if scale < self._scale:
                # The scaler met an infinity, skipped the step and backed off: start over.
                self._forget()
            self._scale = scale
            self._mode.__enter__()  # type: ignore[no-untyped-call]
        self._depth += 1
        layer = self._probe._by_module.get(id(module))
        if layer is not None and layer.matrix and self._input is None and torch.is_grad_enabled():
            x = next(tensors_in(args), None)
            if x is not None:
                with torch._C.DisableTorchFunction():
                    self._input = input_stats(x)

    def _after_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        if id(module) not in self._probe._modules or self._depth == 0:
            return
        layer = self._probe._by_module.get(id(module))
        # A forward that raised has no output, and still ends here.
        if layer is not None and torch.is_grad_enabled():
            # Measuring must not run through the mode that looks for activations.
            with torch._C.DisableTorchFunction():
                self._see_output(layer, next(tensors_in(output), None))
        self._depth -= 1
        if self._depth == 0:
            self._mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def _see_output(self, layer: Layer, z: Tensor | None) -> None:
        collected = self._of(layer)
        if layer.matrix:
            self._current = layer
        if z is None:
            return
        collected.see_output(z.detach())
        if z.requires_grad:
            scale = self._scale
            gradients = collected.output_gradient
            z.register_hook(lambda g: gradients.add(few(g), scale))  # type: ignore[no-untyped-call]

    def _see_slope(self, name: str, slope: Tensor, supremum: float) -> None:
        if self._current is None:
            return
        self._of(self._current).see_slope(name, slope, supremum)
        units = self._probe._units.setdefault(self._current.name, Units())
        units.see(slope, supremum, self._current.unit_dim if slope.ndim > 2 else -1)

    def before_step(self, optimizer: Optimizer, closure: bool) -> None:
        """Measure the weights and gradients that an optimiser is about to use, and keep a copy.

        With a closure the gradients are still to come, and are measured after the step.
        """
        held = {id(p): g for g in optimizer.param_groups for p in g["params"]}
        copies = []
        for layer in self._probe._layers:
            group = next((held[id(w)] for w in layer.weights if id(w) in held), None)
            if group is None:
                continue
            collected = self._of(layer)
            if not closure and any(w.grad is not None for w in layer.weights):
                collected.see_weights(_amp_scale(optimizer))
            copies.append((collected, [w.detach().clone() for w in layer.weights]))
            self._optimizer = type(optimizer).__name__, float(group["lr"])
        self._before[optimizer] = copies

    def after_step(self, optimizer: Optimizer) -> None:
        """Measure what the optimiser's step changed."""
        self._stepped.add(id(optimizer))
        scale = _amp_scale(optimizer)
        for collected, before in self._before.get(optimizer, ()):
            collected.see_weights(scale)
            changes = [w.detach() - b for w, b in zip(collected.layer.weights, before, strict=True)]
            whole = _norm(before)
            collected.update_to_weight_ratio = _norm(changes) / whole if whole > 0 else None
            collected.expected_gain = -sum(
                float(torch.dot(w.grad.flatten(), change.flatten())) / scale
                for w, change in zip(collected.layer.weights, changes, strict=True)
                if w.grad is not None and not w.grad.is_sparse
            )
        self._before[optimizer] = []

    def read(self, step: int, units: dict[str, Units]) -> FlowStats:
        """Return what was seen as plain numbers, layers in order of execution."""
        for layer in self._probe._layers:
            self._of(layer).see_weights(1.0)
        layers = []
        for c in sorted(self._collected.values(), key=lambda c: (not c.output.rows, c.place)):
            u = units.get(c.layer.name)
            layers.append(c.read(u.dead() if u else None, u.images if u else 0))
        name, rate = self._optimizer or (None, None)
        return FlowStats(
            step,
            tuple(layers),
            input=self._input,
            optimizer=name,
            learning_rate=rate,
        )


def _closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    # The first argument of a step is the optimiser itself.
    return args[1] if len(args) > 1 else kwargs.get("closure")


def _norm(tensors: list[Tensor]) -> float:
    return math.hypot(*(float(torch.linalg.vector_norm(t)) for t in tensors))


def _amp_scale(optimizer: Optimizer) -> float:
    # A fused optimiser divides by the GradScaler's scale itself, during its step.
    scale = getattr(optimizer, "grad_scale", None)
    return float(scale) if scale is not None else 1.0
