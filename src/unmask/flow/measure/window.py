"""One probed step: the hooks during it, and their measurements."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer

from unmask.flow.measure.calls import (
    SAMPLE,
    Cut,
    LossCall,
    OutputStats,
    logits_in,
    loss_call,
    user_line,
    without_graph,
)
from unmask.flow.measure.graph import last_operation
from unmask.flow.measure.layers import (
    Collected,
    Layer,
    Units,
    input_stats,
    scattered,
    spread,
    tensors_in,
)
from unmask.flow.measure.magnitude import few
from unmask.flow.measure.parameters import ParameterLedger, amp_scale
from unmask.flow.measure.slopes import ActivationMode
from unmask.flow.measure.statistics import NEVER, Dropped, FlowStats, InputStats
from unmask.flow.measure.terms import Fed, calls_by_hand
from unmask.flow.measure.wrappers import transformed

if TYPE_CHECKING:
    from unmask.flow.measure.probe import GradientProbe

# Calls of losses in one step that are kept.
MOST_CALLS = 64
# A variance this far from the 1 that batch normalisation begins with was measured before.
KEPT = 0.5

F = TypeVar("F", bound=Callable[..., Any])


def _quiet(hook: F) -> F:
    """Keep a hook's errors from the training."""

    @functools.wraps(hook)
    def quiet(self: Window, *args: Any) -> None:
        try:
            hook(self, *args)
        except Exception as error:
            self.probe.failed(error)

    return quiet  # type: ignore[return-value]


class Window:
    """One probed step of a GradientProbe, from the first forward pass to the last optimiser."""

    def __init__(self, probe: GradientProbe) -> None:
        self.probe = probe
        self.ledger = ParameterLedger(probe.model)
        self._forget()
        self._depth = 0
        self._mode = ActivationMode(self._see_slope, self.see_cut, self._see_drawn)
        self.scale = self._current_scale()
        self._handles = [
            hooks.register_module_forward_pre_hook(self._before_forward),
            hooks.register_module_forward_hook(self._after_forward, always_call=True),
            *self.ledger.attach(),
        ]
        self._stance: Any = None
        # A compiled network would run past the hooks; only loaded dynamo can have compiled one.
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
            self._stance = torch.compiler.set_stance("force_eager")

    def _forget(self) -> None:
        self._collected: dict[str, Collected] = {}
        self._current: Layer | None = None
        self._input: InputStats | None = None
        self._first: Layer | None = None
        self._output: OutputStats | None = None
        self._result: Tensor | None = None
        self._before: dict[Optimizer, list[tuple[Collected, list[Tensor]]]] = {}
        self._stepped: set[int] = set()
        self._optimizer: tuple[str, float] | None = None
        self.calls: list[LossCall] = []
        self._fed = Fed()
        self.cuts: list[Cut] = []
        self.loss: float | None = None
        self.passes = 0
        # The fraction that clipping left of the gradients that the optimisers are about to use.
        self.clipped = 1.0
        self._values: int | None = None
        self._momentum: tuple[str, float] | None = None
        self._maximises = False
        self._sent_back = self._closure = self.unfinished = False
        self._dropped: Tensor | None = None
        self._drawn: Tensor | None = None
        self._dropout: Dropped | None = None
        # What the last layer read, and the first layer that read it.
        self._read: tuple[int, torch.Size, str] | None = None
        self._beside: dict[str, str] = {}

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

    @property
    def busy(self) -> bool:
        """Return whether the model is running."""
        return self._depth > 0

    def saw_backward(self) -> bool:
        """Return whether a gradient passed back through any layer."""
        return any(c.output_gradient.rows for c in self._collected.values())

    def stepped(self, optimizer: Optimizer) -> bool:
        """Return whether this optimiser has stepped since the window was opened."""
        return id(optimizer) in self._stepped

    def complete(self, optimizers: list[Optimizer], expected: set[int]) -> bool:
        """Return whether every known optimiser, or that of every trainable weight, has stepped."""
        if expected:
            return expected <= self._stepped
        trainable = {id(p) for p in self.probe.model.parameters() if p.requires_grad}
        mine = {id(p) for o in self._before for g in o.param_groups for p in g["params"]}
        again = all(id(o) in self._stepped for o in optimizers) and self.probe.step > 0
        return trainable <= mine or again

    def _current_scale(self) -> float:
        return self.probe.scaler.get_scale() if self.probe.scaler is not None else 1.0

    def _of(self, layer: Layer) -> Collected:
        return self._collected.setdefault(layer.name, Collected(layer, len(self._collected)))

    @_quiet
    def _before_forward(self, module: nn.Module, args: Any) -> None:
        # A pass that checkpointing computes again during a backward pass is already recorded.
        if _in_backward() or transformed():
            return
        if id(module) not in self.probe.modules:
            self._see_stranger(module)
            return
        if self._depth == 0:
            scale = self._current_scale()
            if scale < self.scale:
                # The scaler met an infinity, skipped the step and backed off: start over.
                self._forget()
            self.scale = scale
            self._graph = torch.is_grad_enabled()
            self.probe.sequences.call()
            self._mode.__enter__()  # type: ignore[no-untyped-call]
        self._depth += 1
        if torch.is_grad_enabled():
            self.probe.sequences.before(module, self.probe.modules[id(module)], args)
        if isinstance(module, _BatchNorm) and module.training:
            x = next(tensors_in(args), None)
            if x is not None and x.ndim > 1:
                values = x.numel() // x.shape[1]
                self._values = min(values, self._values or values)
                self._see_momentum(module)
        layer = self.probe.by_module.get(id(module))
        if layer is None:
            return
        drawn = self._drawn.data_ptr() if self._drawn is not None else None
        if torch.is_grad_enabled() and any(x.data_ptr() == drawn for x in tensors_in(args)):
            self.cuts.append(Cut(SAMPLE, layer.name, user_line()))
        if self._graph and not torch.is_grad_enabled() and self._trains(layer):
            self.cuts.append(Cut(without_graph(), layer.name, user_line()))
        if layer.matrix and torch.is_grad_enabled():
            x = next(tensors_in(args), None)
            if x is not None:
                self._see_reader(layer, x)
                self.ledger.see_call(layer.name, x)
            if x is not None and self._reads(layer, x):
                self._first = layer
                with torch._C.DisableTorchFunction():
                    self._input = input_stats(x)
            elif x is not None and layer is self._first and (x.ndim < 2 or len(x) == 1):
                # An episode comes state by state.
                with torch._C.DisableTorchFunction():
                    self._input = self._input and self._input.joined(input_stats(x))

    def _see_momentum(self, module: _BatchNorm) -> None:
        m, mean, var = module.momentum, module.running_mean, module.running_var
        if m is None or mean is None or var is None:
            return
        # Statistics that were measured before may be kept on purpose.
        if m == 0 and (bool(mean.any()) or bool((var != 1).any())):
            return
        if 0 < m < NEVER and float((var - 1).abs().median()) > KEPT:
            return
        worst = self._momentum[1] if self._momentum is not None else None
        if worst is None or (worst > 0 and (m < NEVER or m > worst)):
            self._momentum = self.probe.modules.get(id(module), ""), float(m)

    def _see_stranger(self, module: nn.Module) -> None:
        """Record a layer that runs inside the model and isn't part of it."""
        if not self._depth or not torch.is_grad_enabled():
            return
        own = [p for p in module.parameters(recurse=False) if p.requires_grad]
        if own:
            name = f"{type(module).__name__} ({user_line()})"
            self.ledger.strangers.setdefault(name, []).extend(id(p) for p in own)

    def _see_reader(self, layer: Layer, x: Tensor) -> None:
        read = x.data_ptr(), x.shape
        if self._read is None or self._read[:2] != read:
            self._read = *read, layer.name
        elif self._read[2] != layer.name:
            self._beside[layer.name] = self._read[2]

    def _reads(self, layer: Layer, x: Tensor) -> bool:
        """Return whether a layer is the first, or the one before saw a constant, as a slice."""
        before = self._input
        if before is None or before.variation != 0:
            return before is None
        return layer is self._first or (before.std == 0 and not x.requires_grad)

    @_quiet
    def _after_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        if id(module) not in self.probe.modules or self._depth == 0:
            return
        if _in_backward() or transformed():
            return
        layer = self.probe.by_module.get(id(module))
        self._depth -= 1
        if self._depth == 0:
            self._mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        # A forward that raised has no output, and still ends here. Measuring must not run through
        # the mode that looks for activations.
        if torch.is_grad_enabled() and output is not None:
            with torch._C.DisableTorchFunction():
                self.probe.sequences.after(module, output)
                if layer is not None:
                    self._see_output(layer, next(tensors_in(output), None))
                if isinstance(module, _DropoutNd) and module.training and module.p > 0:
                    self._see_dropout(module, next(tensors_in(output), None))
                if self._depth == 0:
                    self._see_result(logits_in(output))

    def _see_output(self, layer: Layer, z: Tensor | None) -> None:
        collected = self._of(layer)
        self.ledger.called.add(layer.name)
        if layer.matrix:
            self._current = layer
        if z is None:
            return
        collected.see_output(z.detach())
        self.ledger.float16 |= z.dtype == torch.float16
        if z.requires_grad:
            gradients = collected.output_gradient
            # The scale may become known between the passes.
            z.register_hook(lambda g: gradients.add(few(g), self.scale))  # type: ignore[no-untyped-call]

    def _see_dropout(self, module: _DropoutNd, z: Tensor | None) -> None:
        self._dropped = z
        if z is None or z.ndim < 2:
            return
        # A channel's places are all kept, or all dropped.
        units = z[0].numel() if isinstance(module, nn.Dropout) else z.shape[1]
        kept = units * (1 - module.p)
        if self._dropout is None or kept < self._dropout.kept:
            self._dropout = Dropped(self.probe.modules.get(id(module), ""), module.p, kept)

    def _see_result(self, z: Any) -> None:
        if not (isinstance(z, Tensor) and z.is_floating_point() and z.numel()):
            return
        last = last_operation(z)
        self._result = z
        rows = scattered(z.detach())
        bias = self._bias(rows) if last.name == "scores" else None
        if bias is not None:
            # A bias may be large on purpose, as where detectors expect few objects.
            rows = rows - bias
        # Scores of what is masked are minus infinity.
        single = self._current is not None and self._current.single(z)
        several = z.ndim > 0 and len(z) > 1 and not single and bool(rows.isfinite().all())
        self._output = OutputStats(
            size=z[0].numel() if z.ndim > 1 else 1,
            variation=spread(rows, 0) if several else None,
            operation="dropout" if z is self._dropped else last.name,
            dim=last.dim,
        )

    def _bias(self, z: Tensor) -> Tensor | None:
        """Return the last layer's bias in the shape of its outputs, or None."""
        bias = getattr(self._current.module, "bias", None) if self._current is not None else None
        if not isinstance(bias, Tensor) or z.ndim < 2 or bias.shape != z.shape[1:2]:
            return None
        return bias.detach().reshape(-1, *[1] * (z.ndim - 2))

    def see_loss(self, name: str, output: Any, target: Any, options: Any, result: Any) -> None:
        """Record a loss's inputs."""
        if len(self.calls) >= MOST_CALLS:
            return
        seen = loss_call(name, output, target, options, result, self.probe.sequences.words)
        own = self._result is None or _memory(output) == _memory(self._result)
        dropped = own and self._output is not None and self._output.operation == "dropout"
        if not own or dropped:
            seen = replace(seen, own=own, operation="dropout" if dropped else seen.operation)
        self._fed.add(len(self.calls), output, result)
        self.calls.append(seen)

    def see_backward(self, loss: Tensor, value: float) -> None:
        """Record the value of a loss, and what of it was written by hand."""
        self.loss = (self.loss or 0.0) + value / self.scale
        self.passes += 1
        self._sent_back = True
        self.ledger.sent_back = self.ledger.sent_back or user_line()
        self._fed.sent_back(loss)
        by_hand = calls_by_hand(loss, self._result, self.probe.sequences.words, self.scale)
        self.calls += by_hand[: MOST_CALLS - len(self.calls)]

    def _trains(self, layer: Layer) -> bool:
        return any(w.requires_grad for w in layer.weights)

    def _see_slope(self, name: str, slope: Tensor, supremum: float) -> None:
        if self._current is None:
            return
        self._of(self._current).see_slope(name, slope, supremum)
        units = self.probe.units.setdefault(self._current.name, Units())
        units.see(slope, supremum, self._current.unit_dim if slope.ndim > 2 else -1)

    def _see_drawn(self, z: Tensor) -> None:
        self._drawn = z

    def see_cut(self, operation: str) -> None:
        """Record a place where the graph is cut."""
        layer = self._current.name if self._current else None
        self.cuts.append(Cut(operation, layer, user_line()))

    def before_step(self, optimizer: Optimizer, closure: bool) -> None:
        """Measure the weights and gradients that an optimiser is about to use, and keep a copy.

        Args:
            optimizer: that is about to step.
            closure: whether the step computes the gradients, which are then measured after it.
        """
        self._maximises |= any(g.get("maximize", False) for g in optimizer.param_groups)
        held = {id(p): g for g in optimizer.param_groups for p in g["params"]}
        copies = []
        self._closure = closure
        if not closure:
            self.ledger.before_step(optimizer, self.clipped if self.probe.scaler is None else 0.0)
        for layer in self.probe.layers:
            group = next((held[id(w)] for w in layer.weights if id(w) in held), None)
            if group is None:
                continue
            collected = self._of(layer)
            if not closure and any(w.grad is not None for w in layer.weights):
                left = (self.clipped or 1.0) * (self.ledger.scaled or 1.0)
                collected.see_weights(amp_scale(optimizer) * left)
            copies.append((collected, [w.detach().clone() for w in layer.weights]))
            self._optimizer = type(optimizer).__name__, float(group["lr"])
        self._before[optimizer] = copies

    def after_step(self, optimizer: Optimizer) -> None:
        """Measure what the optimiser's step changed."""
        self._stepped.add(id(optimizer))
        if self._closure:
            # Its gradients were computed during the step.
            self.ledger.before_step(optimizer)
        scale = amp_scale(optimizer)
        for collected, before in self._before.get(optimizer, ()):
            collected.see_weights(scale)
            weights = collected.layer.weights
            if any(w.shape != b.shape for w, b in zip(weights, before, strict=True)):
                continue
            changes = [w.detach() - b for w, b in zip(weights, before, strict=True)]
            whole = _norm(before)
            trained = whole > 0 and self._trains(collected.layer)
            collected.update_to_weight_ratio = _norm(changes) / whole if trained else None
            collected.expected_gain = -sum(
                float(torch.dot(w.grad.flatten(), change.flatten())) / scale
                for w, change in zip(weights, changes, strict=True)
                if w.grad is not None and not w.grad.is_sparse
            )
            self.ledger.after_step(collected.layer, changes)
        self._before[optimizer] = []

    def read(self, step: int, units: dict[str, Units]) -> FlowStats:
        """Return the measurements as plain numbers, layers in order of execution."""
        for layer in self.probe.layers:
            self._of(layer).see_weights(1.0)
        layers = []
        for c in sorted(self._collected.values(), key=lambda c: (not c.output.rows, c.place)):
            u = units.get(c.layer.name)
            c.beside = self._beside.get(c.layer.name)
            layers.append(c.read(u.dead() if u else None, u.images if u else 0))
        name, rate = self._optimizer or (None, None)
        return FlowStats(
            step,
            tuple(layers),
            input=self._input,
            loss=self.loss,
            passes=self.passes,
            optimizer=name,
            learning_rate=rate,
            output=self._output,
            calls=self._fed.marked(self.calls),
            cuts=tuple(self.cuts),
            parameters=self.ledger.read(
                self.probe.optimizers(), self._sent_back or self.saw_backward()
            ),
            values_a_channel=self._values,
            momentum=self._momentum,
            maximises=self._maximises,
            dropout=self._dropout,
        )


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


def _memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _norm(tensors: list[Tensor]) -> float:
    return math.hypot(*(float(torch.linalg.vector_norm(t)) for t in tensors))
