"""Fixes that are cheap enough to be tried: a temperature, batch-norm statistics measured anew."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from unmask.shift.target import Target


def best_temperature(logits: Tensor, labels: NDArray[np.int64]) -> float:
    """Return the temperature that minimises the cross-entropy (Guo et al., 2017), 0.01 to 100.

    Args:
        logits: float[n, k], divided by it.
        labels: int64[n].
    """
    from scipy.optimize import minimize_scalar

    kept = logits.isfinite().all(1)
    if not bool(kept.any()):
        return 1.0
    values, truth = logits[kept].double(), torch.from_numpy(labels)[kept]

    def loss(log_temperature: float) -> float:
        return float(functional.cross_entropy(values / np.exp(log_temperature), truth))

    found = minimize_scalar(loss, bounds=(np.log(0.01), np.log(100.0)), method="bounded")
    return float(np.exp(found.x))


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
        pixels: float32[n, c, h, w] in [0, 1], n of 100 or more for statistics worth having.
    """
    assert target.module is not None
    network: nn.Module = copy.deepcopy(target.module).eval()
    for layer in network.modules():
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
            layer.reset_running_stats()
            # The mean over all batches.
            layer.momentum = None
            layer.train()
    with torch.no_grad():
        for chunk in torch.split(pixels, 100):
            if len(chunk) > 1 or len(pixels) == 1:
                network(chunk.to(target.device))
    return replace(target, function=network.eval(), module=network)
