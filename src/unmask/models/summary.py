"""A network's structure: layers, shapes, parameters and multiply-adds."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from unmask.errors import UserError


@dataclass(frozen=True)
class LayerSummary:
    """One layer, in the order of computation.

    Args:
        name: its place in the network.
        kind: its class.
        detail: the settings it was made with.
        output: its output's shape without the batch.
        parameters: numbers it holds, frozen ones included.
        multiply_adds: products of a weight and an input for one image; 0 for layers that aren't
            convolutions or linear.
    """

    name: str
    kind: str
    detail: str
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int


@torch.no_grad()
def summarised(network: nn.Module, input_shape: tuple[int, ...]) -> list[LayerSummary]:
    """Return the network's layers in the order in which one image of zeros passes them.

    A layer is a module without modules inside it.

    Args:
        network: on any device; its mode is restored.
        input_shape: of an image, without the batch.

    Raises:
        UserError: the network doesn't take the shape.
    """
    layers: list[LayerSummary] = []
    names = {module: name for name, module in network.named_modules()}

    def note(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            shape = tuple(output.shape[1:])
            parameters = sum(p.numel() for p in module.parameters())
            kind = type(module).__name__
            work = _multiply_adds(module, shape)
            layers.append(
                LayerSummary(names[module], kind, module.extra_repr(), shape, parameters, work)
            )

    leaves = [m for m in network.modules() if not any(m.children())]
    handles = [leaf.register_forward_hook(note) for leaf in leaves]
    training = network.training
    try:
        device = next((p.device for p in network.parameters()), torch.device("cpu"))
        network.eval()(torch.zeros(1, *input_shape, device=device))
    except RuntimeError as error:
        raise UserError(
            f"the network doesn't take images of shape {list(input_shape)}",
            got=str(error).splitlines()[0],
        ) from error
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return layers


def _multiply_adds(module: nn.Module, output: tuple[int, ...]) -> int:
    if isinstance(module, nn.Linear):
        return module.in_features * prod(output)
    if isinstance(module, nn.Conv2d):
        return module.weight[0].numel() * prod(output)
    return 0
