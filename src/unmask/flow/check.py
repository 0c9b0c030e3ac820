"""check_flow: will this network train? A few probed steps on a copy, and what they say."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from unmask.errors import UserError
from unmask.flow.judge.verdicts import verdicts
from unmask.flow.measure.layers import tensors_in
from unmask.flow.measure.probe import GradientProbe
from unmask.flow.measure.statistics import FlowStats
from unmask.flow.measure.wrappers import unwrap
from unmask.runtime import environment_stamp
from unmask.verdict import Severity, Verdict, at_least

Batch = tuple[Any, Any]
Loss = Callable[[Any, Any], Tensor]
MakeOptimizer = Callable[[Iterator[nn.Parameter]], Optimizer]
DEFAULT_STEPS = 10


@dataclass(frozen=True)
class FlowCheck:
    """What check_flow found: the statistics of every step, the verdicts, worst first, a stamp."""

    model: str
    parameters: int
    history: tuple[FlowStats, ...]
    verdicts: tuple[Verdict, ...]
    stamp: dict[str, Any] = field(default_factory=dict)

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
) -> FlowCheck:
    """Judge a network from one batch at its start or, given its optimiser, from a few steps too.

    batch is (inputs, targets) or an iterable of such pairs, for instance a DataLoader, which is
    gone through from its start as often as needed; inputs are a tensor, or a tuple or dictionary
    of the forward's arguments. loss_fn(output, targets) returns a scalar. optimizer is an
    optimiser of the model's parameters, or a function that makes one from parameters. All runs on
    a copy, and the random numbers drawn come from seed: neither the model nor the optimiser nor
    the global generators change. Raises UserError with one line for what can't be checked.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise UserError("the steps of a check must be a whole number", got=steps, do="10 is usual")
    original = unwrap(model)
    batches = list(islice(_pairs(batch), 1 if optimizer is None else steps))
    _refuse_unfit(original, batches[0] if batches else None)
    network, stepper = _copied(original, optimizer)
    device = next(network.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        history = _run(network, loss_fn, batches, stepper, steps)
    return FlowCheck(
        model=type(original).__name__,
        parameters=sum(p.numel() for p in original.parameters()),
        history=tuple(history),
        verdicts=tuple(verdicts(history)),
        stamp=environment_stamp(seed=seed, device=str(device)),
    )


def _run(
    network: nn.Module,
    loss_fn: Loss,
    batches: list[Batch],
    stepper: Optimizer | None,
    steps: int,
) -> list[FlowStats]:
    losses: list[tuple[float, float | None]] = []
    with GradientProbe(network, every=1) as probe:
        for step, (inputs, targets) in enumerate(islice(cycle(batches), steps if stepper else 1)):
            torch.manual_seed(step)
            loss = _loss(network, loss_fn, inputs, targets)
            network.zero_grad(set_to_none=True)
            _backward(loss)
            after = None
            if stepper is not None:
                _step(stepper)
                # The same dropout as before the step, so that only the weights differ.
                torch.manual_seed(step)
                with torch.no_grad():
                    after = _loss(network, loss_fn, inputs, targets).item()
            losses.append((loss.item(), after))
            if not torch.isfinite(loss):
                break
    return [
        replace(stats, loss=before, loss_after=after)
        for stats, (before, after) in zip(probe.history, losses, strict=True)
    ]


def _backward(loss: Tensor) -> None:
    try:
        loss.backward()  # type: ignore[no-untyped-call]
    except Exception as error:
        raise UserError(
            "the loss's gradient can't be computed",
            got=first_line(error),
            do="a training loop would stop here too",
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


def call(model: nn.Module, inputs: Any) -> Any:
    """Return the model's output for a tensor, or a tuple or dictionary of arguments."""
    if isinstance(inputs, dict):
        return model(**inputs)
    if isinstance(inputs, (tuple, list)):
        return model(*inputs)
    return model(inputs)


def _loss(model: nn.Module, loss_fn: Loss, inputs: Any, targets: Any) -> Tensor:
    try:
        output = call(model, inputs)
    except Exception as error:
        shapes = [tuple(t.shape) for t in tensors_in(inputs)]
        raise UserError(
            "the model's forward doesn't fit the batch",
            got=f"inputs of shape {', '.join(map(str, shapes)) or 'unknown'}: {first_line(error)}",
            do="give a batch as the training loop does",
        ) from error
    try:
        loss = loss_fn(output, targets)
    except Exception as error:
        raise UserError(
            "the loss doesn't fit the model's output",
            got=first_line(error),
            do="give loss_fn(output, targets) as the training loop does",
        ) from error
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise UserError(
            "the loss is no scalar", got=shape, do="reduce it, for instance with .mean()"
        )
    if torch.is_grad_enabled() and loss.grad_fn is None:
        raise UserError(
            "the loss has no graph, so no gradient reaches the model",
            do="look for .detach(), .item(), .data or torch.no_grad() on the way to it",
        )
    return loss


def first_line(error: BaseException) -> str:
    """Return an exception as one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."


def _refuse_unfit(model: nn.Module, pair: Batch | None) -> None:
    if pair is None:
        raise UserError("there is no batch to check with", do="give (inputs, targets)")
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError(
            "all parameters are frozen", do="set requires_grad on those that are to be trained"
        )
    if not model.training:
        raise UserError("the model is in evaluation mode", do="call model.train() before the check")
    inputs = pair[0]
    device = next(model.parameters()).device
    if device.type == "meta":
        raise UserError(
            "the model is on the meta device, where weights have no values",
            do="make it on a real one",
        )
    tensors = [inputs] if isinstance(inputs, Tensor) else []
    if isinstance(inputs, (dict, tuple, list)):
        values = inputs.values() if isinstance(inputs, dict) else inputs
        tensors = [t for t in values if isinstance(t, Tensor)]
    for t in tensors:
        if t.device.type != device.type:
            raise UserError(
                "the batch and the model are on different devices",
                got=f"{t.device} and {device}",
                do=f"move the batch with .to({str(device)!r})",
            )
    takes_indices = any(isinstance(m, (nn.Embedding, nn.EmbeddingBag)) for m in model.modules())
    if tensors and not takes_indices and not any(t.is_floating_point() for t in tensors):
        raise UserError(
            "the inputs are integers",
            got=str(tensors[0].dtype).removeprefix("torch."),
            do="scale them, for instance images.float() / 255",
        )


def _pairs(batch: Any) -> Iterable[Batch]:
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        first = batch[0]
        if isinstance(first, (Tensor, dict)) or not _is_pair(first):
            return [(batch[0], batch[1])]
    if isinstance(batch, Tensor) or not isinstance(batch, Iterable):
        raise UserError("a batch is (inputs, targets)", got=type(batch).__name__)
    return _checked_pairs(batch)


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[1], Tensor)


def _checked_pairs(loader: Iterable[Any]) -> Iterator[Batch]:
    for pair in loader:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise UserError("a batch is (inputs, targets)", got=type(pair).__name__)
        yield pair[0], pair[1]


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
        raise UserError(
            "the model or its optimiser can't be copied", got=first_line(error)
        ) from error
    mine = {id(p) for p in network.parameters()}
    if not any(id(p) in mine for g in stepper.param_groups for p in g["params"]):
        raise UserError(
            "the optimiser holds none of the model's parameters",
            got=type(stepper).__name__,
            do="make it from model.parameters()",
        )
    return network, stepper
