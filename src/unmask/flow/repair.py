"""repair: try the fixes that fit the verdicts, each by short trainings, and find one that works."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.execution.executor import Executor, LocalExecutor
from unmask.flow import changes
from unmask.flow.changes import Fix, Mended
from unmask.flow.check import FlowCheck, MakeOptimizer, check_flow
from unmask.flow.feed import Batch, Loss, call
from unmask.flow.judge.verdicts import verdicts
from unmask.flow.plans import balanced, network_plans

DEFAULT_STEPS = 100
# A fix works when it removes at least this fraction of the loss without it.
WORKED = 0.1
# Learning rates are tried this many powers of ten away, then this many steps downhill.
FAR, CLIMBS = 5, 4
# Of plans whose loss is within this fraction of the best, the simplest is taken.
NEARLY = 0.1
# Losses of two kinds can't be compared: then this gain in accuracy decides.
MORE_ACCURATE = 0.02
USUAL_RATES = (1e-4, 1e-3, 1e-2, 1e-1)
RATES = {
    *("learning rate too high", "learning rate too low", "diverged", "weights that don't move"),
}


@dataclass(frozen=True)
class Trial:
    """A set of fixes and its result.

    Args:
        name: of the fixes.
        sets: the values they set, in words.
        code: to paste.
        losses: at the end, one for each seed; infinite if it diverged.
        accuracies: likewise; () where targets are no classes.
        apart: whether the loss is of another kind, which can't be compared.
    """

    name: str
    sets: str
    code: str
    losses: tuple[float, ...]
    accuracies: tuple[float, ...] = ()
    # Its loss is of another kind, which can't be compared.
    apart: bool = False

    @property
    def loss(self) -> float:
        """Return the mean over seeds."""
        return sum(self.losses) / len(self.losses)

    @property
    def accuracy(self) -> float | None:
        """Return the mean over seeds, None where targets are no classes."""
        return sum(self.accuracies) / len(self.accuracies) if self.accuracies else None


@dataclass(frozen=True)
class Repair:
    """The outcome of a repair.

    Args:
        before: the network without fixes.
        trials: every trial, best first.
        best: the trial to adopt, or None.
        steps: of each trial.
        mended: applies the fixes of best, None without one.
        failures: a line for each trial that could not be run; it counts as one that diverged.
    """

    before: Trial
    trials: tuple[Trial, ...]
    best: Trial | None
    steps: int
    mended: Mended | None = field(default=None, compare=False, repr=False)
    failures: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome as plain values."""
        trials = [asdict(t) for t in self.trials]
        best = asdict(self.best) if self.best else None
        return {
            "before": asdict(self.before),
            "trials": trials,
            "best": best,
            "steps": self.steps,
            "failures": list(self.failures),
        }


def repair(
    model: nn.Module,
    loss_fn: Loss,
    batches: Callable[[int], Iterable[Batch]] | Sequence[Batch],
    optimizer: MakeOptimizer,
    *,
    check: FlowCheck | None = None,
    steps: int = DEFAULT_STEPS,
    seeds: Sequence[int] = (0, 1),
    on: Executor | None = None,
) -> Repair:
    """Try the fixes that fit the verdicts on copies of a network, and return each one's result.

    First the changes of the network are tried, then, on the best of them, learning rates and
    clipping where the verdicts call for them. A trial is judged by the mean loss over the last
    fifth of its steps, and by accuracy too where targets are classes.

    Args:
        model: the network, which does not change.
        loss_fn: of output and targets.
        batches: pairs (inputs, targets), used in turn, or a function of the seed that yields them.
        optimizer: makes an optimiser from parameters.
        check: of check_flow, made here when it is None.
        steps: of each training, at least 1.
        seeds: of the trainings; the first alone decides about most plans.
        on: the executor of the trials, this process by default; the bits are the same.

    Returns:
        Every trial, and the one to adopt, if any works.

    Raises:
        UserError: when nothing is wrong, and when the network can't be trained unchanged.
    """
    make = batches if callable(batches) else lambda seed: cycle(batches)
    if check is None:
        check = check_flow(model, loss_fn, list(islice(make(0), 10)), optimizer=optimizer)
    kinds = {v.kind for v in check.at_least("warning")}
    if not kinds:
        raise UserError("there is nothing to repair: the check found no fault")
    shared = _Shared(model, loss_fn, make, optimizer, steps, torch.get_num_threads())
    runs = _Runs(on or LocalExecutor(), shared, tuple(seeds))
    before = runs.of(())
    if runs.failures:
        raise UserError("the network can't be trained as it is", got=runs.failures[0])
    pair = next(iter(make(seeds[0])))
    of_training = bool(kinds & RATES) and not of_network(check, kinds)
    if of_training:
        _try_training(runs, check, (), kinds)
    if not of_training or not _worked(runs.of(runs.simplest()), before):
        runs.run(list(network_plans(check, kinds, partial(balanced, model, loss_fn, pair))))
        _try_training(runs, check, runs.simplest(), kinds)
    best = runs.simplest()
    chosen = runs.confirmed(best)
    found = bool(best) and _worked(chosen, runs.confirmed(()))
    trials = sorted((t for p, t in runs.done.items() if p), key=lambda t: t.loss)
    return Repair(
        runs.of(()),
        tuple(trials),
        chosen if found else None,
        steps,
        Mended(best) if found else None,
        tuple(runs.failures),
    )


@dataclass(frozen=True)
class _Shared:
    """The input of every trial, sent to a node once."""

    model: nn.Module
    loss_fn: Loss
    batches: Callable[[int], Iterable[Batch]]
    make: MakeOptimizer
    steps: int
    # Rounding may depend on it, so the workers use as many as this process.
    threads: int


def _tried(shared: _Shared, task: tuple[tuple[Fix, ...], int]) -> tuple[float, float | None]:
    plan, seed = task
    torch.set_num_threads(shared.threads)
    return _run(
        Mended(plan),
        shared.model,
        shared.loss_fn,
        islice(shared.batches(seed), shared.steps),
        shared.make,
        shared.steps,
        seed,
    )


@dataclass
class _Runs:
    """The trials made so far: with the first seed only, and with all where it matters."""

    on: Executor
    shared: _Shared
    seeds: tuple[int, ...]
    done: dict[tuple[Fix, ...], Trial] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def run(self, plans: Sequence[tuple[Fix, ...]]) -> None:
        """Try those of the plans that are new, side by side, with the first seed."""
        missing = [plan for plan in dict.fromkeys(plans) if plan not in self.done]
        self._try([(plan, seed) for plan in missing for seed in self.seeds[:1]])

    def confirm(self, plans: Sequence[tuple[Fix, ...]]) -> None:
        """Try the plans with every seed, side by side."""
        self.run(plans)
        self._try(
            [
                (plan, seed)
                for plan in dict.fromkeys(plans)
                for seed in self.seeds[len(self.done[plan].losses) :]
            ]
        )

    def of(self, plan: tuple[Fix, ...]) -> Trial:
        """Return the trial of a plan, run now if it is new."""
        self.run([plan])
        return self.done[plan]

    def confirmed(self, plan: tuple[Fix, ...]) -> Trial:
        """Return the trial of a plan with every seed."""
        self.confirm([plan])
        return self.done[plan]

    def simplest(self) -> tuple[Fix, ...]:
        """Return the plan with the least change among those whose loss is close to the least.

        The three best plans are first run with every seed.
        """
        self.confirm(sorted(self.done, key=lambda p: self.done[p].loss)[:3])
        chosen: tuple[Fix, ...] = ()
        for plan in sorted(self.done, key=len):
            if _lower(self.done[plan], self.done[chosen], NEARLY):
                chosen = plan
        return chosen

    def _try(self, tasks: list[tuple[tuple[Fix, ...], int]]) -> None:
        results: dict[int, tuple[float, float | None]] = {}
        errors: dict[int, str] = {}
        for outcome in self.on.run(_tried, self.shared, tasks) if tasks else ():
            if outcome.result is None:
                errors[outcome.index] = outcome.error or "no reason given"
            results[outcome.index] = outcome.result or (math.inf, None)
        for index, (plan, seed) in enumerate(tasks):
            loss, accuracy = results[index]
            name = " + ".join(f.name for f in plan) or "as it was"
            if index in errors:
                self.failures.append(f"{name}, seed {seed}: {errors[index]}")
            before = self.done.get(plan)
            self.done[plan] = Trial(
                name,
                "; ".join(f.sets for f in plan),
                "\n".join(f.code for f in plan),
                (*(before.losses if before else ()), loss),
                (
                    *(before.accuracies if before else ()),
                    *(() if accuracy is None else (accuracy,)),
                ),
                apart=any(f.loss is not None for f in plan),
            )


def _worked(trial: Trial, before: Trial) -> bool:
    return math.isfinite(trial.loss) and _lower(trial, before, WORKED)


def _lower(trial: Trial, before: Trial, fraction: float) -> bool:
    """Return whether a trial's loss is lower by that fraction, and its accuracy no worse."""
    if math.isinf(before.loss):
        return math.isfinite(trial.loss)
    if trial.apart != before.apart and None not in (trial.accuracy, before.accuracy):
        return (trial.accuracy or 0.0) > (before.accuracy or 0.0) + MORE_ACCURATE
    worse = trial.accuracy is not None and trial.accuracy < (before.accuracy or 0.0)
    # By difference, since a loss may be negative; it then shows little without the accuracy.
    return not worse and before.loss - trial.loss > fraction * abs(before.loss)


def of_network(check: FlowCheck, kinds: set[str]) -> bool:
    """Return whether the fault showed before any step, or is of a kind that steps don't cause."""
    at_start = {v.kind for v in verdicts(check.history[0]) if v.severity == "error"}
    return bool(at_start - RATES) or bool(kinds & {"vanishing", "exploding", "float underflow"})


def _try_training(runs: _Runs, check: FlowCheck, plan: tuple[Fix, ...], kinds: set[str]) -> None:
    """Try learning rates, first far from the present one where the verdicts doubt it."""
    present = check.history[0].learning_rate
    if present is None:
        return
    tried: dict[float, Trial] = {}
    if present <= 0:
        for rate in USUAL_RATES:
            runs.of((*plan, changes.learning_rate(rate)))
        return

    def at(rates: list[float]) -> None:
        plans = {rate: (*plan, changes.learning_rate(rate)) for rate in rates}
        runs.run(list(plans.values()))
        tried.update({rate: runs.of(changed) for rate, changed in plans.items()})

    # On a changed network the present rate is about right: the doubts were about the old one.
    up = not plan and "learning rate too low" in kinds
    down = not plan and bool(kinds & {"learning rate too high", "diverged"})
    tried[present] = runs.of(plan)
    down = down or math.isinf(tried[present].loss)
    at(
        [
            rate
            for k in range(1, FAR + 1)
            for rate, wanted in ((present * 10**k, up), (present / 10**k, down))
            if wanted
        ]
    )
    # Then downhill in steps of the root of ten.
    for _ in range(CLIMBS):
        best = min(tried, key=lambda rate: tried[rate].loss)
        around = [best * factor for factor in (10**-0.5, 10**0.5)]
        unknown = [r for r in around if all(abs(math.log(r / t)) > 0.1 for t in tried)]
        if not unknown:
            break
        at(unknown)
    if kinds & {"exploding", "diverged", "learning rate too high"}:
        runs.of((*plan, changes.clipping()))


def _run(
    mended: Mended,
    model: nn.Module,
    loss_fn: Loss,
    batches: Iterable[Batch],
    optimizer: MakeOptimizer,
    steps: int,
    seed: int,
) -> tuple[float, float | None]:
    network = mended.model(model, seed)
    stepper = mended.optimizer(optimizer, network)
    loss_fn = mended.loss(loss_fn)
    losses: list[float] = []
    right: list[float] = []
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        for inputs, targets in batches:
            try:
                output = call(network, inputs)
                loss = loss_fn(output, targets)
                network.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
            except UserError:
                raise
            except (RuntimeError, ValueError):
                # A change that this network's shapes don't allow is no fix.
                return math.inf, None
            mended.clip(network)
            stepper.step()
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                return math.inf, None
            right.extend(_accuracy(output, targets))
    tail = max(1, steps // 5)
    accuracy = sum(right[-tail:]) / len(right[-tail:]) if right else None
    return sum(losses[-tail:]) / len(losses[-tail:]), accuracy


def _accuracy(output: Any, targets: Any) -> list[float]:
    classes = isinstance(targets, Tensor) and not targets.is_floating_point() and targets.ndim == 1
    if not (classes and isinstance(output, Tensor) and output.ndim == 2):
        return []
    return [float((output.argmax(1) == targets).float().mean())]
