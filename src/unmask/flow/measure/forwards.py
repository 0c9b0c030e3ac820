"""Models whose forward is called by its name: the hooks of torch run in model(x) alone."""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from typing import Any

import torch
from torch import nn

# The functions of torch between model(x) and its forward.
_CALLS = ("_call_impl", "_slow_forward", "_wrapped_call_impl")
_Patched = tuple[Any, Any]


class Forwards:
    """Lets model.forward(x) do what model(x) does, until it is undone.

    Only classes of models that are called so, and have no hooks of the user's, are changed.
    """

    def __init__(self) -> None:
        self._classes: dict[type[nn.Module], _Patched] = {}
        # Models between their hooks and their forward, and those that are called by name.
        self._entered: set[int] = set()
        self._named: set[int] = set()
        self._put_off: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def entered(self, module: nn.Module) -> None:
        """Record that model(x) is about to run a module's forward."""
        if type(module) in self._classes:
            self._entered.add(id(module))

    def inside(self, module: nn.Module) -> bool:
        """Return whether the forward of a model that holds a module was called by its name.

        From its next call on it does what model(x) does, unless the user kept the function itself,
        by which a module comes here again.
        """
        if module in self._put_off:
            return False
        owner, frame = None, sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            own = code.co_name == "forward" and code.co_argcount > 0
            holder = frame.f_locals.get(code.co_varnames[0]) if own else None
            if isinstance(holder, nn.Module) and holder is not module:
                own = getattr(inspect.unwrap(type(holder).forward), "__code__", None) is code
                by_name = frame.f_back is None or frame.f_back.f_code.co_name not in _CALLS
                if own and by_name and module in set(holder.modules()):
                    owner = holder
            frame = frame.f_back  # type: ignore[assignment]
        if owner is None or owner._forward_hooks or owner._forward_pre_hooks:
            return False
        self._patch(type(owner))
        self._put_off.add(module)
        return True

    def undo(self) -> None:
        """Give all classes their own forward back."""
        for kind, (given, own) in self._classes.items():
            if kind.__dict__.get("forward") is given:
                if own is None:
                    del kind.forward
                else:
                    kind.forward = own
        self._classes = {}

    def _patch(self, kind: type[nn.Module]) -> None:
        original: Any = kind.forward
        entered, named = self._entered, self._named

        @functools.wraps(original)
        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            key = id(self)
            if key in entered or key in named or type(self) is not kind:
                entered.discard(key)
                return original(self, *args, **kwargs)
            if torch.compiler.is_compiling():
                return original(self, *args, **kwargs)
            named.add(key)
            try:
                return self(*args, **kwargs)
            finally:
                named.discard(key)

        if kind not in self._classes:
            self._classes[kind] = forward, kind.__dict__.get("forward")
            kind.forward = forward
