"""A batch as a training loop supplies it: how it is read, passed to a model and refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.flow.judge.crashes import advice
from unmask.flow.measure.calls import logits_in
from unmask.flow.measure.layers import tensors_in

Batch = tuple[Any, Any]
Loss = Callable[[Any, Any], Tensor]


def call(model: nn.Module, inputs: Any) -> Any:
    """Return the model's output for a tensor, or a tuple or dictionary of arguments."""
    if isinstance(inputs, dict):
        return model(**inputs)
    if isinstance(inputs, (tuple, list)):
        return model(*inputs)
    return model(inputs)


def loss_of(model: nn.Module, inputs: Any, targets: Any, loss_fn: Loss) -> Tensor:
    """Return the loss of a batch as a scalar.

    Args:
        model: the network.
        inputs: a tensor, or a tuple or dictionary of arguments.
        targets: as loss_fn takes them.
        loss_fn: of output and targets; if it doesn't take an output that is a tuple, a dictionary
            or a ModelOutput, it gets the logits in it.

    Raises:
        UserError: when the model doesn't take the batch, the loss doesn't take the output, or the
            loss is no scalar or has no graph.
    """
    try:
        output = call(model, inputs)
    except Exception as error:
        shapes = [tuple(t.shape) for t in tensors_in(inputs)]
        raise UserError(
            "the model's forward doesn't fit the batch",
            got=f"inputs of shape {', '.join(map(str, shapes)) or 'unknown'}: {first_line(error)}",
            do=advice(error) or "give a batch as the training loop does",
        ) from error
    try:
        loss = loss_fn(output, targets)
    except Exception as error:
        logits = None if isinstance(output, Tensor) else logits_in(output)
        if logits is None:
            raise _unfit(error, output) from error
        try:
            loss = loss_fn(logits, targets)
        except Exception as again:
            raise _unfit(again, logits) from error
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise UserError(
            "the loss is no scalar", got=shape, do="reduce it, for instance with .mean()"
        )
    if torch.is_grad_enabled() and loss.grad_fn is None:
        raise UserError(
            "the loss has no graph, so no gradient reaches the model",
            do="look for .detach(), .item(), .data, argmax or torch.no_grad() on the way to it",
        )
    return loss


def _unfit(error: Exception, output: Any) -> UserError:
    do = "give loss_fn(output, targets) as the training loop does"
    if not isinstance(output, Tensor):
        do = (
            f"forward returns {type(output).__name__}: let it return the scores, or an object with "
            "them as its logits"
        )
    return UserError(
        "the loss doesn't fit the model's output", got=first_line(error), do=advice(error) or do
    )


def first_line(error: BaseException) -> str:
    """Return an exception as one short line."""
    try:
        text = " ".join(str(error).split()) or type(error).__name__
    except Exception:
        # The class and its __str__ are not ours, and may raise.
        text = type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."


def refuse_unfit(model: nn.Module, pair: Batch | None) -> None:
    """Raise UserError for a model or a batch that can't be checked."""
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
    if any(type(part).__module__ == "numpy" for part in (inputs, pair[1])):
        raise UserError(
            "the batch holds NumPy arrays",
            got=f"{type(inputs).__name__} and {type(pair[1]).__name__}",
            do="convert both with torch.from_numpy, or use a torch.utils.data.DataLoader",
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


def pairs_of(batch: Any) -> Iterable[Batch]:
    """Return the batches of one pair (inputs, targets), or of a loader of such pairs."""
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
        if isinstance(pair, (tuple, list)) and len(pair) == 2:
            yield pair[0], pair[1]
            continue
        got = type(pair).__name__
        do = ""
        if isinstance(pair, dict):
            got = f"a dictionary of {', '.join(map(str, pair))}"
            do = "yield ({the model's arguments by name}, labels) from a loader of your own"
        elif isinstance(pair, (tuple, list)):
            got = f"{len(pair)} values"
            do = "yield ((inputs, ...), targets) from a loader of your own"
        raise UserError("a batch is (inputs, targets)", got=got, do=do)
