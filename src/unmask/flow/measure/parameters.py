"""The parameters of a model in a step: which are held by an optimiser, reached and changed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from unmask.flow.measure.calls import user_line
from unmask.flow.measure.inputs import array_of
from unmask.flow.measure.layers import Layer
from unmask.flow.measure.statistics import ParameterFacts

DECOUPLED = ("AdamW", "SGDW", "Lamb", "Lion", "Adafactor")
# Entries of a weight that show whether it changed.
_ENTRIES = 64
# The most entries of a parameter whose gradients are compared.
_SMALL = 4096
# A factor on gradients below which they were scaled by hand, rather than averaged or noised.
_BY_HAND = 0.1
# This many of the first and of the last parameters are watched for gradients left from before.
_WATCHED = 4


class ParameterLedger:
    """Records one step's parameters; its hooks change nothing."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.called: set[str] = set()
        # Modules with weights that run inside the model's forward and aren't part of it.
        self.strangers: dict[str, list[int]] = {}
        # What layers were called on, and those that were called on one tensor several times.
        self._read: set[tuple[str, int, torch.Size]] = set()
        self._again: set[str] = set()
        # A tensor that a pass leaves as an attribute isn't there before the first.
        self._hidden = frozenset(unregistered(model))
        self._trainable = {id(p): n for n, p in model.named_parameters() if p.requires_grad}
        self._held: dict[int, int] = {}
        self._given: set[int] = set()
        self._reached: set[int] = set()
        self._still: set[str] = set()
        self._foreign, self._foreigners = 0, set[int]()
        self._stepped = False
        self._carried: dict[int, bool] = {}
        self.arrived: set[int] = set()
        self._stale = self._half = self._lost = False
        # Whether the model computes in float16, and of its half-precision weights with a gradient
        # how many there are, and how many a step left as they were.
        self.float16 = False
        self._halves = self._rounded = 0
        # The sizes of the gradients that backward passes have given a few small parameters.
        self._expected: dict[Tensor, float] = {}
        self.scaled: float | None = None
        self._memory = 0.0
        self._decay: list[tuple[float, float]] = []
        self._location: str | None = None
        self.sent_back: str | None = None

    def attach(self) -> Iterator[Any]:
        """Yield the handles of hooks on a few parameters, which detect gradients left over."""
        watched = [p for p in self.model.parameters() if p.requires_grad and p.is_leaf]
        for p in [*watched[:_WATCHED], *watched[_WATCHED:][-_WATCHED:]]:

            def arrived(gradient: Tensor, p: Tensor = p) -> None:
                self.arrived.add(id(p))
                present = p.grad is not None and bool(p.grad.any())
                if id(p) not in self._carried or not present:
                    self._carried[id(p)] = present
                if p.numel() <= _SMALL and not gradient.is_sparse:
                    total = gradient if p.grad is None else gradient + p.grad
                    self._expected[p] = float(torch.linalg.vector_norm(total))

            yield p.register_hook(arrived)  # type: ignore[no-untyped-call]

    def before_step(self, optimizer: Optimizer, left: float = 0.0) -> None:
        """Record an optimiser's parameters just before its step.

        Args:
            optimizer: that is about to step.
            left: the fraction of the gradients that clipping left; 0 where it isn't known.
        """
        self._stepped = True
        self._location = self._location or user_line()
        decoupled = type(optimizer).__name__ in DECOUPLED
        for group in optimizer.param_groups:
            wd = float(group.get("weight_decay") or 0.0)
            memory = (group.get("betas") or (group.get("momentum"),))[0]
            self._memory = max(self._memory, float(memory or 0.0))
            for p in group["params"]:
                if id(p) not in self._trainable:
                    self._foreign += p.requires_grad
                    self._foreigners.add(id(p))
                    continue
                self._held[id(p)] = self._held.get(id(p), 0) + 1
                self._stale |= self._carried.get(id(p), False)
                self._lost |= id(p) in self.arrived and p.grad is None
                if wd and p.ndim > 1 and p.grad is not None:
                    # Steps of these are about as large as the rate, for any gradient.
                    g = (
                        math.sqrt(p.numel())
                        if decoupled
                        else float(torch.linalg.vector_norm(p.grad))
                    )
                    self._decay.append((wd * float(torch.linalg.vector_norm(p.detach())), g))
        self._look_at_gradients()
        # Of one layer alone they may be scaled on purpose.
        found = [
            float(torch.linalg.vector_norm(p.grad)) / (left * size)
            for p, size in self._expected.items()
            if p.grad is not None and not p.grad.is_sparse and 0 < left * size < math.inf
        ]
        self.scaled = max(found) if found and 0 < max(found) < _BY_HAND else None

    def _look_at_gradients(self) -> None:
        for p in self.model.parameters():
            if id(p) in self._trainable and id(p) not in self._reached and p.grad is not None:
                self._given.add(id(p))
                gradient = p.grad.coalesce().values() if p.grad.is_sparse else p.grad
                if bool(gradient.any()):
                    self._reached.add(id(p))

    def after_step(self, layer: Layer, changes: list[Tensor]) -> None:
        """Record what a step changed of a layer."""
        trained = [
            (w, c) for w, c in zip(layer.weights, changes, strict=True) if id(w) in self._reached
        ]
        if trained and not any(bool(c.any()) for _, c in trained):
            self._still.add(layer.name)
            self._half |= any(w.element_size() < 4 for w, _ in trained)
        for w, c in trained:
            if w.element_size() < 4 and w.grad is not None and not w.grad.is_sparse:
                given = w.grad != 0
                self._halves += int(torch.count_nonzero(given))
                self._rounded += int(torch.count_nonzero(given & (c == 0)))

    def see_call(self, layer: str, x: Tensor) -> None:
        """Record what a layer is called on."""
        key = layer, x.data_ptr(), x.shape
        if key in self._read:
            self._again.add(layer)
        self._read.add(key)

    def read(self, optimizers: Iterable[Optimizer] = (), sent_back: bool = True) -> ParameterFacts:
        """Return the facts, names in the model's order.

        Args:
            optimizers: others that may step.
            sent_back: whether there was a backward pass, without which there are no gradients.
        """
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                for p in group["params"]:
                    self._held.setdefault(id(p), 1)
                    self._foreigners.add(id(p))
        if not self._stepped:
            self._look_at_gradients()
        names = self._trainable
        own = {n.rpartition(".")[0] or "(model)" for n in names.values()}
        decay = [wd / g for wd, g in self._decay if g > 0]
        return ParameterFacts(
            trainable=tuple(names.values()),
            unheld=tuple(n for i, n in names.items() if i not in self._held)
            if self._stepped
            else (),
            unreached=tuple(n for i, n in names.items() if i not in self._given)
            if sent_back and not self._lost
            else (),
            still=tuple(sorted(self._still)),
            zero=tuple(n for i, n in names.items() if i in self._given - self._reached),
            null=tuple(
                n
                for n, p in self.model.named_parameters()
                if id(p) in self._given - self._reached and p.ndim > 1 and not bool(p.any())
            ),
            float16=self.float16,
            rounded=self._rounded / self._halves if self._halves else None,
            memory=self._memory,
            shared=tuple(n for i, n in names.items() if self._held.get(i, 0) > 1),
            uncalled=tuple(sorted(own - self.called)),
            unregistered=tuple(
                name
                for name in unregistered(self.model, self._foreigners, used=sent_back)
                if name in self._hidden
            ),
            strangers=tuple(
                name
                for name, weights in self.strangers.items()
                if not self._foreigners.issuperset(weights)
            ),
            repeated=tuple(_repeated(self.model, self._again)) if self._again else (),
            foreign=self._foreign,
            carried=self._stale,
            scaled=self.scaled,
            half=self._half,
            decay=sorted(decay)[len(decay) // 2] if decay else None,
            location=self._location,
            sent_back=self.sent_back,
        )


class Witness:
    """Some entries of a model's largest weight, which show whether it changed.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._weight = max(
            (p for p in model.parameters() if p.requires_grad and p.ndim > 1),
            key=Tensor.numel,
            default=None,
        )
        # Entries in the weight's own memory, whose address tells whether it was replaced.
        self._entries: NDArray[Any] | None = None
        self._memory = 0

    def read(self) -> NDArray[Any] | None:
        """Return a copy of the entries, or None where there are none on the CPU."""
        weight = self._weight
        if weight is None or not weight.is_cpu:
            return None
        if self._entries is None or self._memory != weight.data_ptr():
            # In the order of the memory, so that no dense layout is copied. What is a copy all the
            # same, as of bfloat16, has another address, and is made again each time.
            flat = array_of(weight.detach()).ravel("K")
            self._entries = flat[:: max(1, len(flat) // _ENTRIES)]
            self._memory = flat.ctypes.data
        return self._entries.copy()


class Moves:
    """Finds parameters that two optimisers move with one gradient."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, set[int]]] = {}

    def again(self, optimizer: Optimizer, passed: int) -> set[int]:
        """Return what another optimiser moved since the last backward pass, by id.

        Args:
            optimizer: about to step.
            passed: the number of backward passes so far.
        """
        mine = {id(p) for p in held_by(optimizer)}
        if self._last.get(id(optimizer), (passed - 1, mine))[0] == passed:
            # Its gradients are another model's, which has parameters of this one.
            return set()
        found: set[int] = set()
        for other, (at, theirs) in self._last.items():
            if other != id(optimizer) and at == passed:
                found |= mine & theirs
        self._last[id(optimizer)] = passed, mine
        return found


def held_by(optimizer: Optimizer) -> Iterator[Tensor]:
    """Yield the tensors that an optimiser moves."""
    for group in optimizer.param_groups:
        yield from group["params"]


def amp_scale(optimizer: Optimizer) -> float:
    """Return the factor on an optimiser's gradients until its step divides by it."""
    # A fused optimiser divides by the GradScaler's scale itself, during its step.
    scale = getattr(optimizer, "grad_scale", None)
    return float(scale) if scale is not None else 1.0


def unregistered(
    model: nn.Module, held: Collection[int] = (), *, used: bool = False
) -> Iterator[str]:
    """Yield the names of attributes with weights that model.parameters() doesn't include.

    These are plain lists, tuples and dictionaries of modules, and tensors that want a gradient and
    aren't an nn.Parameter: no optimiser trains them.

    Args:
        model: the network.
        held: the ids of tensors that an optimiser was given all the same.
        used: whether they must have a gradient: one of several networks that were made may be
            chosen.
    """
    known = {id(p) for p in model.parameters()} | set(held)

    def lost(p: Tensor) -> bool:
        alone = id(p) not in known and p.requires_grad and p.is_leaf
        return alone and not (used and p.grad is None)

    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute.startswith("_"):
                continue
            hidden = [value] if isinstance(value, Tensor) else _weights_in(value)
            if any(map(lost, hidden)):
                yield f"{name}.{attribute}".removeprefix(".")


def _repeated(model: nn.Module, again: Collection[str]) -> Iterator[str]:
    """Yield the names of lists that hold one module several times, if it was called so."""
    for name, module in model.named_modules():
        entries = list(module) if isinstance(module, nn.ModuleList) else []
        firsts = {id(m): i for i, m in reversed(list(enumerate(entries)))}
        for i in firsts.values() if len(firsts) < len(entries) else ():
            place = f"{name}.{i}"
            if entries.count(entries[i]) > 1 and any(
                n == place or n.startswith(f"{place}.") for n in again
            ):
                yield name


def results_in(model: nn.Module) -> Iterator[str]:
    """Yield the names of attributes that are results of a computation with gradients."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                yield f"self.{name}.{attribute}".replace("..", ".")


def _weights_in(value: Any, depth: int = 3) -> Iterator[Tensor]:
    """Yield the parameters in a collection, however it is nested."""
    if isinstance(value, nn.Parameter):
        yield value
    elif isinstance(value, nn.Module):
        yield from value.parameters()
    elif depth and isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _weights_in(item, depth - 1)
