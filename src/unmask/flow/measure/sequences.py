"""What a model is given beside its input: the states of other sequences, and words."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unmask.flow.measure.layers import tensors_in

# Numbers of a state that are compared.
_COMPARED = 64
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)


class Sequences:
    """The last states of a model's recurrent layers, and the words that a step embeds.

    Args:
        carried: steps whose first state was the last one of the step before, by layer.
        words: the texts, int64[texts, places], that the model's present pass embeds.
    """

    def __init__(self) -> None:
        self.carried: dict[str, int] = {}
        self._last: dict[int, Tensor] = {}
        self._begun: set[int] = set()
        self.words: list[Tensor] = []

    def begin(self) -> None:
        """Begin a step."""
        self._begun.clear()

    def call(self) -> None:
        """Begin a pass of the whole model."""
        self.words = []

    def before(self, module: nn.Module, name: str, args: Any) -> None:
        """Record the words of an embedding; compare the state that a layer is first given."""
        if isinstance(module, nn.Embedding):
            self.words += [x for x in args if isinstance(x, Tensor) and x.ndim == 2]
        if not isinstance(module, _RECURRENT) or id(module) in self._begun:
            return
        self._begun.add(id(module))
        given, last = _sample(args[1:]), self._last.get(id(module))
        if given is not None and last is not None and torch.equal(given, last):
            self.carried[name] = self.carried.get(name, 0) + 1

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
