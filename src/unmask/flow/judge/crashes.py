"""Errors of torch that end a training, and what to do about them."""

from __future__ import annotations

import re

from torch import nn

from unmask.flow.measure.calls import LOSSES, is_users, relative
from unmask.verdict import Verdict

# Torch's message, and what to do about it.
_KNOWN: tuple[tuple[str, str], ...] = (
    (
        r"floating point type for target with class probabilities",
        "one-hot labels are floating-point, y.float(), or class numbers: y.argmax(1)",
    ),
    (
        r"all elements of (?:input|target) should be between 0 and 1",
        "binary_cross_entropy wants probabilities and targets from 0 to 1: use "
        "binary_cross_entropy_with_logits on the scores, or a sigmoid before it",
    ),
    (
        r"expected (?:scalar type|target dtype to be) Long|expected scalar type Long|"
        r"not implemented for '(?:Float|Int)'|target.*Long",
        "class labels must be of type int64: y.long()",
    ),
    (
        r"Found dtype Long but expected Float|result type Float can't be cast to.*Long|"
        r"must be floating point",
        "this loss wants floating-point targets: y.float()",
    ),
    (
        r"Target -?\d+ is out of bounds|Assertion .t >= 0 && t < n_classes",
        "labels must lie from 0 to the number of outputs - 1: count the classes, or subtract 1",
    ),
    (
        r"0D or 1D target tensor expected|multi-target not supported",
        "give class numbers of shape (n,): y.squeeze(1), or y.argmax(1) of one-hot labels",
    ),
    (
        r"Expected more than 1 value per channel",
        "batch normalisation needs two values a channel: DataLoader(..., drop_last=True)",
    ),
    (
        r"does not require grad and does not have a grad_fn",
        "the loss has no path to the model: look for .detach(), .item(), .data, argmax or "
        "torch.no_grad() on the way to it",
    ),
    (
        r"Trying to backward through the graph a second time",
        "call backward() once a loss, or detach what is carried from step to step "
        "(hidden = hidden.detach())",
    ),
    (
        r"modified by an inplace operation",
        "replace the in-place operation (x += 1, relu_(x), inplace=True) by one that makes a "
        "new tensor",
    ),
    (
        r"mat1 and mat2 shapes cannot be multiplied",
        "the layer takes another number of inputs than it is given: compare the two sizes above, "
        "and flatten images with x.flatten(1)",
    ),
    (
        r"expected input.*to have (\d+) channels|expected 4D|Expected 3D \(unbatched\) or 4D",
        "give images as (batch, channels, height, width)",
    ),
    (
        r"to be on the same device|on different devices|on the expected device",
        "move the batch to the model's device: x.to(next(model.parameters()).device)",
    ),
    (
        r"Expected input batch_size .* to match target batch_size",
        "outputs and labels are of different numbers of images: reshape without joining the "
        "batch's dimension with another",
    ),
    (
        r"[Ee]xpected.*(?:Double|Float|Half|BFloat16).*(?:but|found|got)|same dtype",
        "bring both to one type: x.float()",
    ),
    (
        r"out of memory",
        "use a smaller batch and accumulate gradients, or a smaller model",
    ),
    (
        r"CheckpointError|different number of tensors was saved",
        "the checkpointed region must compute the same again: keep hooks and random numbers out of "
        "it, or train without checkpointing",
    ),
    (
        r"output with shape \[1, \d+, \d+\] doesn't match the broadcast shape \[3",
        "the images are grey, and Normalize is given three channels: Normalize((0.5,), (0.5,))",
    ),
    (
        r"size of tensor a .* must match the size of tensor b|output with shape",
        "two tensors have sizes that don't go together: print both shapes there",
    ),
)


def _swapped(error: BaseException) -> bool:
    """Return whether a loss failed whose targets carry a gradient and whose outputs don't."""
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_name in LOSSES and "torch" in frame.f_code.co_filename:
            output, target = (frame.f_locals.get(name) for name in ("input", "target"))
            carries = [bool(getattr(x, "requires_grad", False)) for x in (output, target)]
            return carries == [False, True]
        trace = trace.tb_next
    return False


def _weights(error: BaseException) -> list[nn.Parameter]:
    """Return the weights of all models that the user's own code holds where an error arose."""
    trace, models = error.__traceback__, []
    while trace is not None:
        frame = trace.tb_frame
        if is_users(frame.f_code.co_filename):
            models += [m for m in frame.f_locals.values() if isinstance(m, nn.Module)]
        trace = trace.tb_next
    return [p for m in models for p in m.parameters()]


def _stepped(error: BaseException) -> bool:
    """Return whether a backward pass failed on a weight that has been changed since the forward."""
    found = re.search(r"inplace operation: \[\S* \[([\d, ]+)\]\]", str(error))
    if found is None:
        return False
    shape = [int(n) for n in found[1].split(",")]
    # A linear layer saves its weight transposed.
    return any(list(p.shape) in (shape, shape[::-1]) and p._version for p in _weights(error))


def explained(error: Exception, step: int | None) -> Verdict | None:
    """Return a verdict on an error that ended a training, or None where it isn't known.

    Args:
        error: with its traceback.
        step: at which it was raised.
    """
    do = advice(error)
    if not do:
        return None
    trace, line = error.__traceback__, None
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if is_users(name):
            line = f"{relative(name)}:{trace.tb_lineno}"
        trace = trace.tb_next
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return Verdict("crashed", "error", text, do, location=line, step=step)


def advice(error: BaseException | str) -> str:
    """Return what to do about one of torch's errors, or "" where it isn't known."""
    if isinstance(error, BaseException) and _swapped(error):
        return "the loss takes the model's output first: loss(output, target)"
    text = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else error
    if isinstance(error, BaseException) and "does not require grad" in text:
        weights = _weights(error)
        if weights and not any(p.requires_grad for p in weights):
            return (
                "all of the model's parameters are frozen: call requires_grad_(True) on those to "
                "be trained, such as a new head"
            )
    if isinstance(error, BaseException) and _stepped(error):
        return (
            "optimizer.step() has changed weights that this backward() needs: call every "
            "backward() before the steps, or run the forward pass again"
        )
    return next((do for pattern, do in _KNOWN if re.search(pattern, text)), "")
