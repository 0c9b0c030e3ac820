"""The operations of a module, read node by node from its graph (torch.fx)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from unmask.errors import UserError
from unmask.fool.certify.graph import called, layer_name, nodes_in, reads_shape, value_of
from unmask.fool.certify.layers import (
    ARITHMETIC,
    CONSTANT,
    CURVES,
    FUNCTIONS,
    LAYERS,
    NOTHING,
    PARTS,
    POSITIVE,
    UNCHANGED,
    clipped,
    convolution,
    over_dimensions,
    reshaped,
)
from unmask.fool.certify.operations import (
    Affine,
    Elementwise,
    Joined,
    Maximum,
    Node,
    Operation,
    Shape,
    linear,
    mapped,
    scaled,
)
from unmask.fool.certify.pairs import PAIRS, SQUARE
from unmask.models.answer import only_tensor

_SOFTMAX = ("softmax", "log_softmax")


def nothing(logits: Tensor) -> Tensor:
    """Return the logits as they are."""
    return logits


def read_graph(
    graph: fx.Graph, module: nn.Module, like: Tensor
) -> tuple[tuple[Node, ...], Callable[[Tensor], Tensor]]:
    """Return the nodes that the logits depend on, the input first, and what follows the logits.

    Args:
        graph: of the module, see traced.
        module: in eval mode, whose parameters the operations use.
        like: a tensor of the dtype and device to use.

    Raises:
        UserError: naming the first layer or operation whose bounds are unknown.
    """
    return _Reader(module, like).read(graph)


class _Reader:
    """Reads a graph node by node."""

    def __init__(self, module: nn.Module, like: Tensor) -> None:
        self.like = like
        self.modules = dict(module.named_modules())
        self.nodes: list[Node] = []
        self.places: dict[fx.Node, int] = {}
        # What depends on the image and has no bounds, until an operation uses it.
        self.lost: dict[fx.Node, UserError] = {}

    def read(self, graph: fx.Graph) -> tuple[tuple[Node, ...], Callable[[Tensor], Tensor]]:
        with torch.no_grad():
            for node in graph.nodes:
                if node.op == "output":
                    last = self._answer(node.args[0])
                    break
                self._place(node)
        head, last = self._ending(last) or (nothing, last)
        if last in self.lost:
            raise self.lost[last]
        if last not in self.places:
            raise UserError(
                "the model's logits don't depend on the image", got=last.name, do="return them"
            )
        end = self.places[last]
        if self.nodes[end].shape == (1,):
            # One logit of two classes is that of the second, beside 0.
            self.nodes.append(Node("two classes", self._second(), (end,), (2,)))
            end = len(self.nodes) - 1
        if len(self.nodes[end].shape) != 1:
            raise UserError(
                "the model must return one logit a class",
                got=f"a tensor of shape {list(self.nodes[end].shape)} an image",
                do="certify the classifier itself",
            )
        return _needed(self.nodes, end), head

    def _answer(self, returned: Any) -> fx.Node:
        """Return the node of the logits among what the model returns."""
        if isinstance(returned, fx.Node):
            return returned
        nodes = nodes_in(returned)
        tensor = only_tensor(fx.node.map_arg(returned, value_of), 2, None)
        return next(n for n in nodes if value_of(n) is tensor)

    def _second(self) -> Operation:
        weight = torch.zeros(2, 1).to(self.like)
        weight[1] = 1
        return linear(weight, None)

    def _ending(self, node: fx.Node) -> tuple[Callable[[Tensor], Tensor], fx.Node] | None:
        """Return a softmax over the classes that ends the model, and the node of its logits."""
        layer = self.modules.get(str(node.target)) if node.op == "call_module" else None
        name = getattr(node.target, "__name__", str(node.target)) if layer is None else ""
        if not isinstance(layer, (nn.Softmax, nn.LogSoftmax)) and name not in _SOFTMAX:
            return None
        named = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        over = getattr(layer, "dim", named)
        source = node.args[0]
        if over not in (1, -1, None) or not isinstance(source, fx.Node) or value_of(node).ndim != 2:
            return None
        logs = isinstance(layer, nn.LogSoftmax) or name == "log_softmax"
        return (lambda x: x.log_softmax(1)) if logs else (lambda x: x.softmax(1)), source

    def _place(self, node: fx.Node) -> None:
        value = value_of(node)
        if node.op == "placeholder":
            self.nodes.append(Node("input", None, (), tuple(value.shape[1:])))
            self.places[node] = 0
            return
        if reads_shape(node) or called(node) in CONSTANT:
            return
        if called(node) in ("to", "type_as") and node.args[0] not in self.places:
            # A constant, whatever it takes its type from.
            return
        taken = self._part(node)
        given = [taken] if taken else [n for n in node.all_input_nodes if n in self.places]
        lost = [] if taken else [n for n in node.all_input_nodes if n in self.lost]
        if lost:
            self.lost[node] = self.lost[lost[0]]
        elif given:
            try:
                self._append(node, given, taken is not None)
            except UserError as error:
                self.lost[node] = error

    def _append(self, node: fx.Node, given: list[fx.Node], part: bool) -> None:
        """Append the operation of a node.

        Args:
            node: that depends on the image.
            given: the nodes before it that have places.
            part: whether it takes one of several tensors that its input is.
        """
        value = value_of(node)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise self._unsupported(node)
        if value.ndim < 2 or len(value) != 2:
            raise self._unsupported(node, "it mixes the images of a batch")
        after = tuple(value.shape[1:])
        before = self.nodes[self.places[given[0]]].shape
        if self._ending(node) is not None:
            # Known where it ends the model alone.
            raise self._unsupported(node)
        if not part and self._pair(node, after):
            return
        operation = self._operation(node, before, after)
        if operation is None:
            self.places[node] = self.places[given[0]]
            return
        ordered = given if part else [n for n in nodes_in(node.args) if n in self.places]
        if isinstance(operation, (Affine, Elementwise, Maximum)) and len(ordered) != 1:
            raise self._unsupported(node, "it takes several tensors")
        self.nodes.append(
            Node(self._name(node), operation, tuple(self.places[n] for n in ordered), after)
        )
        self.places[node] = len(self.nodes) - 1

    def _pair(self, node: fx.Node, after: Shape) -> bool:
        """Append an operation of two tensors, and return whether it is one."""
        name = ARITHMETIC.get(called(node), called(node).removesuffix("imum"))
        tensors = [a for a in node.args if isinstance(a, fx.Node) and a in self.places]
        if name not in PAIRS or len(tensors) != 2 or len(node.args) != 2:
            return False
        if node.kwargs:
            raise self._unsupported(node, "these settings")
        places = [self._expanded(node, self.places[t], after) for t in tensors]
        steps = PAIRS[name]
        if name == "mul" and tensors[0] is tensors[1]:
            steps = ((SQUARE, (0,)),)
        for operation, taken in steps:
            inputs = tuple(places[i] for i in taken)
            self.nodes.append(Node(self._name(node), operation, inputs, after))
            places.append(len(self.nodes) - 1)
        self.places[node] = places[-1]
        return True

    def _expanded(self, node: fx.Node, place: int, after: Shape) -> int:
        """Return the place of a tensor in the shape to which an operation broadcasts it."""
        before = self.nodes[place].shape
        if before == after:
            return place
        if len(before) != len(after):
            raise self._unsupported(node, "tensors of different dimensions")
        wider = mapped(lambda x: x.expand(len(x), *after), before, self.like, terms=1)
        self.nodes.append(Node(self._name(node), wider, (place,), after))
        return len(self.nodes) - 1

    def _part(self, node: fx.Node) -> fx.Node | None:
        """Return the tensor of which a node takes one of several parts, or None."""
        whole = node.args[0] if node.args else None
        if called(node) not in ("getitem", "getattr") or not isinstance(whole, fx.Node):
            return None
        several = isinstance(value_of(whole), tuple | list) and whole.args
        source = whole.args[0] if several else None
        known = called(whole) in (*PARTS, "max", "min")
        return source if known and isinstance(source, fx.Node) and source in self.places else None

    def _operation(self, node: fx.Node, before: Shape, after: Shape) -> Operation | None:
        """Return a node's operation; None where it does nothing."""
        if node.op == "call_module":
            return self._layer(node, self.modules[str(node.target)], before, after)
        name = called(node)
        # What functional.relu and its like say of where they write is no setting.
        settings = {k: v for k, v in node.kwargs.items() if k != "inplace"}
        if name.rstrip("_") in CURVES and len(node.args) == 1 and not settings:
            return Elementwise(CURVES[name.rstrip("_")])
        if name in UNCHANGED:
            return None
        if name == "square" or (name in ("pow", "pow_") and node.args[1:] == (2,)):
            return SQUARE
        if name in ARITHMETIC:
            return self._arithmetic(node, ARITHMETIC[name], after)
        if name.rstrip("_") in FUNCTIONS:
            kind, names = FUNCTIONS[name.rstrip("_")]
            given = dict(zip(names, fx.node.map_arg(node.args[1:], value_of), strict=False))
            made = kind(**{**given, **settings}).eval()
            return self._layer(node, made, before, after)
        if name.rstrip("_") in ("clamp", "clip", "clamp_min", "clamp_max"):
            return self._clipped(node, name.rstrip("_"))
        if name in ("linear", "matmul", "conv1d", "conv2d", "conv3d"):
            return self._weighted(node, name, before, after)
        if name == "cat":
            return self._joined(node)
        if name in ("amax", "getitem", "getattr") and (name == "amax" or self._part(node)):
            return self._maximum(node, name, before, after)
        if name in ("view", "reshape", "flatten", "unflatten"):
            return reshaped(before, after, self.like)
        if name in POSITIVE and settings.get("mode") != "bicubic":
            return self._positive(node, before)
        raise self._unsupported(node)

    def _layer(
        self, node: fx.Node, layer: nn.Module, before: Shape, after: Shape
    ) -> Operation | None:
        make = LAYERS.get(type(layer))
        if make is None:
            raise self._unsupported(node)
        made = make(layer, before, after, self.like)
        if made is None and type(layer) not in NOTHING:
            raise self._unsupported(node, "these settings")
        return made

    def _clipped(self, node: fx.Node, name: str) -> Operation:
        names = {"clamp_min": ("min",), "clamp_max": ("max",)}.get(name, ("min", "max"))
        ends = {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}
        low, high = ends.get("min"), ends.get("max")
        low, high = -math.inf if low is None else low, math.inf if high is None else high
        if not isinstance(low, (int, float)) or not isinstance(high, (int, float)) or low > high:
            raise self._unsupported(node, "these settings")
        return Elementwise(clipped(float(low), float(high)))

    def _weighted(self, node: fx.Node, name: str, before: Shape, after: Shape) -> Operation:
        """Return a product with weights that don't depend on the image."""
        names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
        given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
        if name == "matmul" and "other" in given:
            given["weight"] = given.pop("other")
        source = given.pop("input", None)
        if source not in self.places or any(n in self.places for n in nodes_in(given)):
            raise self._unsupported(node, "two tensors that both depend on the image")
        known: dict[str, Any] = {k: fx.node.map_arg(v, value_of) for k, v in given.items()}
        weight = known.get("weight")
        if not isinstance(weight, Tensor) or (name in ("linear", "matmul") and weight.ndim != 2):
            raise self._unsupported(node, "these settings")
        if name == "matmul":
            return linear(weight.T, None)
        if name == "linear":
            return linear(weight, known.get("bias"))
        made = convolution(int(name[4]), known, before, after, self.like)
        if made is None:
            raise self._unsupported(node, "these settings")
        return made

    def _arithmetic(self, node: fx.Node, name: str, after: Shape) -> Operation:
        if name == "neg":
            return scaled(-1.0)
        if len(node.args) != 2 or node.kwargs:
            raise self._unsupported(node, "these settings")
        tensors = [a for a in node.args if isinstance(a, fx.Node) and a in self.places]
        if len(tensors) == 2:
            raise self._unsupported(node, "two tensors that both depend on the image")
        first = isinstance(node.args[0], fx.Node) and node.args[0] in self.places
        constant = node.args[1] if first else node.args[0]
        if isinstance(constant, fx.Node):
            constant = value_of(constant)
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
        dimension = dimension % value_of(node).ndim
        if dimension == 0:
            raise self._unsupported(node, "it mixes the images of a batch")
        sizes = tuple(value_of(p).shape[dimension] for p in nodes_in(parts))
        return Joined(dimension - 1, sizes)

    def _maximum(self, node: fx.Node, name: str, before: Shape, after: Shape) -> Operation:
        """Return the maximum over dimensions, or one of the parts of a tensor."""
        whole = node
        if name != "amax":
            assert isinstance(node.args[0], fx.Node)
            whole, part = node.args[0], node.args[1]
            if called(whole) != "max":
                if called(whole) == "min" or not isinstance(part, int):
                    raise self._unsupported(whole)
                return self._positive(whole, before, part)
            if part not in (0, "values"):
                raise self._unsupported(whole, "the places of the maxima")
        dims = whole.kwargs.get("dim", whole.args[1] if len(whole.args) > 1 else None)
        dims = (dims,) if isinstance(dims, int) else dims
        if not isinstance(dims, Sequence) or not dims:
            raise self._unsupported(whole, "these settings")
        return over_dimensions([d for d in dims if isinstance(d, int)], before, after, self.like)

    def _positive(self, node: fx.Node, before: Shape, part: int | None = None) -> Operation:
        """Return a linear function without negative coefficients that the graph calls.

        Args:
            node: its call.
            before: the shape of its input.
            part: which of the tensors that it returns is meant; None where it returns one.
        """
        # A batch's size was read from two images, and other batches come.
        if any(reads_shape(n) for n in node.all_input_nodes):
            raise self._unsupported(node, "it depends on the size of the batch")
        args = fx.node.map_arg(node.args[1:], value_of)
        kwargs = fx.node.map_arg(node.kwargs, value_of)
        target = node.target

        def function(x: Tensor) -> Tensor:
            if isinstance(target, str):
                found = getattr(x, target)(*args, **kwargs)
            else:
                assert callable(target)
                found = target(x, *args, **kwargs)
            whole: Tensor = found if part is None else found[part]
            return whole

        count = 1
        for side in before:
            count *= side
        with torch.no_grad():
            # Zero but where a padding has another value.
            bias = function(self.like.new_zeros(2, *before))[0]
            pair = torch.linspace(0, 1, 2 * count).to(self.like).reshape(2, *before)
            if not torch.equal(function(pair)[:1], function(pair[:1])):
                raise self._unsupported(node, "it mixes the images of a batch")
        if not bool(bias.any()):
            return mapped(function, before, self.like, terms=count)
        return mapped(
            lambda x: function(x) - bias,
            before,
            self.like,
            bias=bias,
            terms=count + 1,
        )

    def _name(self, node: fx.Node) -> str:
        return layer_name(node) if node.op == "call_module" else node.name

    def _unsupported(self, node: fx.Node, why: str = "") -> UserError:
        if node.op == "call_module":
            layer = self.modules[str(node.target)]
            settings = f"({layer.extra_repr()})" if why else ""
            what = f"the layer {layer_name(node)}, {type(layer).__name__}{settings}"
        else:
            what = f"the operation {node.name}" + (f": {why}" if why else "")
        return UserError(
            f"no bounds are known for {what}",
            do="put a linear, convolution, pooling, batch norm or known activation in its place, "
            "or measure the model with unmask fool audit",
        )


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
