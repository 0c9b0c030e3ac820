"""Fixes that are cheap enough to be tried: a temperature, and new batch-norm statistics."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unmask.shift.result import Temperature
from unmask.shift.scores import scores_of
from unmask.shift.target import Target
from unmask.train.temperature import TEMPERATURES, fitted_temperature

_FEWEST = 20


def has_batch_norm(target: Target) -> bool:
    """Return whether the model normalises by running statistics of its batches."""
    return target.module is not None and any(
        isinstance(m, _BatchNorm) and m.running_mean is not None for m in target.module.modules()
    )


def recalibrated(logits: Tensor, labels: NDArray[np.int64]) -> Temperature | None:
    """Return the temperature that fits every other image best, and its effect on the rest.

    Args:
        logits: finite, float32[n, k].
        labels: int64[n].

    Returns:
        None where images are too few, or all right, which shows nothing: without a mistake the
        sharpest probabilities fit best.
    """
    if len(labels) < _FEWEST or bool((logits[::2].argmax(1).numpy() == labels[::2]).all()):
        return None
    best = fitted_temperature(logits[::2], labels[::2], *TEMPERATURES)
    rest, truth = logits[1::2], labels[1::2]
    before, after = (scores_of(x, truth, logits.shape[1]).ece for x in (rest, rest / best))
    return Temperature(best, before, after)


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
