"""What a loss is made of: squared errors written by hand, terms, and what they have a path to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from unmask.flow.measure.calls import LossCall, difference_call, loss_call
from unmask.flow.measure.graph import broadcast_in, skipped

if TYPE_CHECKING:
    from torch import Tensor

# Operations between a loss and its terms, and steps of the graph that are walked at most.
_NEAR, _FAR = 64, 50_000
# Operations that keep the order of a tensor's numbers.
_IN_ORDER = ("View", "Reshape", "UnsafeView", "Squeeze", "Unsqueeze", "ToCopy", "Clone", "Alias")
# Whole numbers come back from a difference with an error of its rounding.
_WHOLE = 1e-5
# Backward passes whose terms are followed, and those among which they are looked for.
FOLLOWED, _PASSES = 24, 400
_Edge = tuple[Any, int]


def calls_by_hand(
    loss: Tensor, output: Tensor | None, texts: Sequence[Tensor], scale: float = 1.0
) -> list[LossCall]:
    """Return the losses that were written by hand: squared and absolute errors of the outputs.

    Args:
        loss: with its graph, before its backward pass.
        output: the model's, or None.
        texts: that the model was given, see loss_call.
        scale: that a GradScaler multiplied the loss by.
    """
    found = []
    shapes = broadcast_in(loss)
    if shapes is not None:
        found.append(difference_call(*shapes))
    if output is None or output.grad_fn is None:
        return found
    for path in _paths(loss.grad_fn):
        name, error = _error(path[-1])
        target = _target(path[-1], error, output) if name else None
        if target is None:
            continue
        value, summed = _value(path, error)
        value = value / scale if value is not None else None
        options = {"reduction": "sum" if summed else "mean"}
        found.append(loss_call(name, output, target, options, value))
    return found


def _paths(start: Any) -> list[list[Any]]:
    """Return the way to each error that the last operations of a graph hold."""
    found, todo = [], [[start]]
    for _ in range(_NEAR):
        if not todo:
            break
        path = todo.pop(0)
        if _error(path[-1])[0]:
            found.append(path)
            continue
        todo += [[*path, node] for node, _ in path[-1].next_functions if node is not None]
    return found


def _error(node: Any) -> tuple[str, Any]:
    """Return what torch calls a loss of this operation, and the errors that it is taken of."""
    name = node.name() if node is not None else ""
    squares = name == "PowBackward0" and node._saved_exponent == 2
    if name == "MulBackward0":
        (a, i), (b, j) = node.next_functions
        squares = a is not None and (a, i) == (b, j)
    if (squares or name == "AbsBackward0") and node.next_functions[0][0].name() == "SubBackward0":
        return "mse_loss" if squares else "l1_loss", node._saved_self
    return "", None


def _target(node: Any, error: Tensor, output: Tensor) -> Tensor | None:
    """Return what the model's output was compared with, in its shape, or None."""
    import torch

    (first, _), (second, _) = node.next_functions[0][0].next_functions
    if (first is None) == (second is None) or error.numel() != output.numel():
        return None
    one = first if second is None else second
    if skipped(one, _IN_ORDER) is not skipped(output.grad_fn, _IN_ORDER):
        return None
    with torch.no_grad():
        own = output.detach().reshape(error.shape)
        aim = (own - error if second is None else own + error).reshape(output.shape)
        whole = aim.round()
        return torch.where((aim - whole).abs() <= _WHOLE * (1 + own.abs().max()), whole, aim)


def _value(path: Sequence[Any], error: Tensor) -> tuple[Any, bool]:
    """Return what the errors add to the loss, None where that isn't clear, and whether in a sum."""
    import torch

    squares = path[-1].name() != "AbsBackward0"
    with torch.no_grad():
        term = error.detach().square() if squares else error.detach().abs()
        summed = False
        for node in reversed(path[:-1]):
            name = node.name()
            if name.startswith(("Mean", "Sum")):
                dims = getattr(node, "_saved_dim", ())
                dims = [d - (1 << 64) if d >= 1 << 63 else d for d in dims]
                dims = dims or list(range(term.ndim))
                kept = bool(getattr(node, "_saved_keepdim", False))
                summed |= name.startswith("Sum") and {d % max(term.ndim, 1) for d in dims} != {0}
                take = torch.mean if name.startswith("Mean") else torch.sum
                term = take(term, dims, keepdim=kept) if term.ndim else term
            elif name in ("MulBackward0", "DivBackward0"):
                factor = getattr(node, "_saved_other", None)
                if factor is None:
                    factor = getattr(node, "_saved_self", None) if name == "MulBackward0" else None
                if factor is None or factor.numel() != 1:
                    return None, summed
                term = term * factor if name == "MulBackward0" else term / factor
            elif not name.startswith(("Add", "View", "Reshape", "Squeeze", "Unsqueeze")):
                return None, summed
        return (term if term.numel() == 1 else None), summed


class Fed:
    """The losses that a model's outputs were fed to in a step, and which of them came to nothing.

    A loss is left out if no backward pass has a path to the very outputs that it was fed.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, _Edge] = {}
        self._walked = False

    def add(self, call: int, output: Tensor, result: Any) -> None:
        """Record that a loss was fed outputs.

        Args:
            call: the loss's number.
            output: with a graph.
            result: the loss; one without a graph only measures.
        """
        if output.grad_fn is not None and getattr(result, "requires_grad", False):
            self._waiting[call] = output.grad_fn, output.output_nr

    def sent_back(self, loss: Tensor) -> None:
        """Record a backward pass, before it."""
        if not self._waiting or loss.grad_fn is None:
            return
        self._walked = True
        wanted = set(self._waiting.values())
        reached: set[_Edge] = {(loss.grad_fn, loss.output_nr)} & wanted
        seen, todo = {loss.grad_fn}, [loss.grad_fn]
        for node in todo:
            for edge in node.next_functions:
                reached |= {edge} & wanted
                if edge[0] is not None and edge[0] not in seen:
                    seen.add(edge[0])
                    todo.append(edge[0])
            if len(reached) == len(wanted):
                break
            if len(seen) > _FAR:
                reached = wanted
                break
        self._waiting = {k: edge for k, edge in self._waiting.items() if edge not in reached}

    def marked(self, calls: Sequence[LossCall]) -> tuple[LossCall, ...]:
        """Return the calls of the losses, those that were left out marked so."""
        left = self._waiting if self._walked else {}
        return tuple(replace(c, left_out=i in left) for i, c in enumerate(calls))


class Term(NamedTuple):
    """A term of a loss.

    Args:
        location: of the backward pass.
        number: among the terms of that loss.
    """

    location: str | None
    number: int


class Terms:
    """Follows the terms of losses to the weights that the steps after them change."""

    def __init__(self) -> None:
        self._pending: list[tuple[Term, frozenset[int]]] = []
        self._stepped: set[int] = set()
        self._ever: set[int] = set()
        self._followed = self._passes = 0
        self._idle: Counter[Term] = Counter()
        self._working: set[Term] = set()
        self._weights: dict[Term, frozenset[int]] = {}

    def sent_back(self, loss: Any, location: str | None) -> None:
        """Record a backward pass, before it."""
        if self._stepped:
            self._settle()
        node = getattr(loss, "grad_fn", None)
        self._passes += 1
        if self._over() or node is None:
            return
        terms = _summands(node)
        if len(terms) > 1:
            self._followed += 1
            for number, term in enumerate(terms):
                self._pending.append((Term(location, number), _weights(term)))

    def stepped(self, parameters: Iterable[Tensor]) -> None:
        """Record the step of an optimiser that holds these parameters."""
        if self._pending or not self._over():
            self._stepped |= {id(p) for p in parameters if p.grad is not None}

    def without_effect(self) -> list[tuple[Term, int]]:
        """Return terms whose gradients no step has ever used, and how often they were followed.

        Another term of the same loss is used, and the weights that the term does reach are trained
        at other times.
        """
        working = {term.location for term in self._working}
        return [
            (term, count)
            for term, count in self._idle.items()
            if term not in self._working
            and term.location in working
            and self._weights[term] <= self._ever
        ]

    def _over(self) -> bool:
        return self._followed >= FOLLOWED or self._passes > _PASSES

    def _settle(self) -> None:
        for term, weights in self._pending:
            if weights & self._stepped:
                self._working.add(term)
            elif weights:
                self._idle[term] += 1
                self._weights[term] = weights
        self._ever |= self._stepped
        self._pending, self._stepped = [], set()


def _summands(start: Any) -> list[Any]:
    """Return the operations that made the terms of a sum, weighed or averaged."""
    terms, todo = [], [start]
    for _ in range(_NEAR):
        if not todo:
            break
        node = todo.pop(0)
        parents = [parent for parent, _ in node.next_functions if parent is not None]
        sums = node.name().startswith(("AddBackward", "SubBackward", "StackBackward"))
        passes = node.name().startswith(("Mul", "Div", "Neg", "Mean", "Sum", "View", "Squeeze"))
        if sums or (passes and len(parents) == 1):
            todo += parents
        else:
            terms.append(node)
    return terms + todo


def _weights(start: Any) -> frozenset[int]:
    """Return the ids of the parameters that have a path to an operation, {} where it is long."""
    found, seen, todo = set(), {start}, [start]
    for node in todo:
        if len(seen) > _FAR:
            return frozenset()
        variable = getattr(node, "variable", None)
        if variable is not None:
            found.add(id(variable))
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen:
                seen.add(parent)
                todo.append(parent)
    return frozenset(found)
