"""Copies of a model that are written to while it trains, as averages of its weights are."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unmask.flow.measure.calls import user_line

# The numbers of a tensor that are compared, and the tensors of each copy.
_NUMBERS, _TENSORS = 4096, 4


@dataclass(frozen=True)
class CopyFacts:
    """A copy of a model between the first and the last time that it was called.

    Args:
        writes: how often its largest tensor was written to.
        steps: how many steps the model made meanwhile.
        looks: after how many different steps of the model it was called.
        changed: whether any of its numbers changed.
        line: "file:line" of the last call.
    """

    writes: int
    steps: int
    looks: int
    changed: bool
    line: str | None


class _Copy:
    def __init__(self, module: nn.Module, steps: int, number: int) -> None:
        self.number = number
        self._tensors = sorted(module.parameters(), key=Tensor.numel)[-_TENSORS:]
        self._versions = [t._version for t in self._tensors]
        self._numbers = self._read()
        self._steps, self._latest, self._looks = steps, steps, 1
        self.facts: CopyFacts | None = None

    def _read(self) -> list[Tensor]:
        return [t.detach().flatten()[:_NUMBERS].clone() for t in self._tensors]

    def see(self, steps: int) -> None:
        """Compare it with what it was when it was first called."""
        self._looks += steps != self._latest
        self._latest = steps
        if steps == self._steps or (self.facts is not None and self.facts.changed):
            return
        writes = min(t._version - v for t, v in zip(self._tensors, self._versions, strict=True))
        same = all(map(torch.equal, self._read(), self._numbers))
        self.facts = CopyFacts(writes, steps - self._steps, self._looks, not same, user_line())


class Copies:
    """Records the copies of one model: of its class, with tensors of the same shapes."""

    def __init__(self, module: nn.Module) -> None:
        self._kind, self._shapes = type(module), _shapes(module)
        self._copies: weakref.WeakKeyDictionary[nn.Module, _Copy | None]
        self._copies = weakref.WeakKeyDictionary()
        # By the number of the copy, which they outlive.
        self._facts: dict[int, CopyFacts] = {}
        self._made = 0

    def see(self, module: nn.Module, steps: int) -> None:
        """Record a call of another module, which counts in evaluation mode.

        Args:
            module: that is called.
            steps: that the model has made.
        """
        if module.training or type(module) is not self._kind:
            return
        if module not in self._copies:
            alike = _shapes(module) == self._shapes
            self._made += 1
            self._copies[module] = _Copy(module, steps, self._made) if alike else None
        copy = self._copies[module]
        if copy is not None:
            copy.see(steps)
            if copy.facts is not None:
                self._facts[copy.number] = copy.facts

    def read(self) -> list[CopyFacts]:
        """Return the facts of the copies that were called more than once."""
        return list(self._facts.values())


def _shapes(module: nn.Module) -> list[torch.Size]:
    return [p.shape for p in module.parameters()]
