"""A network as a list of operations whose bounds are known, read from its module by torch.fx."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from unmask.errors import UserError
from unmask.fool.certify.operations import (
    Affine,
    Elementwise,
    Joined,
    Maximum,
    Operation,
    Shape,
    Sum,
    linear,
    mapped,
    scaled,
)
from unmask.fool.certify.relaxation import Curve, piecewise, smooth


@dataclass(frozen=True)
class Node:
    """An operation on the outputs of earlier nodes; None for the input.

    Args:
        name: as the module calls it.
        operation: what it does.
        inputs: places of earlier nodes.
        shape: of its output, without the batch.
    """

    name: str
    operation: Operation | None
    inputs: tuple[int, ...]
    shape: Shape


@dataclass(frozen=True)
class Network:
    """Nodes in an order in which each comes after its inputs: the first the input, the last logits.

    Args:
        nodes: the operations.
        like: a tensor of the type and device that bounds are worked out in.
    """

    nodes: tuple[Node, ...]
    like: Tensor

    @property
    def shape(self) -> Shape:
        """The shape of one image."""
        return self.nodes[0].shape

    @property
    def classes(self) -> int:
        """How many logits there are."""
        return self.nodes[-1].shape[0]

    @property
    def bent(self) -> tuple[int, ...]:
        """The places of the nodes that aren't affine, in order."""
        return tuple(
            i
            for i, node in enumerate(self.nodes)
            if isinstance(node.operation, (Elementwise, Maximum))
        )

    @staticmethod
    def of(module: nn.Module, shape: Shape, dtype: torch.dtype | None = torch.float64) -> Network:
        """Return the operations of a module in eval mode.

        Args:
            module: float[b, *shape] to logits float[b, classes].
            shape: of one image.
            dtype: to work in, on a copy of the module; None works on the module's own parameters,
                so that bounds have gradients by them.

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
            module = copy.deepcopy(module).to(dtype).requires_grad_(requires_grad=False)
        if fx.Tracer().is_leaf_module(module, ""):
            module = nn.Sequential(module)
        parameter = next(iter(module.parameters()), None)
        like = torch.zeros((), dtype=dtype or torch.float32) if parameter is None else parameter
        like = like.detach().new_zeros(())
        try:
            graph = fx.Tracer().trace(module)
        except Exception as error:
            raise UserError(
                "the model can't be traced: its forward depends on the values that it is given",
                got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                do="write its forward without branches on tensors, or certify its parts",
            ) from error
        return _Reader(module, like).read(graph, shape)


class _Reader:
    """Reads a graph node by node, with the values of a batch of two to know the shapes by."""

    def __init__(self, module: nn.Module, like: Tensor) -> None:
        self.module = module
        self.like = like
        self.modules = dict(module.named_modules())
        self.nodes: list[Node] = []
        self.places: dict[fx.Node, int] = {}
        self.values: dict[fx.Node, Any] = {}

    def read(self, graph: fx.Graph, shape: Shape) -> Network:
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
        return Network(_needed(self.nodes, end), self.like)

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
        """Return what a node does; None where it does nothing."""
        if node.op == "call_module":
            layer = self.modules[str(node.target)]
            for kind, make in _LAYERS.items():
                if type(layer) is kind:
                    made: Operation | None = make(layer, before, after, self.like)
                    if made is None and type(layer) not in _NOTHING:
                        raise self._unsupported(node, "these settings")
                    return made
            raise self._unsupported(node)
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        if name in _CURVES and len(node.args) == 1 and not node.kwargs:
            return Elementwise(_CURVES[name])
        if name in ("dropout", "contiguous", "float", "double"):
            return None
        if name in ("add", "iadd", "sub", "isub", "mul", "imul", "truediv", "div", "add_", "neg"):
            return self._arithmetic(node, name, after)
        if name == "cat":
            return self._joined(node)
        if name in ("max_pool2d", "amax"):
            return self._maximum(node, name, before, after)
        if name in ("view", "reshape", "flatten", "unflatten"):
            return _reshaped(before, after, self.like)
        if name in _POSITIVE:
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
            return _over_dimensions(
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
        made = _pooled(nn.MaxPool2d(**settings), before, after, self.like)
        if made is None:
            raise self._unsupported(node, "these settings")
        return made

    def _positive(self, node: fx.Node, before: Shape) -> Operation:
        """Return a linear function without negative coefficients, as the graph calls it."""
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


def _differs_in_training(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd))


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


def _linear(layer: nn.Linear, _before: Shape, _after: Shape, _like: Tensor) -> Operation:
    return linear(layer.weight, layer.bias)


def _convolution(
    layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, before: Shape, _after: Shape, like: Tensor
) -> Operation | None:
    if layer.padding_mode != "zeros":
        return None
    run: Callable[..., Tensor] = {
        nn.Conv1d: functional.conv1d,
        nn.Conv2d: functional.conv2d,
        nn.Conv3d: functional.conv3d,
    }[type(layer)]
    turned: Callable[..., Tensor] = {
        nn.Conv1d: functional.conv_transpose1d,
        nn.Conv2d: functional.conv_transpose2d,
        nn.Conv3d: functional.conv_transpose3d,
    }[type(layer)]
    rest = (layer.stride, layer.padding, layer.dilation, layer.groups)
    sides = len(layer.kernel_size)
    bias = 0.0 if layer.bias is None else layer.bias
    spread = (-1, *[1] * sides)
    terms = layer.weight[0].numel() + 1
    if isinstance(layer.padding, str):
        return mapped(
            lambda x: run(x, layer.weight, None, *rest),
            before,
            like,
            absolute=lambda r: run(r, layer.weight.abs(), None, *rest),
            bias=bias,
            terms=terms,
            spread=spread,
        )
    padding = layer.padding

    def back(c: Tensor) -> Tensor:
        extra = tuple(
            before[1 + i]
            - (
                (c.shape[2 + i] - 1) * layer.stride[i]
                - 2 * padding[i]
                + layer.dilation[i] * (layer.kernel_size[i] - 1)
                + 1
            )
            for i in range(sides)
        )
        return turned(
            c, layer.weight, None, layer.stride, padding, extra, layer.groups, layer.dilation
        )

    return Affine(
        apply=lambda x: run(x, layer.weight, None, *rest),
        absolute=lambda r: run(r, layer.weight.abs(), None, *rest),
        back=back,
        shift=bias,
        terms=terms,
        spread=spread,
    )


def _batch_norm(
    layer: nn.modules.batchnorm._BatchNorm, before: Shape, _after: Shape, _like: Tensor
) -> Operation | None:
    if layer.running_mean is None or layer.running_var is None:
        return None
    scale = (layer.running_var + layer.eps).rsqrt()
    if layer.weight is not None:
        scale = scale * layer.weight
    shift = -layer.running_mean * scale
    if layer.bias is not None:
        shift = shift + layer.bias
    wide = (-1, *[1] * (len(before) - 1))
    return scaled(scale.reshape(wide), shift.reshape(wide))


def _reshaped(before: Shape, after: Shape, _like: Tensor) -> Operation:
    return Affine(
        apply=lambda x: x.reshape(len(x), *after),
        absolute=lambda r: r.reshape(len(r), *after),
        back=lambda c: c.reshape(len(c), *before),
        shift=0.0,
        terms=0,
        diagonal=True,
    )


def _averaged(layer: nn.Module, before: Shape, _after: Shape, like: Tensor) -> Operation:
    count = 1
    for side in before[1:]:
        count *= side
    return mapped(layer, before, like, terms=count)


def _padded(layer: nn.Module, before: Shape, _after: Shape, like: Tensor) -> Operation | None:
    if getattr(layer, "value", 0.0) != 0:
        return None
    return mapped(layer, before, like)


def _pooled(layer: Any, before: Shape, after: Shape, like: Tensor) -> Operation | None:
    if layer.return_indices or layer.dilation not in (1, (1, 1)):
        return None
    size, stride, padding = (
        (v, v) if isinstance(v, int) else tuple(v)
        for v in (layer.kernel_size, layer.stride, layer.padding)
    )
    channels, height, width = before
    rows = torch.arange(after[1])[:, None] * stride[0] - padding[0] + torch.arange(size[0])
    columns = torch.arange(after[2])[:, None] * stride[1] - padding[1] + torch.arange(size[1])
    places = rows[:, None, :, None] * width + columns[None, :, None, :]
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & (
        (columns >= 0) & (columns < width)
    )[None, :, None, :]
    first = torch.arange(channels)[:, None, None, None, None] * (height * width)
    windows = torch.where(inside[None], first + places[None], -1).flatten(3).flatten(0, 2)
    return Maximum(windows.to(like.device), after)


def _over_dimensions(dims: list[int], before: Shape, after: Shape, like: Tensor) -> Maximum:
    rank = len(before) + 1
    gone = sorted(d % rank - 1 for d in dims)
    kept = [i for i in range(len(before)) if i not in gone]
    count = 1
    for side in before:
        count *= side
    places = torch.arange(count).reshape(before).permute(*kept, *gone)
    windows = places.flatten(len(kept)) if kept else places.reshape(1, -1)
    windows = windows.reshape(-1, windows.shape[-1])
    return Maximum(windows.to(like.device), after)


def _curve(curve: Curve) -> Callable[..., Operation]:
    return lambda *_: Elementwise(curve)


def _leaky(layer: nn.LeakyReLU, *_: Any) -> Operation | None:
    if not 0 <= layer.negative_slope <= 1:
        return None
    return Elementwise(piecewise(layer.negative_slope, 1.0))


def _when(good: Callable[[Any], bool], curve: Curve) -> Callable[..., Operation | None]:
    return lambda layer, *_: Elementwise(curve) if good(layer) else None


_RELU = piecewise(0.0, 1.0)
_CURVES: dict[str, Curve] = {
    "relu": _RELU,
    "relu_": _RELU,
    **{name: smooth(name) for name in ("tanh", "sigmoid", "erf", "gelu", "silu", "softplus")},
}
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
# Linear functions without negative coefficients.
_POSITIVE = (
    *("mean", "sum", "avg_pool2d", "adaptive_avg_pool2d", "permute", "transpose", "squeeze"),
    *("unsqueeze", "movedim", "getitem"),
)
_LAYERS: dict[type[nn.Module], Callable[..., Operation | None]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.ReLU: _curve(_RELU),
    nn.LeakyReLU: _leaky,
    nn.Sigmoid: _curve(smooth("sigmoid")),
    nn.Tanh: _curve(smooth("tanh")),
    nn.ELU: _when(lambda e: e.alpha == 1, smooth("elu")),
    nn.SELU: _curve(smooth("selu")),
    nn.GELU: _when(lambda e: e.approximate == "none", smooth("gelu")),
    nn.SiLU: _curve(smooth("silu")),
    nn.Softplus: _when(lambda e: e.beta == 1 and e.threshold >= 20, smooth("softplus")),
    nn.Flatten: lambda _, before, after, like: _reshaped(before, after, like),
    nn.Unflatten: lambda _, before, after, like: _reshaped(before, after, like),
    nn.MaxPool2d: _pooled,
    nn.AvgPool1d: _averaged,
    nn.AvgPool2d: _averaged,
    nn.AdaptiveAvgPool1d: _averaged,
    nn.AdaptiveAvgPool2d: _averaged,
    nn.ZeroPad1d: _padded,
    nn.ZeroPad2d: _padded,
    nn.ConstantPad1d: _padded,
    nn.ConstantPad2d: _padded,
    **{kind: (lambda *_: None) for kind in _NOTHING},
}
