"""The gradient profile that theory expects of a network as it was initialised, where it can say."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unmask.flow.check import Batch, Loss, call
from unmask.flow.fixes import main_activation
from unmask.flow.layers import layers_of
from unmask.flow.statistics import FlowStats
from unmask.flow.theory import Profile, WeightLayer, predict
from unmask.flow.wrappers import unwrap
from unmask.models.activations import ACTIVATIONS

# The products of all pairs of pictures are followed through the layers.
MOST_PICTURES = 64


def expected_profile(
    model: nn.Module, loss_fn: Loss, batch: Batch, stats: FlowStats
) -> Profile | None:
    """Return what mean-field theory expects of the gradients of a chain of linear layers.

    sigma_w2 and sigma_b2 of each layer are those of its weights and biases as they stand, so the
    profile is that of a random network with this one's variances. stats are of the batch at the
    start, where the loss is a mean over pictures. None where the theory does not reach: for
    networks that are no chain of linear layers with one known activation, or that normalise.
    """
    network = unwrap(model)
    phi = main_activation(stats)
    chain = stats.matrix_layers
    hidden = chain[:-1]
    modules = {x.name: x.module for x in layers_of(network)}
    linears = [modules[x.name] for x in chain]
    known = [x.slopes.activation == phi for x in hidden if x.slopes]
    if (
        phi not in ACTIVATIONS
        or len(known) < len(hidden)
        or not all(known)
        or len(stats.layers) > len(chain)
        or not all(isinstance(m, nn.Linear) for m in linears)
        or any(_units(a) != b.fan_in for a, b in zip(linears, chain[1:], strict=False))
    ):
        return None
    layers = [
        WeightLayer(x.fan_in, _units(m), _mean_square(m.weight) * x.fan_in, _mean_square(m.bias))
        for x, m in zip(chain, linears, strict=True)
    ]
    inputs, errors = _ends(network, loss_fn, batch, linears[0])
    if inputs is None or errors is None or inputs.shape[1] != layers[0].fan_in:
        return None
    labels = torch.zeros(len(inputs), dtype=torch.int64).numpy()
    return predict(phi, layers, inputs.numpy(), labels, output_gradients=errors.numpy())


def _ends(
    network: nn.Module, loss_fn: Loss, batch: Batch, first: nn.Module
) -> tuple[Tensor | None, Tensor | None]:
    """Return what enters the first layer, and each picture's own dE/dlogits."""
    seen: list[Tensor] = []
    handle = first.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        output: Any = call(network, batch[0])
    finally:
        handle.remove()
    if not isinstance(output, Tensor) or output.ndim != 2 or not seen or seen[0].ndim != 2:
        return None, None
    leaf = output.detach().requires_grad_()
    (error,) = torch.autograd.grad(loss_fn(leaf, batch[1]), leaf)
    take = slice(0, MOST_PICTURES)
    return seen[0].detach()[take].cpu().double(), (error * len(error))[take].cpu().double()


def _units(module: nn.Module) -> int:
    return int(module.out_features)  # type: ignore[arg-type]


def _mean_square(values: Tensor | Any) -> float:
    if values is None:
        return 0.0
    return float(values.detach().double().square().mean())
