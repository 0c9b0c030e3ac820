"""A network as a list of operations whose bounds are known, read from its module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.fool.certify.graph import alone, copied, traced
from unmask.fool.certify.operations import (
    Affine,
    Elementwise,
    Interval,
    Joined,
    Maximum,
    Node,
    Shape,
    Sum,
)
from unmask.fool.certify.trace import nothing, read_graph


@dataclass(frozen=True)
class Network:
    """Nodes in an order in which inputs come first; the first is the input, the last the logits.

    Args:
        nodes: the operations.
        like: a tensor of the dtype and device that bounds are computed in.
        head: what the model makes of the logits: a softmax, which keeps their order, or nothing.
    """

    nodes: tuple[Node, ...]
    like: Tensor
    head: Callable[[Tensor], Tensor] = nothing

    @property
    def shape(self) -> Shape:
        """The shape of one image."""
        return self.nodes[0].shape

    @property
    def classes(self) -> int:
        """The number of logits."""
        return self.nodes[-1].shape[0]

    @property
    def bent(self) -> tuple[int, ...]:
        """The places of the nodes that aren't affine, in order."""
        return tuple(
            i
            for i, node in enumerate(self.nodes)
            if isinstance(node.operation, (Elementwise, Maximum))
        )

    def logits(self, images: Tensor) -> Tensor:
        """Return what the operations make of images, float[b, classes].

        Args:
            images: float[b, *shape], of the dtype of like.
        """
        values = [images]
        for node in self.nodes[1:]:
            operation, given = node.operation, [values[place] for place in node.inputs]
            if isinstance(operation, Affine):
                value = operation.apply(given[0]) + operation.bias
            elif isinstance(operation, Elementwise):
                value = operation.curve.activation.function(given[0])
            elif isinstance(operation, Maximum):
                value = operation.interval(Interval(given[0], given[0])).lower
            elif isinstance(operation, Sum):
                value = torch.stack(
                    [sign * x for sign, x in zip(operation.signs, given, strict=True)]
                ).sum(0)
            else:
                assert isinstance(operation, Joined)
                value = torch.cat(given, operation.dimension + 1)
            values.append(value)
        return values[-1]

    @staticmethod
    def of(module: nn.Module, shape: Shape, dtype: torch.dtype | None = torch.float64) -> Network:
        """Return the operations of a module in eval mode.

        Args:
            module: float[b, *shape] to logits float[b, classes].
            shape: of one image.
            dtype: of the computation, on a copy of the module; None uses the module's own
                parameters, so that bounds have gradients with respect to them.

        Raises:
            UserError: naming the first layer whose bounds are unknown, or when the module is in
                training mode or can't be traced.
        """
        if any(m.training for m in module.modules() if _differs_in_training(m)):
            raise UserError(
                "the model is in training mode",
                got="batch norm or dropout that changes from batch to batch",
                do="call model.eval() first",
            )
        if dtype is not None:
            module = copied(module, dtype)
        module = alone(module)
        parameter = next(iter(module.parameters()), None)
        like = torch.zeros((), dtype=dtype or torch.float32) if parameter is None else parameter
        like = like.detach().new_zeros(())
        nodes, head = read_graph(traced(module, shape, like), module, like)
        return Network(nodes, like, head)


def _differs_in_training(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd))
