"""Whether a recurrent layer starts a step from the state that the step before left."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unmask.flow.measure.layers import tensors_in

# Numbers of a state that are compared.
_COMPARED = 64
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)


class Carried:
    """The last states of a model's recurrent layers, and how often a step began with them.

    Args:
        times: steps whose first state was the last one of the step before, by layer.
    """

    def __init__(self) -> None:
        self.times: dict[str, int] = {}
        self._last: dict[int, Tensor] = {}
        self._begun: set[int] = set()

    def begin(self) -> None:
        """Begin a step."""
        self._begun.clear()

    def before(self, module: nn.Module, name: str, args: Any) -> None:
        """Compare the state that a layer is given, if it is the step's first."""
        if not isinstance(module, _RECURRENT) or id(module) in self._begun:
            return
        self._begun.add(id(module))
        given, last = _sample(args[1:]), self._last.get(id(module))
        if given is not None and last is not None and torch.equal(given, last):
            self.times[name] = self.times.get(name, 0) + 1

    def after(self, module: nn.Module, output: Any) -> None:
        """Keep the state that a layer leaves; a state of zeros is that of a new start."""
        if isinstance(module, _RECURRENT):
            whole = isinstance(module, nn.RNNBase) and isinstance(output, tuple)
            state = _sample(output[1:] if whole else output)
            if state is not None and bool(state.any()):
                self._last[id(module)] = state


def _sample(states: Any) -> Tensor | None:
    first = next(tensors_in(states), None)
    return None if first is None else first.detach().flatten()[:_COMPARED].clone()
