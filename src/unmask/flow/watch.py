"""watch: the verdicts on any training that runs in this process, without a change of its code."""

from __future__ import annotations

import math
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from unmask.errors import UserError
from unmask.flow.judge.crashes import advice
from unmask.flow.judge.kinds import CAUSES, CONSEQUENCES, rank
from unmask.flow.judge.loop import LoopFacts, loop
from unmask.flow.judge.verdicts import verdicts
from unmask.flow.measure.calls import LossTap, loss_call, user_line
from unmask.flow.measure.origin import origin
from unmask.flow.measure.probe import DEFAULT_EVERY, GradientProbe
from unmask.flow.measure.statistics import FlowStats, Origin
from unmask.flow.measure.taps import Tapped
from unmask.flow.measure.wrappers import unwrap
from unmask.runtime import environment_stamp
from unmask.verdict import SEVERITIES, Severity, Verdict, at_least

# A signal is judged for sure once this many probed steps agree; a fault of the step at once.
SURE = 3
_OF_NUMBERS = ("not a number", "bad data")
# Of a long training so many probed steps are kept, the first and last of them for certain.
KEPT, FIRST = 64, 10
# Steps between the first looks at the loop as a whole.
LOOK = 20


class Stopped(BaseException):
    """Ends a training at its first error, where asked; no `except Exception` holds it."""


@dataclass(frozen=True)
class Watched:
    """What was seen of one model: its name, the probed steps, and how many steps it made."""

    model: str
    parameters: int
    history: tuple[FlowStats, ...]
    steps: int
    problem: str | None = None


@dataclass(frozen=True)
class WatchReport:
    """What a watched training came to: its models, the verdicts, worst first, and a stamp."""

    models: tuple[Watched, ...]
    verdicts: tuple[Verdict, ...]
    seconds: float
    stamp: dict[str, Any] = field(default_factory=dict)

    def at_least(self, severity: Severity) -> tuple[Verdict, ...]:
        """Return the verdicts of that severity or a worse one."""
        return tuple(at_least(self.verdicts, severity))

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self)


class _Model:
    """A model that trains: its probe, its counts, and what is needed to run its last pass again."""

    def __init__(self, module: nn.Module, probe: GradientProbe) -> None:
        self.module = module
        self.probe = probe
        self.facts = LoopFacts()
        self.arguments: Any = None
        self.call: tuple[str, Any, Any, dict[str, Any]] | None = None
        self.judged = 0
        self.next_look = LOOK
        self.validations = 0
        self.ungraded, self.cleared = True, False
        self.origins: dict[int, Origin] = {}
        changing = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
        self.modal = any(isinstance(m, changing) for m in module.modules())
        self.facts.drops = [
            m.p for m in module.modules() if isinstance(m, nn.modules.dropout._DropoutNd)
        ]

    @property
    def history(self) -> list[FlowStats]:
        return [replace(s, origin=self.origins.get(s.step)) for s in self.probe.history]


class Watch:
    """Watches every training of this process while it is entered, and judges it as it goes on.

        with unmask.watch() as seen:
            train()
        seen.report.verdicts

    Models are found when they are called with gradients, optimisers when they step. Nothing of the
    training is changed, not a bit of its weights; what goes wrong while watching never reaches it.

    Args:
        every: how many steps lie between those probed later on.
        tell: is given each verdict as soon as it is sure.
        stop_on: raises Stopped at the first sure verdict of that severity or a worse one.
    """

    def __init__(
        self,
        *,
        every: int = DEFAULT_EVERY,
        tell: Callable[[Verdict], None] | None = None,
        stop_on: Severity | None = None,
    ) -> None:
        if stop_on is not None and stop_on not in SEVERITIES:
            raise UserError("unknown severity", got=repr(stop_on), do=", ".join(SEVERITIES))
        self._every, self._tell, self._stop_on = every, tell, stop_on
        self._models: dict[int, _Model] = {}
        self._unfit: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._parts: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._optimizers: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._told: dict[tuple[str, str | None, str | None], Verdict] = {}
        self._last: _Model | None = None
        self._handles: list[Any] = []
        self._depth = 0
        self._crash: Verdict | None = None
        self._failed_line: str | None = None
        self._start = time.perf_counter()
        self._loss = LossTap(self._loss_seen, self._loss_failed)
        self._taps = Tapped(
            backward=self._backward,
            clip=self._clipped,
            zero=self._zeroed,
            schedule=self._scheduled,
            made=self._optimizers.add,
        )

    def __enter__(self) -> Watch:
        if self._handles:
            raise UserError("the training is being watched already", do="use a new watch()")
        self._start = time.perf_counter()
        self._loss.__enter__()
        self._taps.__enter__()
        self._handles = [
            hooks.register_module_forward_pre_hook(self._before_forward),
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._loss.__exit__()
        self._taps.__exit__()
        for model in self._models.values():
            model.probe.__exit__(kind, error, trace)
        if error is not None and isinstance(error, Exception):
            self._crash = self._explained(error)

    @property
    def verdicts(self) -> list[Verdict]:
        """Return what is wrong so far, worst first."""
        return list(self.report.verdicts)

    @property
    def report(self) -> WatchReport:
        """Return what was seen so far, or, once the training has ended, of all of it."""
        ended = not self._handles
        found: dict[tuple[str, str | None, str | None], Verdict] = dict(self._told)
        for model in self._models.values():
            for v in self._judged(model, ended):
                if _key(v) in found or not self._follows(v):
                    found[_key(v)] = v
        if self._crash is not None:
            found[_key(self._crash)] = self._crash
        order = sorted(found.values(), key=lambda v: (-SEVERITIES.index(v.severity), rank(v.kind)))
        return WatchReport(
            tuple(
                Watched(
                    type(m.module).__name__,
                    sum(p.numel() for p in m.module.parameters()),
                    tuple(m.history),
                    m.probe.step,
                    m.probe.problem,
                )
                for m in self._models.values()
            ),
            tuple(order),
            time.perf_counter() - self._start,
            environment_stamp(),
        )

    def _before_forward(self, module: nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling():
            # What is compiled is found by its wrapper, and runs eagerly while it is probed.
            return
        try:
            model = self._models.get(id(module))
            if model is not None:
                self._pass(model, args)
            elif module not in self._parts and module not in self._unfit:
                self._found(module, args)
        except Exception as error:
            self._quiet(error)

    def _found(self, module: nn.Module, args: Any) -> None:
        if not torch.is_grad_enabled() or torch._C._current_graph_task_id() != -1:
            return
        if not any(p.requires_grad for p in module.parameters()):
            self._unfit.add(module)
            return
        try:
            network = unwrap(module)
            probe = GradientProbe(network, every=self._every)
        except UserError:
            self._unfit.add(module)
            return
        inside = set(network.modules())
        if any(m.probe.window is not None and m.probe.window.busy for m in self._models.values()):
            # Called by another model that doesn't hold it: the verdicts on that one tell.
            self._parts.update(inside)
            return
        # What was taken for a model of its own may turn out to be part of one.
        for part in inside & {m.module for m in self._models.values()}:
            self._models.pop(id(part)).probe.__exit__(RuntimeError, RuntimeError(), None)
        model = _Model(network, probe)
        probe.optimizers = lambda: list(self._optimizers)
        probe.__enter__()
        # After the probe's own hook, so that its step is judged as soon as it is over.
        self._handles[-1].remove()
        self._handles[-1] = register_optimizer_step_post_hook(self._after_step)
        self._models[id(network)] = model
        self._parts.update(inside - {network})
        if module is not network:
            self._parts.add(module)
            return
        # This pass has begun before the probe's own hooks were there.
        if probe.window is not None:
            probe.window._before_forward(module, args)
        self._pass(model, args)

    def _pass(self, model: _Model, args: Any) -> None:
        if torch._C._current_graph_task_id() != -1:
            return
        if torch.is_grad_enabled():
            model.arguments = args
            model.facts.forwards += 1
            self._last = model
            model.validations = 0
            # No backward pass has followed this one yet.
            model.ungraded = True
            if model.probe.window is not None and model.modal:
                self._look_at_norms(model, args)
        elif model.modal and model.module.training and model.facts.steps:
            model.validations += 1
            facts = model.facts
            if model.validations > facts.training_validations:
                facts.training_validations = model.validations
                facts.lines["validation"] = user_line() or ""

    def _look_at_norms(self, model: _Model, args: Any) -> None:
        norms = [
            m for m in model.module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
        ]
        x = next((a for a in args if isinstance(a, Tensor)), None)
        if norms and x is not None and x.ndim == 2 and model.module.training:
            model.facts.values_a_channel = len(x)
        tracked = [int(m.num_batches_tracked) for m in norms if m.num_batches_tracked is not None]
        model.facts.fresh_norms = bool(tracked) and max(tracked) == 0

    def _loss_seen(self, name: str, output: Any, target: Any, options: Any, result: Any) -> None:
        model = self._last
        if model is None or not result.requires_grad:
            return
        model.call = (name, output, target, options)
        if model.probe.window is not None and len(model.probe.window.calls) < 64:
            model.probe.window.calls.append(loss_call(name, output, target, options, result))

    def _loss_failed(self, name: str, output: Any, target: Any, error: BaseException) -> None:
        self._failed_line = user_line()

    def _backward(self, tensors: Any) -> None:
        model = self._last
        if model is None:
            return
        facts = model.facts
        facts.backwards += 1
        model.ungraded = model.cleared = False
        if "backward" not in facts.lines and (line := user_line()):
            facts.lines["backward"] = line
        if model.modal and not model.module.training:
            facts.evaluating_backwards += 1
        loss = tensors[0] if isinstance(tensors, (list, tuple)) else tensors
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            return
        window = model.probe.window
        if window is not None or loss.device.type == "cpu" or facts.backwards % LOOK == 0:
            value = float(loss.detach())
            if window is not None:
                window.loss = (window.loss or 0.0) + value / window.scale
            if not math.isfinite(value) and not model.origins:
                self._not_finite(model)

    def _not_finite(self, model: _Model) -> None:
        """Run the last pass again on a copy, and look where NaN begins."""
        if not model.arguments:
            return
        import copy

        name, _, target, options = model.call or ("", None, None, {})
        twin = copy.deepcopy(model.module)
        arguments = model.arguments

        def again() -> Tensor:
            from unmask.flow.measure.calls import logits_in

            with torch.random.fork_rng(devices=[]):
                output = logits_in(twin(*arguments))
                loss: Tensor
                # With a loss of the user's own, the sum of the outputs stands for it.
                if not name:
                    loss = output.float().sum()
                else:
                    loss = getattr(nn.functional, name)(output, target, **options)
                return loss

        found = origin(twin, arguments, again)
        if found is None:
            return
        step = model.probe.step
        model.origins[step] = found
        stats = FlowStats(step, (), loss=math.nan, origin=found)
        self._say(
            [v for v in verdicts([*model.history, stats]) if v.kind in ("not a number", "bad data")]
        )

    def _clipped(self, norm: float, limit: float) -> None:
        model = self._last
        if model is not None and norm > 0 and math.isfinite(norm):
            model.facts.clips.append(min(1.0, limit / norm))
            if "clip" not in model.facts.lines and (line := user_line()):
                model.facts.lines["clip"] = line

    def _zeroed(self) -> None:
        for model in self._models.values():
            model.cleared = True
            if "zero_grad" not in model.facts.lines and (line := user_line()):
                model.facts.lines["zero_grad"] = line

    def _scheduled(self) -> None:
        for model in self._models.values():
            model.facts.schedules += 1
            if "schedule" not in model.facts.lines and (line := user_line()):
                model.facts.lines["schedule"] = line

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        try:
            self._optimizers.add(optimizer)
            for model in self._owned(optimizer):
                facts = model.facts
                if "step" not in facts.lines and (line := user_line()):
                    facts.lines["step"] = line
                facts.normalises_steps |= "ada" in type(optimizer).__name__.lower()
                facts.rates.append(max(float(g["lr"]) for g in optimizer.param_groups))
                self._look_at_gradients(model, optimizer)
        except Exception as error:
            self._quiet(error)

    def _look_at_gradients(self, model: _Model, optimizer: Optimizer) -> None:
        gradients = [p.grad for g in optimizer.param_groups for p in g["params"]]
        there = [g for g in gradients if g is not None]
        facts = model.facts
        cleared = model.cleared and not any(bool(g.any()) for g in there[:8])
        if facts.steps < 2 * LOOK and (not there or cleared):
            facts.empty += 1
            facts.cleared += not model.ungraded
        # What is no number in a backward pass comes through to the first layers.
        few = sorted((g for g in there[:2] if g.device.type == "cpu"), key=Tensor.numel)[:1]
        if not model.origins and any(not math.isfinite(float(g.sum())) for g in few):
            self._not_finite(model)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        try:
            for model in self._owned(optimizer):
                model.facts.steps += 1
                model.ungraded = True
                steps, history = model.facts.steps, model.probe.history
                if len(history) > model.judged or steps >= model.next_look:
                    # Ever more rarely, for a look costs as much as there is to look at.
                    model.next_look = max(steps + LOOK, int(1.25 * steps))
                    _thin(history)
                    model.judged = len(history)
                    self._say(self._sure(model))
        except Exception as error:
            self._quiet(error)

    def _owned(self, optimizer: Optimizer) -> list[_Model]:
        return [m for m in self._models.values() if m.probe.owns(optimizer)]

    def _judged(self, model: _Model, ended: bool) -> list[Verdict]:
        history = model.history
        found = verdicts(history) if history else []
        return [*found, *loop(model.facts, ended)]

    def _sure(self, model: _Model) -> list[Verdict]:
        certain = len(model.probe.history) >= SURE
        return [
            v
            for v in self._judged(model, ended=False)
            if certain or v.kind in CAUSES or v.kind == "diverged"
        ]

    def _follows(self, v: Verdict) -> bool:
        """Return whether a signal is what an error that was told before has made of the network."""
        first = next((t for t in self._told.values() if t.severity == "error"), None)
        later = first is not None and (v.step or 0) > (first.step or 0)
        return later and v.kind in (*CONSEQUENCES, "constant outputs", "inputs badly scaled")

    def _say(self, found: list[Verdict]) -> None:
        stop = False
        for v in found:
            if v.severity == "note" or _key(v) in self._told or self._follows(v):
                continue
            self._told[_key(v)] = v
            if self._tell is not None:
                self._tell(v)
            stop |= self._stop_on is not None and bool(at_least([v], self._stop_on))
        if stop:
            raise Stopped

    def _explained(self, error: Exception) -> Verdict | None:
        trace, line = error.__traceback__, None
        frames = []
        while trace is not None:
            frames.append((trace.tb_frame, trace.tb_lineno))
            trace = trace.tb_next
        for frame, number in reversed(frames):
            line = user_line_of(frame, number)
            if line is not None:
                break
        text = " ".join(str(error).split())
        do = advice(error)
        if not do:
            return None
        return Verdict(
            "crashed",
            "error",
            f"{type(error).__name__}: {text[:200]}",
            do,
            location=line,
            step=max((m.probe.step for m in self._models.values()), default=None),
        )

    def _quiet(self, error: Exception) -> None:
        for model in self._models.values():
            model.probe.problem = model.probe.problem or f"{type(error).__name__}: {error}"


def _thin(history: list[FlowStats]) -> None:
    """Drop every second of the older steps once there are many; the first and last stay."""
    if len(history) > KEPT:
        history[FIRST:-FIRST] = history[FIRST:-FIRST:2]


def watch(
    *,
    every: int = DEFAULT_EVERY,
    tell: Callable[[Verdict], None] | None = None,
    stop_on: Severity | None = None,
) -> Watch:
    """Return a context in which every training of this process is watched; see Watch."""
    return Watch(every=every, tell=tell or _print, stop_on=stop_on)


def _print(verdict: Verdict) -> None:
    sys.stderr.write(f"unmask: {told(verdict)}\n")


def told(verdict: Verdict) -> str:
    """Return a verdict as one line: how bad, what, where, when, why, and what to do."""
    cause = f" Cause: {verdict.cause}." if verdict.cause else ""
    fix = f" Fix: {verdict.fix}." if verdict.fix else ""
    where = verdict.location or verdict.subject
    step = f", step {verdict.step + 1}" if verdict.step is not None else ""
    place = f" ({where or 'the whole network'}{step})"
    return f"{verdict.severity}: {verdict.kind}{place}: {verdict.message}.{cause}{fix}"


def user_line_of(frame: Any, number: int) -> str | None:
    """Return "file:line" of a frame of a traceback where it is the user's, or None."""
    from unmask.flow.measure.calls import is_users, relative

    name = frame.f_code.co_filename
    return f"{relative(name)}:{number}" if is_users(name) else None


def _key(v: Verdict) -> tuple[str, str | None, str | None]:
    return v.kind, v.subject, v.location
