"""One number by which logits are divided, so that the confidence can be believed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from unmask.errors import UserError
from unmask.train.device import without_tf32


def fitted_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature that minimises the cross-entropy of logits / temperature.

    Guo et al., 2017, "On Calibration of Modern Neural Networks". The images must not have been
    trained on.

    Args:
        logits: float[n, classes].
        labels: int64[n].

    Returns:
        The temperature, 0.05 to 20: over 1 where the confidence was too high.
    """
    logits, labels = logits.detach().double().cpu(), labels.cpu()
    # The cross-entropy is convex in the inverse of the temperature.
    inverse = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([inverse], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(logits * inverse, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return 1 / min(max(float(inverse.detach()), 0.05), 20.0)


@torch.no_grad()
def divide_logits(network: nn.Module, temperature: float, images: Tensor) -> None:
    """Divide the weights of the network's last linear layer, so that its logits are divided.

    Args:
        network: changed in place.
        temperature: over 0.
        images: what the network takes, a few, to check the logits with.

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
