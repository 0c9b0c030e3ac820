"""Fixes that are cheap enough to be tried: a temperature, and new batch-norm statistics."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unmask.shift.target import Target


def has_batch_norm(target: Target) -> bool:
    """Return whether the model normalises by running statistics of its batches."""
    return target.module is not None and any(
        isinstance(m, _BatchNorm) and m.running_mean is not None for m in target.module.modules()
    )


def reestimated(target: Target, pixels: Tensor) -> Target:
    """Return a copy of the model whose batch-norm statistics are those of these images.

    No label is needed and no weight changes (Schneider et al., 2020).

    Args:
        target: a model with batch norm.
        pixels: float32[n, c, h, w] in [0, 1]; n of 100 or more gives useful statistics.
    """
    assert target.module is not None
    network: nn.Module = copy.deepcopy(target.module).eval()
    for layer in network.modules():
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
            layer.reset_running_stats()
            # None takes the mean over all batches.
            layer.momentum = None
            layer.train()
    with torch.no_grad():
        for chunk in torch.split(pixels, 100):
            if len(chunk) > 1 or len(pixels) == 1:
                network(chunk.to(target.device))
    return replace(target, function=network.eval(), module=network)
