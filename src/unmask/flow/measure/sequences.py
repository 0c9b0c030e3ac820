"""What passes from sequence to sequence and from target to input: states, and words."""

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
    """

    def __init__(self) -> None:
        self.carried: dict[str, int] = {}
        self._last: dict[int, Tensor] = {}
        self._begun: set[int] = set()
        self._words: list[Tensor] = []

    def begin(self) -> None:
        """Begin a step."""
        self._begun.clear()
        self._words.clear()

    def before(self, module: nn.Module, name: str, args: Any) -> None:
        """Record the words of an embedding; compare the state that a layer is first given."""
        if isinstance(module, nn.Embedding):
            self._words += [x for x in args if isinstance(x, Tensor) and x.ndim == 2]
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

    def tell(self, target: Any) -> bool:
        """Return whether a decoder reads the very words that are its targets.

        That is one of several texts, since one alone may be put together again on purpose; and none
        of them is the targets a word later, as what a decoder is to read.
        """
        if not isinstance(target, Tensor) or target.is_floating_point() or not target.numel():
            return False
        flat = target.detach().flatten()
        texts = [x for x in self._words if len(x) > 1 and not bool((x == x[:1]).all())]
        same = [x for x in texts if x.numel() == len(flat) and torch.equal(x.flatten(), flat)]
        others = [x for x in texts if all(x is not s for s in same)]
        rows = flat.reshape(same[0].shape) if same else flat
        shifted = any(x.shape == rows.shape and torch.equal(x[:, 1:], rows[:, :-1]) for x in others)
        return bool(same) and bool(others) and not shifted


def _sample(states: Any) -> Tensor | None:
    first = next(tensors_in(states), None)
    return None if first is None else first.detach().flatten()[:_COMPARED].clone()
