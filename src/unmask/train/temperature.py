"""The temperature by which logits are divided, so that the confidence is calibrated."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from unmask.errors import UserError
from unmask.train.device import without_tf32

# The range where the scale of the logits is in doubt, such as after a softmax too many.
TEMPERATURES = (0.01, 100.0)


def fitted_temperature(
    logits: Tensor, labels: Tensor | NDArray[np.int64], least: float = 0.05, most: float = 20.0
) -> float:
    """Return the temperature that minimises the cross-entropy of logits / temperature.

    Guo et al., 2017, "On Calibration of Modern Neural Networks". The images must not have been
    trained on. Rows that aren't finite are ignored.

    Args:
        logits: float[n, classes].
        labels: int64[n].
        least: the smallest temperature that is returned, over 0.
        most: the largest.

    Returns:
        The temperature: over 1 where the confidence was too high, and 1 without a finite row.
    """
    from scipy.optimize import minimize_scalar

    logits, labels = logits.detach().double().cpu(), torch.as_tensor(labels).cpu()
    finite = logits.isfinite().all(1)
    if not bool(finite.any()):
        return 1.0
    logits, labels = logits[finite], labels[finite]

    # Convex in the inverse of the temperature, so there is one minimum on a logarithmic scale too.
    def loss(power: float) -> float:
        return float(functional.cross_entropy(logits / math.exp(power), labels))

    bounds = math.log(least), math.log(most)
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7})
    return math.exp(min(max(float(found.x), bounds[0]), bounds[1]))


@torch.no_grad()
def divide_logits(network: nn.Module, temperature: float, images: Tensor) -> None:
    """Divide the weights of the network's last linear layer by a temperature, and so its logits.

    Args:
        network: changed in place.
        temperature: over 0.
        images: a few inputs of the network, to check the logits with.

    Raises:
        UserError: the temperature is not over 0, or the last linear layer doesn't give the logits;
            the network is then as it was.
    """
    if not 0 < temperature < float("inf"):
        raise UserError("the temperature must be a number over 0", got=temperature)
    layers = [m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    training = network.training
    network.eval()
    parameters = list(layers[-1].parameters()) if layers else []
    with without_tf32():
        before = network(images)
        for parameter in parameters:
            parameter.div_(temperature)
        after = network(images)
    network.train(training)
    scale = float(before.abs().max())
    if not torch.allclose(after * temperature, before, rtol=1e-3, atol=1e-4 * scale):
        for parameter in parameters:
            parameter.mul_(temperature)
        raise UserError(
            "the network's logits can't be divided by a temperature",
            got="a last linear layer that doesn't give them",
            do="leave the temperature out",
        )
