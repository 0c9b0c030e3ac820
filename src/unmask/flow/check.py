"""check_flow: will this network train? A few probed steps on a copy, and the verdicts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from unmask.errors import MAX_SEED, UserError, require_whole
from unmask.flow.feed import Batch, Loss, call, first_line, loss_of, pairs_of, refuse_unfit
from unmask.flow.judge.crashes import advice
from unmask.flow.judge.verdicts import verdicts
from unmask.flow.measure.calls import LossTap
from unmask.flow.measure.experiments import experiment, severs
from unmask.flow.measure.origin import origin
from unmask.flow.measure.parameters import results_in
from unmask.flow.measure.probe import GradientProbe
from unmask.flow.measure.slopes import ActivationMode
from unmask.flow.measure.statistics import FlowStats, Origin
from unmask.flow.measure.wrappers import unwrap
from unmask.runtime import environment_stamp
from unmask.verdict import Severity, Verdict, at_least

MakeOptimizer = Callable[[Iterator[nn.Parameter]], Optimizer]
DEFAULT_STEPS = 10
# With this many parameters a pass takes long: the loss after a step is taken at every second one.
LARGE = 5_000_000


@dataclass(frozen=True)
class FlowCheck:
    """The result of check_flow.

    Args:
        model: its class.
        parameters: the number of its parameters.
        history: the statistics of every step.
        verdicts: worst first.
        stamp: the provenance.
        untested: a sentence for each thing that this check could not test.
    """

    model: str
    parameters: int
    history: tuple[FlowStats, ...]
    verdicts: tuple[Verdict, ...]
    stamp: dict[str, Any] = field(default_factory=dict)
    untested: tuple[str, ...] = ()

    def at_least(self, severity: Severity) -> tuple[Verdict, ...]:
        """Return the verdicts of that severity ("note", "warning", "error") or a worse one."""
        return tuple(at_least(self.verdicts, severity))

    @property
    def healthy(self) -> bool:
        """Return whether no verdict is an error."""
        return not self.at_least("error")

    def as_dict(self) -> dict[str, Any]:
        """Return the check as plain values; a verdict's subject is called "layer" too."""
        found = asdict(self)
        for verdict in found["verdicts"]:
            verdict["layer"] = verdict["subject"]
        return found


def check_flow(
    model: nn.Module,
    loss_fn: Loss,
    batch: Batch | Iterable[Batch],
    *,
    optimizer: Optimizer | MakeOptimizer | None = None,
    steps: int = DEFAULT_STEPS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> FlowCheck:
    """Judge a network from one batch at its start or, with its optimiser, from a few steps too.

    Everything runs on a copy: neither the model nor the optimiser nor the global generators change.

    Args:
        model: the network, in training mode.
        loss_fn: takes (output, targets) and returns a scalar; if it doesn't take an output that is
            a tuple, a dictionary or a ModelOutput, it gets the logits in it.
        batch: (inputs, targets), or an iterable of such pairs, such as a DataLoader, which is
            restarted as often as needed. inputs are a tensor, or a tuple or dictionary of the
            forward's arguments.
        optimizer: an optimiser of the model's parameters, or a function that makes one from them;
            None judges the start alone.
        steps: training steps, at least 1.
        seed: of random numbers, such as dropout's.
        progress: called with the number of each step, from 1, and that of all steps.

    Returns:
        The statistics of every step, the verdicts, and what was not tested.

    Raises:
        UserError: for a model or a batch that can't be checked.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(1))
        >>> batch = torch.randn(32, 4), torch.arange(32) % 3
        >>> found = unmask.check_flow(network, nn.functional.cross_entropy, batch)
        >>> found.verdicts[0].kind
        'activation before the loss'
    """
    require_whole("number of steps", steps, 1, 1 << 31)
    require_whole("seed", seed, 0, MAX_SEED)
    original = unwrap(model)
    batches = list(islice(pairs_of(batch), 1 if optimizer is None else steps))
    refuse_unfit(original, batches[0] if batches else None)
    network, stepper = _copied(original, optimizer)
    device = next(network.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        history = _run(network, loss_fn, batches, stepper, steps, progress)
        torch.manual_seed(seed)
        loss = partial(loss_of, loss_fn=loss_fn)
        curved = any(x.slopes for x in history[0].layers)
        cut = severs(history[0])
        tried = experiment(original, call, loss, batches, curved=curved, cut=cut)
        history[0] = replace(history[0], experiments=tried)
    return FlowCheck(
        model=type(original).__name__,
        parameters=sum(p.numel() for p in original.parameters()),
        history=tuple(history),
        verdicts=tuple(verdicts(history)),
        stamp=environment_stamp(seed=seed, device=str(device)),
        untested=_untested(history, stepper is not None),
    )


def _untested(history: list[FlowStats], stepped: bool) -> tuple[str, ...]:
    stats, tried = history[0], history[0].experiments
    facts = stats.parameters
    cut = {n.rpartition(".")[0] or "(model)" for n in facts.unreached} if facts else set()
    unseen = [
        x.name
        for x in stats.matrix_layers
        if x.output is not None and not x.output_gradient and not x.frozen and x.name not in cut
    ]
    found = {
        "what steps do: no optimiser was given": not stepped,
        "what the loss is fed: it calls none of torch's own": not stats.calls,
        "whether images are kept apart": tried is None or tried.mixed is None,
        "whether the labels have to do with the images: too few were given": tried is None
        or tried.linear is None,
        f"{len(unseen)} layers inside checkpointed regions": bool(unseen),
    }
    return tuple(words for words, true in found.items() if true)


def _run(
    network: nn.Module,
    loss_fn: Loss,
    batches: list[Batch],
    stepper: Optimizer | None,
    steps: int,
    progress: Callable[[int, int], None] | None,
) -> list[FlowStats]:
    losses: list[tuple[float, float | None, Origin | None]] = []
    optimizers = [stepper] if stepper is not None else []
    large = sum(p.numel() for p in network.parameters()) >= LARGE
    with GradientProbe(network, every=1, optimizers=optimizers) as probe:

        def seen(name: str, output: Any, target: Any, options: Any, result: Any) -> None:
            if probe.window is not None and result.requires_grad:
                probe.window.see_loss(name, output, target, options, result)

        def cut(operation: str) -> None:
            # The model's own window records the cuts within it.
            if probe.window is not None and not probe.window.busy:
                probe.window.see_cut(operation)

        for step, (inputs, targets) in enumerate(islice(cycle(batches), steps if stepper else 1)):
            if progress is not None:
                progress(step + 1, steps if stepper else 1)
            torch.manual_seed(step)
            with LossTap(seen, every=True), ActivationMode(None, cut):
                loss = loss_of(network, inputs, targets, loss_fn)
            network.zero_grad(set_to_none=True)
            if probe.window is not None:
                probe.window.see_backward(loss, loss.item())
            _backward(loss)
            made = after = None
            if not _finite(network, loss):
                made = _origin(network, inputs, targets, loss_fn, step)
            if stepper is not None:
                _step(stepper)
                if not large or step == steps - 1 or (step % 2 == 0 and step < steps - 2):
                    # Dropout is the same as before, so that only the weights differ.
                    torch.manual_seed(step)
                    with torch.no_grad():
                        after = loss_of(network, inputs, targets, loss_fn).item()
            losses.append((loss.item(), after, made))
            if not torch.isfinite(loss) or made is not None:
                break
    return [
        replace(stats, loss=before, loss_after=after, origin=made)
        for stats, (before, after, made) in zip(probe.history, losses, strict=True)
    ]


def _finite(network: nn.Module, loss: Tensor) -> bool:
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    if not bool(loss.isfinite()):
        return False
    # A norm reads each once; it may overflow, though no entry is infinite.
    return all(
        bool(torch.linalg.vector_norm(g).isfinite()) or bool(g.isfinite().all())
        for g in (g.coalesce().values() if g.is_sparse else g for g in gradients)
    )


def _origin(
    network: nn.Module, inputs: Any, targets: Any, loss_fn: Loss, step: int
) -> Origin | None:
    twin = copy.deepcopy(network)

    def again() -> Tensor:
        torch.manual_seed(step)
        return loss_of(twin, inputs, targets, loss_fn)

    return origin(twin, inputs, again)


def _backward(loss: Tensor) -> None:
    try:
        loss.backward()  # type: ignore[no-untyped-call]
    except Exception as error:
        raise UserError(
            "the loss's gradient can't be computed",
            got=first_line(error),
            do=advice(error) or "a training loop would stop here too",
        ) from error


def _step(optimizer: Optimizer) -> None:
    try:
        optimizer.step()
    except Exception as error:
        raise UserError(
            f"the step of {type(optimizer).__name__} fails",
            got=first_line(error),
            do="give an optimiser whose step() needs no argument",
        ) from error


def _copied(
    model: nn.Module, optimizer: Optimizer | MakeOptimizer | None
) -> tuple[nn.Module, Optimizer | None]:
    try:
        if not isinstance(optimizer, Optimizer):
            network = copy.deepcopy(model)
            return network, None if optimizer is None else optimizer(network.parameters())
        # One deepcopy of both keeps the copy's optimiser on the copy's parameters.
        network, stepper = copy.deepcopy((model, optimizer))
    except UserError:
        raise
    except Exception as error:
        made = next(results_in(model), None)
        raise UserError(
            "the model or its optimiser can't be copied",
            got=first_line(error) if made is None else f"{made} is a tensor that was computed",
            do=""
            if made is None
            else f"make it a parameter, {made} = nn.Parameter(...), or detach what a pass leaves",
        ) from error
    mine = {id(p) for p in network.parameters()}
    if not any(id(p) in mine for g in stepper.param_groups for p in g["params"]):
        raise UserError(
            "the optimiser holds none of the model's parameters",
            got=type(stepper).__name__,
            do="make it from model.parameters()",
        )
    return network, stepper
