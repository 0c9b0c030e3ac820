"""A module as a graph (torch.fx): its forward traced with images of a known shape."""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from unmask.errors import UserError
from unmask.fool.certify.operations import Shape

VALUE = "value"
# Before the names of layers of a model that takes images alone by a wrapper.
ALONE = "model."


def plain(module: nn.Module) -> nn.Module:
    """Return a module out of torch.compile and DataParallel, its weights no longer parametrised.

    Args:
        module: a copy, which is changed.

    Raises:
        UserError: for TorchScript, whose operations can't be traced.
    """
    while True:
        inside = getattr(module, "_orig_mod", None)
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inside = module.module
        if inside is None:
            break
        module = inside
    for name, child in module.named_children():
        setattr(module, name, plain(child))
    if isinstance(module, torch.jit.ScriptModule):
        raise _scripted()
    if parametrize.is_parametrized(module):
        # torch's own removal changes the class, which the original shares.
        lists: Any = module.parametrizations
        weights = {name: getattr(module, name).detach() for name in lists}
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module.parametrizations
        for name, weight in weights.items():
            module.register_parameter(name, nn.Parameter(weight))
    return module


def copied(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a plain copy of a module, of that dtype and without gradients.

    Args:
        module: which is not changed.
        dtype: of the copy.

    Raises:
        UserError: for TorchScript.
    """
    if any(isinstance(m, torch.jit.ScriptModule) for m in module.modules()):
        raise _scripted()
    return plain(copy.deepcopy(module)).to(dtype).requires_grad_(requires_grad=False)


def _scripted() -> UserError:
    return UserError(
        "the operations of a scripted model can't be read",
        got="TorchScript",
        do="give the model before torch.jit.script or torch.jit.trace",
    )


def alone(module: nn.Module) -> nn.Module:
    """Return a module whose forward takes images and nothing else.

    Args:
        module: which may be a layer, or have further arguments with defaults.

    Raises:
        UserError: when it has others that are required.
    """
    taken = list(inspect.signature(module.forward).parameters.values())
    needed = [p.name for p in taken[1:] if p.default is p.empty and p.kind in _NAMED]
    if needed:
        raise UserError(
            "the model takes more than one input", got=needed[0], do="fix all but the image"
        )
    if len(taken) == 1 and not fx.Tracer().is_leaf_module(module, ""):
        return module
    return _Alone(module).eval()


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class _Alone(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Any) -> Any:
        found = self.model(pixels)
        # A ModelOutput is of a class that a graph can't return.
        whole = isinstance(found, fx.Proxy) or not hasattr(found, "logits")
        return found if whole else found.logits


def traced(module: nn.Module, shape: Shape, like: Tensor) -> fx.Graph:
    """Return the graph of a module's forward on a batch of two images.

    Every node has a value, see value_of. The numbers of a tensor's shape, but the first, are those
    of the value, so that a forward may branch on channels and sides.

    Args:
        module: in eval mode.
        shape: of one image.
        like: a tensor of the dtype and device to use.

    Raises:
        UserError: when the forward branches on values or doesn't run on such images.
    """
    tracer = _Tracer(module, shape, like)
    try:
        with torch.no_grad():
            graph = tracer.trace(module)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            "the model can't be traced: its forward depends on the values that it is given",
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            do="write its forward without branches on tensors, or certify its parts",
        ) from error
    for node in graph.nodes:
        if node.op != "output" and VALUE not in node.meta:
            tracer.evaluate(node)
    _settle_writes(graph, dict(module.named_modules()))
    return graph


def value_of(node: fx.Node) -> Any:
    """Return what a node makes of two grey images."""
    return node.meta[VALUE]


def called(node: fx.Node) -> str:
    """Return the name of the function or method that a node calls, "" for a layer."""
    if node.op == "call_module":
        return ""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def layer_name(node: fx.Node) -> str:
    """Return the name in the model of the layer that a node calls."""
    return str(node.target).removeprefix(ALONE)


def reads_shape(node: fx.Node) -> bool:
    """Return whether a node reads a tensor's shape, or a number in one."""
    if called(node) == "getattr":
        return node.args[1] == "shape"
    if called(node) != "getitem" or not isinstance(node.args[0], fx.Node):
        return False
    return isinstance(value_of(node.args[0]), torch.Size)


def nodes_in(args: Any) -> list[fx.Node]:
    """Return the nodes in the arguments of a node, in order."""
    found: list[fx.Node] = []
    fx.node.map_arg(args, found.append)
    return found


class _Proxy(fx.Proxy):
    """Answers what depends on the shape of an image alone."""

    @property
    def _held(self) -> Any:
        return self.node.meta.get(VALUE)

    def __getattr__(self, name: str) -> Any:
        held, asked = self.node.meta.get(VALUE), super().__getattr__
        if isinstance(held, Tensor):
            if name == "shape":
                sizes: Any = asked(name)
                return (sizes[0], *held.shape[1:])
            if name in ("ndim", "dtype", "device", "is_cuda"):
                return getattr(held, name)
        return asked(name)

    def size(self, dim: int | None = None) -> Any:
        sizes = self.__getattr__("shape")
        return sizes if dim is None else sizes[dim]

    def dim(self) -> int:
        return int(self._held.ndim)

    def __len__(self) -> int:
        held = self._held
        if isinstance(held, (tuple, list)):
            return len(held)
        raise RuntimeError("the number of images in a batch is not fixed")

    def __iter__(self) -> Any:
        held = self._held
        if isinstance(held, (tuple, list)):
            whole: Any = self
            return iter([whole[i] for i in range(len(held))])
        return super().__iter__()


class _Tracer(fx.Tracer):
    def __init__(self, module: nn.Module, shape: Shape, like: Tensor) -> None:
        super().__init__()
        self.shape, self.like = shape, like
        self.modules = dict(module.named_modules())
        self.whole = module

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_proxy(self, *args: Any, **kwargs: Any) -> Any:
        made = super().create_proxy(*args, **kwargs)
        if made.node.op != "output":
            self.evaluate(made.node)
        return made

    def evaluate(self, node: fx.Node) -> None:
        """Store what a node makes of two grey images, in the dtype of the computation."""
        with _untraced():
            found = self._result(node)
        if isinstance(found, Tensor) and found.is_floating_point():
            # The forward may cast; bounds are computed in one dtype.
            found = found.to(self.like)
        node.meta[VALUE] = found

    def _result(self, node: fx.Node) -> Any:
        def known(part: Any) -> Any:
            def value(n: fx.Node) -> Any:
                if VALUE not in n.meta:
                    self.evaluate(n)
                held = n.meta[VALUE]
                # Some operations write where they read.
                return held.clone() if isinstance(held, Tensor) else held

            return fx.node.map_arg(part, value)

        if node.op == "placeholder":
            return torch.full((2, *self.shape), 0.5).to(self.like)
        try:
            if node.op == "get_attr":
                return operator.attrgetter(str(node.target))(self.whole)
            if node.op == "call_module":
                return self.modules[str(node.target)](*known(node.args), **known(node.kwargs))
            if node.op == "call_function":
                assert callable(node.target)
                return node.target(*known(node.args), **known(node.kwargs))
            owner, *rest = known(node.args)
            return getattr(owner, str(node.target))(*rest, **known(node.kwargs))
        except Exception as error:
            raise UserError(
                f"the model doesn't run on images of shape {list(self.shape)}",
                got=f"{type(error).__name__} in {node.name}",
                do="give the images that it was trained on",
            ) from error


@contextmanager
def _untraced() -> Iterator[None]:
    """Let modules be called and read as they are, which a trace replaces while it lasts."""
    traced_call, traced_read = nn.Module.__call__, nn.Module.__getattr__
    nn.Module.__call__, nn.Module.__getattr__ = _CALL, _READ  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = traced_call  # type: ignore[method-assign]
        nn.Module.__getattr__ = traced_read  # type: ignore[method-assign]


_CALL, _READ = nn.Module.__call__, nn.Module.__getattr__


def _settle_writes(graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
    """Let what comes after an operation that writes into its input read the result."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if not node.args or not isinstance(node.args[0], fx.Node):
            continue
        name = called(node)
        writes = (
            getattr(modules[str(node.target)], "inplace", False)
            if node.op == "call_module"
            else node.kwargs.get("inplace", False)
            or name in _INTO
            or (name.endswith("_") and not name.endswith("__"))
        )
        if writes:
            after = {user for user, at in order.items() if at > order[node]}
            node.args[0].replace_all_uses_with(node, delete_user_cb=after.__contains__)


_INTO = ("iadd", "isub", "imul", "itruediv")
