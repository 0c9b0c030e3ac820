"""Facts that a tensor's graph shows: the operation it ends in, a difference that was broadcast."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

_OPERATIONS = {
    "SoftmaxBackward0": "softmax",
    "LogSoftmaxBackward0": "log_softmax",
    "SigmoidBackward0": "sigmoid",
    "TanhBackward0": "tanh",
    "ReluBackward0": "relu",
    "HardtanhBackward0": "hardtanh",
    "GeluBackward0": "gelu",
    "SiluBackward0": "silu",
    "SoftplusBackward0": "softplus",
}
# The values that an operation's results are limited to.
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("softmax", "sigmoid"), (0.0, 1.0)),
    **dict.fromkeys(("tanh", "hardtanh"), (-1.0, 1.0)),
    **dict.fromkeys(("relu", "softplus"), (0.0, math.inf)),
    "log_softmax": (-math.inf, 0.0),
}
# Operations that pass on their input, or only reshape or cut it off.
_SHAPES = (
    *("View", "Reshape", "UnsafeView", "Squeeze", "Unsqueeze", "Transpose", "TBackward", "Permute"),
    *("Select", "Slice", "ToCopy", "Clone", "Alias", "Expand", "AsStrided", "Clamp"),
)
_PRODUCTS = ("MmBackward0", "BmmBackward0")
_NORMS = ("LinalgVectorNormBackward0", "NormBackward")
# Of two tensors one of which is broadcast, looked for in the last operations before a loss.
_PAIRED = ("SubBackward0", "RsubBackward1", "MulBackward0")
_NEAR = 40


class LastOperation(NamedTuple):
    """The operation that a tensor ends in, where it is one that a loss may not be fed.

    Args:
        name: an activation, such as "softmax" or "relu"; "scores" for a linear or convolutional
            layer; "cosine" for products of vectors of length 1, or None.
        dim: that a softmax is taken over, at least 0.
        width: the number of entries that it is taken over.
        scale: that cosines were multiplied by, at most 1.
    """

    name: str | None = None
    dim: int | None = None
    width: int | None = None
    scale: float = 1.0


def last_operation(tensor: Tensor) -> LastOperation:
    """Return the operation that made a tensor.

    Operations that only reshape, copy, cast or clamp a tensor are skipped.

    Args:
        tensor: with its graph.
    """
    node = skipped(tensor.grad_fn)
    if node is None:
        return LastOperation()
    name = node.name()
    if name in _OPERATIONS:
        dim = getattr(node, "_saved_dim", None)
        if dim is None:
            return LastOperation(_OPERATIONS[name])
        dim, shape = _signed(dim), shape_of(node)
        width = shape[dim] if shape and -len(shape) <= dim < len(shape) else None
        return LastOperation(_OPERATIONS[name], dim + (len(shape) if dim < 0 else 0), width)
    if name == "ConvolutionBackward0" or (name == "AddmmBackward0" and _weighs(node)):
        return LastOperation("scores")
    scale, node = _scaled(node)
    if scale > 1 or node is None or node.name() not in _PRODUCTS:
        return LastOperation()
    if all(_of_length_one(parent) for parent, _ in node.next_functions):
        return LastOperation("cosine", scale=scale)
    return LastOperation()


def _scaled(node: Any) -> tuple[float, Any]:
    """Return the fixed factor on a tensor, and the operation before it."""
    scale = 1.0
    while node is not None and node.name() in ("MulBackward0", "DivBackward0"):
        factor = getattr(node, "_saved_other", None)
        if factor is None or factor.numel() != 1 or node.next_functions[1][0] is not None:
            break
        by = abs(float(factor))
        scale *= by if node.name() == "MulBackward0" else 1 / by if by else math.inf
        node = skipped(node.next_functions[0][0])
    return scale, node


def skipped(node: Any, operations: tuple[str, ...] = _SHAPES) -> Any:
    """Return the operation before those that pass on their input, or only reshape or cut it off.

    Args:
        node: of the graph, or None.
        operations: the beginnings of the names of those that are skipped.
    """
    while node is not None and node.name().startswith(operations):
        node = node.next_functions[0][0] if node.next_functions else None
    return node


def _weighs(product: Any) -> bool:
    """Return whether a matrix product's second factor is a trained weight."""
    weight = skipped(product.next_functions[-1][0])
    return weight is not None and weight.name().endswith("AccumulateGrad")


def _of_length_one(node: Any) -> bool:
    """Return whether vectors were divided by their lengths."""
    node = skipped(node)
    if node is None or node.name() != "DivBackward0" or len(node.next_functions) < 2:
        return False
    length = skipped(node.next_functions[1][0])
    return length is not None and length.name().startswith(_NORMS)


def broadcast_in(loss: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the two shapes of a loss computed by hand in which (n, 1) meets (n), or None.

    A difference of outputs and constant targets, or their product with constant weights, then has
    shape (n, n), though the outputs have shape (n, 1) or (n). Where both sides carry a gradient,
    pairs are meant.

    Args:
        loss: with its graph; the last few operations are searched.
    """
    todo: list[Any] = [loss.grad_fn] if loss.grad_fn is not None else []
    for node in todo:
        parents = [parent for parent, _ in node.next_functions if parent is not None]
        name = node.name()
        made = shape_of(node) if name in _PAIRED and len(parents) == 1 else ()
        n = made[0] if made else 0
        if n > 1 and made == (n, n):
            given = shape_of(parents[0])
            other = (n,) if given == (n, 1) else (n, 1)
            # A table of n x n, by which outputs are multiplied, is one of pairs already.
            if given in ((n, 1), (n,)) and _kept_shape(node) in (None, other):
                return given, other
        todo += parents if len(todo) < _NEAR else []
    return None


def _kept_shape(node: Any) -> tuple[int, ...] | None:
    """Return the shape of the constant that a product keeps for its gradient, None for others."""
    if node.name() != "MulBackward0":
        return None
    kept = [x for x in (node._saved_self, node._saved_other) if x is not None]
    return tuple(kept[0].shape) if kept else None


def scrambled_in(tensor: Tensor) -> tuple[int, ...] | None:
    """Return the shape of scores whose classes a view mixed with their places, or None.

    A convolution's classes are dimension 1, a linear layer's the last; rows of them, for a loss of
    shape (places, classes), need the classes last before the view.

    Args:
        tensor: what a loss is fed, float[places, classes], with its graph.
    """
    node: Any = tensor.grad_fn
    path: list[Any] = []
    while node is not None and node.name().startswith((*_SHAPES, "LogSoftmax", "Softmax")):
        path.append(node)
        node = node.next_functions[0][0] if node.next_functions else None
    if node is None or node.name() not in ("ConvolutionBackward0", "AddmmBackward0"):
        return None
    shape = shape_of(node)
    at = 1 if node.name() == "ConvolutionBackward0" else len(shape) - 1
    if tensor.ndim != 2 or len(shape) <= at or shape[at] != tensor.shape[1]:
        return None
    for node in reversed(path):
        made = shape_of(node)
        name = node.name()
        if name.startswith("Permute"):
            at = [d % len(shape) for d in map(_signed, node._saved_dims)].index(at)
        elif name.startswith("Transpose"):
            a, b = (_signed(d) % len(shape) for d in (node._saved_dim0, node._saved_dim1))
            at = b if at == a else a if at == b else at
        elif made != shape:
            if not name.startswith(("View", "Reshape", "UnsafeView")):
                return None
            if at == len(shape) - 1:
                if made[-1] != shape[at]:
                    return None
                at = len(made) - 1
            elif made[: at + 1] != shape[: at + 1]:
                return shape if made[-1] == tensor.shape[1] else None
        shape = made
    return None


def _signed(dim: int) -> int:
    # Saved as an unsigned number: the last dimension is 2^64 - 1.
    return dim - (1 << 64) if dim >= 1 << 63 else dim


def shape_of(node: Any) -> tuple[int, ...]:
    """Return the shape of what an operation of the graph made, () where it isn't known."""
    known = node._input_metadata
    return tuple(int(n) for n in known[0].shape) if known else ()
