"""watch: verdicts on any training that runs in this process, without a change of its code."""

from __future__ import annotations

import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from unmask.errors import UserError
from unmask.flow.judge.crashes import explained
from unmask.flow.judge.kinds import CONSEQUENCES
from unmask.flow.judge.loop import IDLE, PATIENCE, frozen, not_loaded, wasted
from unmask.flow.judge.verdicts import ordered, told
from unmask.flow.measure.calls import LossTap, user_line
from unmask.flow.measure.forwards import Forwards
from unmask.flow.measure.inputs import Batch, batch_of
from unmask.flow.measure.parameters import held_by
from unmask.flow.measure.probe import DEFAULT_EVERY, GradientProbe, closure_of
from unmask.flow.measure.taps import Tapped
from unmask.flow.measure.terms import Terms
from unmask.flow.measure.wrappers import is_part, transformed, unwrap
from unmask.flow.training import LOOK, Training
from unmask.flow.watched import Key, WatchReport, key, record
from unmask.runtime import environment_stamp
from unmask.verdict import SEVERITIES, Severity, Verdict, at_least


class Stopped(BaseException):
    """Ends a training at its first error, on request; no `except Exception` catches it."""


class Watch:
    """Watches every training of this process while it is entered, and judges it as it goes on.

        with unmask.watch() as seen:
            train()
        seen.report.verdicts

    Models are found when they are called with gradients, optimisers when they step. Nothing of the
    training is changed, not a bit of its weights; errors of the watch never reach it.

    Args:
        every: the interval of later probed steps, see GradientProbe.
        tell: receives each verdict as soon as it is certain.
        stop_on: raises Stopped at the first certain verdict of that severity or a worse one.
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
        self._every, self._tell, self._stop_on = every, tell or (lambda _: None), stop_on
        self._trainings: dict[int, Training] = {}
        self._unfit: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._parts: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        # Those whose models have got other parameters since.
        self._past: list[Training] = []
        self._optimizers: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._stepped: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._scaler: Any = None
        # Whether the gradients are still to be divided by the GradScaler's scale.
        self._scaled_up = False
        # On the program rather than on a model of it.
        self._noted: dict[Key, Verdict] = {}
        self._idle_steps, self._terms, self._forwards = 0, Terms(), Forwards()
        self._last: Training | None = None
        self._batch: Batch = None
        # Passes of our own on a copy are no training of the user's.
        self._apart = False
        self._handles: list[Any] = []
        self._start = time.perf_counter()
        self._loss = LossTap(self._loss_seen)
        self._taps = Tapped(
            backward=self._backward,
            finished=self._finished,
            clip=self._clipped,
            zero=self._zeroed,
            schedule=self._scheduled,
            made=self._optimizers.add,
            scaler=self._scaled,
            shuffled=self._shuffled,
            loaded=self._loaded,
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
        self._forwards.undo()
        for training in (*self._past, *self._trainings.values()):
            training.probe.__exit__(kind, error, trace)
        for training in self._trainings.values():
            training.facts.finished = kind is None
            if training.facts.steps and error is None:
                self._experiment(training)
        if error is not None and isinstance(error, Exception):
            last = max((t.probe.now for t in self._trainings.values()), default=None)
            if (crash := explained(error, last)) is not None:
                self._noted[key(crash)] = crash

    @property
    def verdicts(self) -> list[Verdict]:
        """Return what is wrong so far, worst first."""
        return list(self.report.verdicts)

    @property
    def report(self) -> WatchReport:
        """Return the report so far, or, once the training has ended, on all of it."""
        ended = not self._handles
        found: dict[Key, Verdict] = {}
        trainings = [*self._past, *self._trainings.values()]
        for training in trainings:
            mine = {key(v): v for v in training.told}
            for v in self._judged(training, ended or training in self._past):
                if key(v) in mine or not self._follows(v):
                    mine[key(v)] = v
            found |= {key(v): v for v in ordered(mine.values())}
        return WatchReport(
            tuple(record(t) for t in trainings),
            tuple(ordered((found | self._noted).values())),
            time.perf_counter() - self._start,
            environment_stamp(),
        )

    def _judged(self, training: Training, ended: bool) -> list[Verdict]:
        try:
            return training.judged(ended)
        except Exception as error:
            self._quiet(error)
            return []

    @contextmanager
    def _aside(self) -> Iterator[None]:
        before, self._apart = self._apart, True
        shown, warnings.showwarning = warnings.showwarning, lambda *_, **__: None
        try:
            yield
        finally:
            self._apart, warnings.showwarning = before, shown

    def _before_forward(self, module: nn.Module, args: Any) -> None:
        self._forwards.entered(module)
        if self._apart or transformed():
            # A compiled model is found by its wrapper; inside vmap a model stands for many.
            return
        try:
            training = self._trainings.get(id(module))
            if training is not None:
                self._pass(training, args)
            elif module not in self._parts:
                for other in self._trainings.values():
                    other.copies.see(module, other.facts.steps)
                if module not in self._unfit:
                    self._found(module, args)
        except Exception as error:
            self._quiet(error)

    def _found(self, module: nn.Module, args: Any) -> None:
        if not torch.is_grad_enabled() or torch._C._current_graph_task_id() != -1:
            return
        if not any(p.requires_grad for p in module.parameters()):
            self._unfit.add(module)
            return
        if is_part(module, [t.module for t in self._trainings.values()]):
            self._parts.add(module)
            return
        if self._forwards.inside(module):
            return
        try:
            network = unwrap(module)
            probe = GradientProbe(network, every=self._every, scaler=self._scaler)
        except UserError:
            self._unfit.add(module)
            return
        # Not in the midst of a step, whose hooks these are.
        for old in self._past:
            old.probe.__exit__(None, None, None)
        inside, trainings = set(network.modules()), list(self._trainings.values())
        if any(t.probe.window is not None and t.probe.window.busy for t in trainings):
            # Called by another model that doesn't hold it: that model's verdicts cover it.
            self._parts.update(inside)
            return
        for part in inside & {t.module for t in self._trainings.values()}:
            self._trainings.pop(id(part)).probe.__exit__(RuntimeError, RuntimeError(), None)
        training = Training(network, probe)
        probe.optimizers = lambda: list(self._optimizers)
        probe.__enter__()
        # After the probe's own hook, so that its step is judged as soon as it is over.
        self._handles[-1].remove()
        self._handles[-1] = register_optimizer_step_post_hook(self._after_step)
        self._trainings[id(network)] = training
        self._parts.update(inside - {network})
        if module is not network:
            self._parts.add(module)
            return
        if probe.window is not None:
            probe.window._before_forward(module, args)
        self._pass(training, args)

    def _pass(self, training: Training, args: Any) -> None:
        if torch._C._current_graph_task_id() == -1:
            batch = batch_of(args)
            training.passed(args)
            # The forward pass of a distillation's teacher is no validation.
            if not torch.is_grad_enabled():
                if self._last is not training:
                    training.inputs.withdraw(self._batch)
                return
            self._last, self._batch = training, batch
            for other in self._trainings.values():
                if other is not training:
                    other.inputs.withdraw(batch)

    def _loss_seen(self, name: str, output: Any, target: Any, options: Any, result: Any) -> None:
        if self._last is not None and not self._apart:
            self._last.fed(name, output, target, options, result)

    def _backward(self, tensors: Any) -> None:
        if self._last is None or self._apart:
            return
        loss = tensors[0] if isinstance(tensors, (list, tuple)) else tensors
        self._terms.sent_back(loss, user_line())
        # All that ran since their last backward pass may have contributed to this loss.
        together = {*(t for t in self._trainings.values() if t.pending), self._last}
        for training in together:
            training.backward(loss, len(together) > 1)
        if not self._last.finite(loss):
            self._find_origin(self._last)

    def _finished(self) -> None:
        for training in self._trainings.values():
            if training.probe.window is not None:
                training.probe.window.unfinished = False

    def _find_origin(self, training: Training) -> None:
        with self._aside():
            found = training.find_origin()
        self._say(training, found)

    def _experiment(self, training: Training) -> None:
        try:
            with self._aside():
                training.experiment()
        except Exception as error:
            self._quiet(error)

    def _clipped(self, left: float, clipped: list[torch.Tensor]) -> None:
        for training in self._trainings.values():
            if any(id(p) in training.probe.parameters for p in clipped):
                training.clipped(left, self._scaled_up)

    def _zeroed(self, owner: Any) -> None:
        held = list(held_by(owner) if isinstance(owner, Optimizer) else owner.parameters())
        for training in self._trainings.values():
            training.cleared = True
            if any(id(p) in training.probe.parameters for p in held):
                training.zeroed()
            training.note_line("zero_grad")

    def _scaled(self, scaler: Any, did: str) -> None:
        self._scaled_up = did == "scaled" and scaler.is_enabled()
        if scaler is not self._scaler:
            self._scaler = scaler
            for training in self._trainings.values():
                training.probe.scale_by(scaler)
        for training in self._trainings.values() if did == "updated" else ():
            facts = training.facts
            first = next(training.module.parameters(), None)
            if first is not None and (facts.backwards % LOOK == 0 or first.is_cpu):
                facts.scales.append(float(scaler.get_scale()))

    def _loaded(self, own: bool, *names: list[str]) -> None:
        trained = any(t.facts.steps for t in (*self._past, *self._trainings.values()))
        self._note(not_loaded(user_line(), own and trained, *names))

    def _shuffled(self) -> None:
        for training in self._trainings.values():
            training.facts.shuffled += 1

    def _scheduled(self, schedule: Any, figure: Any) -> None:
        for training in self._trainings.values():
            owned = training.probe.owns(schedule.optimizer)
            training.facts.scheduled(schedule, figure if owned else None)
            training.note_line("schedule")

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        try:
            self._optimizers.add(optimizer)
            if optimizer not in self._stepped:
                self._stepped.add(optimizer)
                self._retire()
            self._terms.stepped(held_by(optimizer))
            owned = self._owned(optimizer)
            for training in owned:
                if not training.before_step(optimizer, self._scaled_up):
                    self._find_origin(training)
            # A step with a closure computes its gradients itself.
            closed = closure_of(args, kwargs) is not None
            graded = closed or any(p.grad is not None for p in held_by(optimizer))
            for training in self._trainings.values():
                if training not in owned:
                    training.stepped_elsewhere(graded)
                    if IDLE in (training.facts.elsewhere, training.facts.others - PATIENCE):
                        self._say(training, training.sure())
            if not owned:
                self._look_for_frozen(optimizer)
        except Exception as error:
            self._quiet(error)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        try:
            for training in self._owned(optimizer):
                training.after_step()
                if training.wants_experiments():
                    self._experiment(training)
                if training.due():
                    self._say(training, training.sure())
                    for term, times in self._terms.without_effect():
                        self._note(wasted(term.number, times, term.location))
        except Exception as error:
            self._quiet(error)

    def _retire(self) -> None:
        """End the trainings whose models have got other parameters, as a new head has.

        The next pass begins a new training of such a model.
        """
        for place, training in list(self._trainings.items()):
            held = {id(p) for p in training.module.parameters()}
            if training.facts.steps >= LOOK and held != set(training.probe.parameters):
                self._experiment(training)
                self._past.append(self._trainings.pop(place))

    def _look_for_frozen(self, optimizer: Optimizer) -> None:
        if self._idle_steps == IDLE or any(p.requires_grad for p in held_by(optimizer)):
            return
        self._idle_steps += 1
        if self._idle_steps == IDLE:
            self._note(frozen(len(list(held_by(optimizer))), user_line()))

    def _note(self, found: Verdict | None) -> None:
        if found is not None and key(found) not in self._noted:
            self._noted[key(found)] = found
            self._announce(found)

    def _announce(self, *found: Verdict) -> None:
        for v in found:
            self._tell(v)
        if self._stop_on and at_least(found, self._stop_on):
            raise Stopped

    def _owned(self, optimizer: Optimizer) -> list[Training]:
        return [t for t in self._trainings.values() if t.probe.owns(optimizer)]

    def _follows(self, v: Verdict) -> bool:
        """Return whether a signal follows from an error that was reported before."""
        told = [t for training in self._trainings.values() for t in training.told]
        first = next((t.step or 0 for t in told if t.severity == "error"), None)
        later = first is not None and (v.step or 0) > first
        return later and v.kind in (*CONSEQUENCES, "constant outputs", "inputs badly scaled")

    def _say(self, training: Training, found: list[Verdict]) -> None:
        new = []
        told = {key(v) for t in (*self._past, *self._trainings.values()) for v in t.told}
        for v in found:
            if v.severity == "note" or key(v) in told or self._follows(v):
                continue
            training.told.append(v)
            new.append(v)
        self._announce(*new)

    def _quiet(self, error: Exception) -> None:
        for probe in (t.probe for t in self._trainings.values()):
            probe.problem = probe.problem or f"{type(error).__name__}: {error}"


def watch(
    *,
    every: int = DEFAULT_EVERY,
    tell: Callable[[Verdict], None] | None = None,
    stop_on: Severity | None = None,
) -> Watch:
    """Return a context in which every training of this process is watched; see Watch.

    Args:
        every: the interval of later probed steps, see GradientProbe.
        tell: receives each verdict as soon as it is certain; None prints it.
        stop_on: raises Stopped at the first certain verdict of that severity or a worse one.

    Example:
        >>> network = nn.Linear(4, 3)
        >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        >>> with unmask.watch(every=1) as watched:
        ...     for _ in range(3):
        ...         optimizer.zero_grad()
        ...         output = network(torch.randn(32, 4)).softmax(1)
        ...         nn.functional.cross_entropy(output, torch.arange(32) % 3).backward()
        ...         optimizer.step()
        >>> watched.verdicts[0].kind
        'activation before the loss'
    """
    return Watch(every=every, tell=tell or _print, stop_on=stop_on)


def _print(verdict: Verdict) -> None:
    sys.stderr.write(f"unmask: {told(verdict)}\n")
