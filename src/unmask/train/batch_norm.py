"""Batch normalisation with the statistics of the whole batch when several processes share it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unmask.train.distributed import Processes


@contextlib.contextmanager
def whole_batch_statistics(model: nn.Module, together: Processes) -> Iterator[None]:
    """Make batch norms in training mode use the statistics of all processes inside the block.

    The training then doesn't depend on the number of processes. PyTorch's SyncBatchNorm does the
    same, but on GPUs only.

    Args:
        model: whose batch norms are changed until the block ends.
        together: the processes.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)] if together.count > 1 else []
    for norm in norms:
        norm.forward = partial(_forward, norm, together)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _forward(norm: _BatchNorm, together: Processes, x: Tensor) -> Tensor:
    if not norm.training:
        return type(norm).forward(norm, x)
    others = [0, *range(2, x.ndim)]
    values = x.float()
    variance, mean = torch.var_mean(values, others, correction=0)
    count = torch.full_like(mean, x.numel() // x.shape[1], dtype=torch.float64)
    # In double precision the difference of squares below loses no accuracy.
    mean, variance = mean.double(), variance.double()
    sums = torch.stack([count, count * mean, count * (variance + mean.square())])
    whole: Tensor = _Sum.apply(sums, together)  # type: ignore[no-untyped-call]
    count, total, squares = whole
    mean = total / count
    variance = squares / count - mean.square()
    _remember(norm, mean.detach(), (variance * count / (count - 1)).detach())
    scale = (variance + norm.eps).rsqrt()
    shift = -mean * scale
    if norm.affine:
        scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
    shape = [1, -1, *[1] * (x.ndim - 2)]
    y: Tensor = values * scale.float().view(shape) + shift.float().view(shape)
    return y.to(x.dtype)


class _Sum(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, together: Processes) -> Tensor:
        ctx.together = together
        return together.summed(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.together.summed(gradient), None


@torch.no_grad()
def _remember(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    part = norm.momentum
    if part is None:
        part = 1 / int(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean.to(norm.running_mean), part)
    norm.running_var.lerp_(variance.to(norm.running_var), part)
