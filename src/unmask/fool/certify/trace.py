"""The operations of a module, read node by node from its graph (torch.fx)."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from unmask.errors import UserError
from unmask.fool.certify.layers import (
    CURVES,
    LAYERS,
    NOTHING,
    POSITIVE,
    over_dimensions,
    pooled,
    reshaped,
)
from unmask.fool.certify.operations import (
    Affine,
    Elementwise,
    Joined,
    Maximum,
    Operation,
    Shape,
    Sum,
    mapped,
    scaled,
)
from unmask.fool.certify.relaxation import piecewise


@dataclass(frozen=True)
class Node:
    """An operation on the outputs of earlier nodes; None for the input.

    Args:
        name: in the module.
        operation: applied to the inputs.
        inputs: places of earlier nodes.
        shape: of its output, without the batch.
    """

    name: str
    operation: Operation | None
    inputs: tuple[int, ...]
    shape: Shape


def read_graph(graph: fx.Graph, module: nn.Module, shape: Shape, like: Tensor) -> tuple[Node, ...]:
    """Return the nodes that the logits depend on, the input first.

    Args:
        graph: of the module.
        module: in eval mode, whose parameters the operations use.
        shape: of one image.
        like: a tensor of the dtype and device to use.

    Raises:
        UserError: naming the first layer or operation whose bounds are unknown.
    """
    return _Reader(module, like).read(graph, shape)


class _Reader:
    """Reads a graph node by node, running a batch of two to find the shapes."""

    def __init__(self, module: nn.Module, like: Tensor) -> None:
        self.module = module
        self.like = like
        self.modules = dict(module.named_modules())
        self.nodes: list[Node] = []
        self.places: dict[fx.Node, int] = {}
        self.values: dict[fx.Node, Any] = {}

    def read(self, graph: fx.Graph, shape: Shape) -> tuple[Node, ...]:
        with torch.no_grad():
            for node in graph.nodes:
                if node.op == "output":
                    last = node.args[0]
                    break
                self._value(node, shape)
                self._place(node, shape)
        if not isinstance(last, fx.Node) or last not in self.places:
            raise UserError(
                "the model must return one tensor of logits", got=f"{last}", do="return them alone"
            )
        end = self.places[last]
        if len(self.nodes[end].shape) != 1:
            raise UserError(
                "the model must return one logit a class",
                got=f"a tensor of shape {list(self.nodes[end].shape)} an image",
                do="certify the classifier itself",
            )
        return _needed(self.nodes, end)

    def _value(self, node: fx.Node, shape: Shape) -> None:
        def known(part: Any) -> Any:
            return fx.node.map_arg(part, lambda n: self.values[n])

        if node.op == "placeholder":
            if self.places:
                raise UserError(
                    "the model takes more than one input", got=node.name, do="fix all but the image"
                )
            self.values[node] = torch.full((2, *shape), 0.5).to(self.like)
            return
        try:
            if node.op == "get_attr":
                self.values[node] = operator.attrgetter(str(node.target))(self.module)
            elif node.op == "call_module":
                self.values[node] = self.modules[str(node.target)](*known(node.args))
            elif node.op == "call_function":
                assert callable(node.target)
                self.values[node] = node.target(*known(node.args), **known(node.kwargs))
            else:
                owner, *rest = known(node.args)
                self.values[node] = getattr(owner, str(node.target))(*rest, **known(node.kwargs))
        except Exception as error:
            raise UserError(
                f"the model doesn't run on images of shape {list(shape)}",
                got=f"{type(error).__name__} in {node.name}",
                do="give the images that it was trained on",
            ) from error

    def _place(self, node: fx.Node, shape: Shape) -> None:
        if node.op == "placeholder":
            self.nodes.append(Node("input", None, (), shape))
            self.places[node] = 0
            return
        given = [n for n in node.all_input_nodes if n in self.places]
        value = self.values[node]
        if not given or not isinstance(value, Tensor) or not value.is_floating_point():
            return
        if value.ndim < 2 or len(value) != 2:
            raise self._unsupported(node, "it mixes the images of a batch")
        after = tuple(value.shape[1:])
        before = self.nodes[self.places[given[0]]].shape
        operation = self._operation(node, before, after)
        if operation is None:
            self.places[node] = self.places[given[0]]
            return
        ordered = [n for n in _flat(node.args) if n in self.places]
        if isinstance(operation, (Affine, Elementwise, Maximum)) and len(ordered) != 1:
            raise self._unsupported(node, "it takes several tensors")
        self.nodes.append(
            Node(self._name(node), operation, tuple(self.places[n] for n in ordered), after)
        )
        self.places[node] = len(self.nodes) - 1

    def _operation(self, node: fx.Node, before: Shape, after: Shape) -> Operation | None:
        """Return a node's operation; None where it does nothing."""
        if node.op == "call_module":
            layer = self.modules[str(node.target)]
            for kind, make in LAYERS.items():
                if type(layer) is kind:
                    made: Operation | None = make(layer, before, after, self.like)
                    if made is None and type(layer) not in NOTHING:
                        raise self._unsupported(node, "these settings")
                    return made
            raise self._unsupported(node)
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        # What functional.relu and its like say of where they write is no setting.
        settings = {k: v for k, v in node.kwargs.items() if k != "inplace"}
        if name in CURVES and len(node.args) == 1 and not settings:
            return Elementwise(CURVES[name])
        if name in ("dropout", "contiguous", "float", "double"):
            return None
        if name in ("add", "iadd", "sub", "isub", "mul", "imul", "truediv", "div", "add_", "neg"):
            return self._arithmetic(node, name, after)
        if name == "cat":
            return self._joined(node)
        if name in ("max_pool2d", "amax"):
            return self._maximum(node, name, before, after)
        if name in ("view", "reshape", "flatten", "unflatten"):
            return reshaped(before, after, self.like)
        if name in POSITIVE:
            return self._positive(node, before)
        if name == "leaky_relu":
            slope = node.kwargs.get("negative_slope", node.args[1] if len(node.args) > 1 else 0.01)
            if isinstance(slope, (int, float)) and 0 <= slope <= 1:
                return Elementwise(piecewise(float(slope), 1.0))
        raise self._unsupported(node)

    def _arithmetic(self, node: fx.Node, name: str, after: Shape) -> Operation:
        if name == "neg":
            return scaled(-1.0)
        if len(node.args) != 2 or node.kwargs:
            raise self._unsupported(node, "these settings")
        tensors = [a for a in node.args if isinstance(a, fx.Node) and a in self.places]
        name = {"iadd": "add", "add_": "add", "isub": "sub", "imul": "mul", "div": "truediv"}.get(
            name, name
        )
        if len(tensors) == 2:
            shapes = {self.nodes[self.places[a]].shape for a in tensors}
            if name not in ("add", "sub") or len(shapes) != 1:
                raise self._unsupported(node, "two tensors that both depend on the image")
            return Sum((1.0, 1.0 if name == "add" else -1.0))
        first = isinstance(node.args[0], fx.Node) and node.args[0] in self.places
        constant = node.args[1] if first else node.args[0]
        if isinstance(constant, fx.Node):
            constant = self.values[constant]
        if isinstance(constant, (int, float)):
            constant = torch.as_tensor(constant).to(self.like)
        if not isinstance(constant, Tensor) or self.nodes[self.places[tensors[0]]].shape != after:
            raise self._unsupported(node, "these settings")
        constant = constant.to(self.like.dtype)
        if constant.ndim > len(after):
            if len(constant) != 1:
                raise self._unsupported(node, "a constant for each image of the batch")
            constant = constant[0]
        if name == "add":
            return scaled(1.0, constant)
        if name == "sub":
            return scaled(1.0, -constant) if first else scaled(-1.0, constant)
        if name == "mul":
            return scaled(constant)
        if name == "truediv" and first:
            return scaled(1 / constant)
        raise self._unsupported(node)

    def _joined(self, node: fx.Node) -> Operation:
        parts = node.args[0]
        assert isinstance(parts, Sequence)
        dimension = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        assert isinstance(dimension, int)
        if not all(isinstance(p, fx.Node) and p in self.places for p in parts):
            raise self._unsupported(node, "a constant beside tensors")
        dimension = dimension % self.values[node].ndim
        if dimension == 0:
            raise self._unsupported(node, "it mixes the images of a batch")
        sizes = tuple(self.values[p].shape[dimension] for p in _flat(parts))
        return Joined(dimension - 1, sizes)

    def _maximum(self, node: fx.Node, name: str, before: Shape, after: Shape) -> Operation:
        if name == "amax":
            dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
            dims = (dims,) if isinstance(dims, int) else dims
            if not isinstance(dims, Sequence) or not dims:
                raise self._unsupported(node, "these settings")
            return over_dimensions(
                [d for d in dims if isinstance(d, int)], before, after, self.like
            )
        settings: dict[str, Any] = dict(
            zip(
                ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
                node.args[1:],
                strict=False,
            )
        )
        settings |= node.kwargs
        settings.pop("return_indices", None)
        made = pooled(nn.MaxPool2d(**settings), before, after, self.like)
        if made is None:
            raise self._unsupported(node, "these settings")
        return made

    def _positive(self, node: fx.Node, before: Shape) -> Operation:
        """Return a linear function without negative coefficients that the graph calls."""
        args = fx.node.map_arg(node.args[1:], lambda n: self.values[n])
        kwargs = fx.node.map_arg(node.kwargs, lambda n: self.values[n])
        target = node.target

        def function(x: Tensor) -> Tensor:
            if isinstance(target, str):
                found: Tensor = getattr(x, target)(*args, **kwargs)
            else:
                assert callable(target)
                found = target(x, *args, **kwargs)
            return found

        count = 1
        for side in before:
            count *= side
        return mapped(function, before, self.like, terms=count)

    def _name(self, node: fx.Node) -> str:
        return str(node.target) if node.op == "call_module" else node.name

    def _unsupported(self, node: fx.Node, why: str = "") -> UserError:
        if node.op == "call_module":
            layer = self.modules[str(node.target)]
            settings = f"({layer.extra_repr()})" if why else ""
            what = f"the layer {node.target}, {type(layer).__name__}{settings}"
        else:
            what = f"the operation {node.name}" + (f": {why}" if why else "")
        return UserError(
            f"no bounds are known for {what}",
            do="put a linear, convolution, pooling, batch norm or known activation in its place, "
            "or measure the model with unmask fool audit",
        )


def _flat(args: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg(args, found.append)
    return found


def _needed(nodes: list[Node], end: int) -> tuple[Node, ...]:
    """Return the nodes that the logits depend on, renumbered."""
    wanted = {0, end}
    for place in range(end, 0, -1):
        if place in wanted:
            wanted.update(nodes[place].inputs)
    new = {place: i for i, place in enumerate(sorted(wanted))}
    return tuple(
        Node(n.name, n.operation, tuple(new[i] for i in n.inputs), n.shape)
        for n in (nodes[place] for place in sorted(wanted))
    )
