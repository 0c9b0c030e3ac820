"""Copies of a model that are written to while it trains, as averages of its weights are."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

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
        stale: how far the running means of its batch normalisation, which nobody wrote to, lie from
            those of the model, in standard deviations; 0 where they were written to.
    """

    writes: int
    steps: int
    looks: int
    changed: bool
    line: str | None
    stale: float = 0.0


class _Copy:
    def __init__(self, module: nn.Module, steps: int, number: int, model: nn.Module) -> None:
        self.number = number
        self._norms = [
            (mine, its, mine.running_mean._version)
            for mine, its in zip(_norms(module), _norms(model), strict=False)
            if mine.running_mean is not None and its.running_mean is not None
        ]
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
        known = self.facts is not None and self.facts.changed
        if steps == self._steps or (known and not self._norms):
            return
        writes = min(t._version - v for t, v in zip(self._tensors, self._versions, strict=True))
        same = not known and all(map(torch.equal, self._read(), self._numbers))
        self.facts = CopyFacts(
            *(writes, steps - self._steps, self._looks, not same, user_line(), self._stale())
        )

    def _stale(self) -> float:
        """Return how far the running means lie from the model's, 0 once one was written to."""
        if any(mine.running_mean._version != version for mine, _, version in self._norms):
            self._norms = []
        apart = [
            float(((its.running_mean - mine.running_mean) / deviation).square().mean().sqrt())
            for mine, its, _ in self._norms
            if bool((deviation := (its.running_var + its.eps).sqrt()).all())
        ]
        return max(apart, default=0.0)


class Copies:
    """Records the copies of one model: of its class, with tensors of the same shapes."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self._kind, self._shapes = module, type(module), _shapes(module)
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
            made = _Copy(module, steps, self._made, self._module) if alike else None
            self._copies[module] = made
        copy = self._copies[module]
        if copy is not None:
            copy.see(steps)
            if copy.facts is not None:
                self._facts[copy.number] = copy.facts

    def read(self) -> list[CopyFacts]:
        """Return the facts of the copies that were called more than once."""
        return list(self._facts.values())


def _norms(module: nn.Module) -> list[Any]:
    return [m for m in module.modules() if isinstance(m, _BatchNorm)]


def _shapes(module: nn.Module) -> list[torch.Size]:
    return [p.shape for p in module.parameters()]
