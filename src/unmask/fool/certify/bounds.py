"""Bounds on a network's values over a region: intervals, and linear relaxations carried backwards.

IBP (Gowal et al., 2019) carries boxes forwards. CROWN (Zhang et al., 2018; DeepPoly, Singh et al.,
2019) replaces each activation by lines above and below and carries the logits' differences back to
the pixels, where their minimum is known. Slopes optimised by gradient make it alpha-CROWN (Xu et
al., 2021), and multipliers of the signs that branch and bound fixes make it beta-CROWN (Wang et
al., 2021).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unmask.fool.certify.network import Network
from unmask.fool.certify.operations import (
    Affine,
    Elementwise,
    Interval,
    Joined,
    Maximum,
    Node,
    Sum,
)
from unmask.fool.certify.region import MARGIN, Region
from unmask.fool.certify.relaxation import Lines

# The most numbers that one backward pass holds at a time, which bounds memory.
_NUMBERS = 1 << 24


@dataclass
class Relaxed:
    """Boxes around the values of a network's nodes, over a region of b images.

    Args:
        network: that has these nodes.
        region: the images.
        inputs: by place of a bent node (one that isn't affine), the box around its input, float[b,
            *shape].
        boxes: around the output of each node.
    """

    network: Network
    region: Region
    inputs: dict[int, Interval]
    boxes: list[Interval]
    _lines: dict[int, tuple[Tensor | None, Lines]] = field(default_factory=dict)

    def __getitem__(self, rows: Tensor | slice) -> Relaxed:
        inputs = {place: box[rows] for place, box in self.inputs.items()}
        boxes = [box[rows] for box in self.boxes]
        return Relaxed(self.network, self.region[rows], inputs, boxes)

    @property
    def output(self) -> Interval:
        """The box around the logits, float[b, classes]."""
        return self.boxes[-1]

    def lines(self, place: int) -> tuple[Tensor | None, Lines]:
        """Return the lines of a bent node, and the leading places of a maximum's windows."""
        if place not in self._lines:
            operation = self.network.nodes[place].operation
            box = self.inputs[place]
            if isinstance(operation, Maximum):
                self._lines[place] = operation.lines(box)
            else:
                assert isinstance(operation, Elementwise)
                self._lines[place] = (None, operation.curve.lines(box.lower, box.upper))
        return self._lines[place]

    def unstable(self, place: int) -> Tensor:
        """Return which units of a node with a kink can have either sign, bool[b, *shape]."""
        box = self.inputs[place]
        return (box.lower < 0) & (box.upper > 0)


@dataclass(frozen=True)
class Slopes:
    """The free slopes of the lines of elementwise nodes, by place, broadcast over [b, q, *].

    Args:
        lower: slopes of the lines below.
        upper: slopes of the lines above; only for smooth functions.
        signs: multipliers, at least 0, of the signs that were fixed; see Splits.
    """

    lower: Mapping[int, Tensor] = field(default_factory=dict)
    upper: Mapping[int, Tensor] = field(default_factory=dict)
    signs: Mapping[int, Tensor] = field(default_factory=dict)


Splits = Mapping[int, Tensor]
"""By place of a node with a kink, float[b, *shape]: 1 where its input is taken to be at least 0,
-1 where at most 0, 0 where nothing is taken."""


def intervals(network: Network, region: Region, splits: Splits | None = None) -> Relaxed:
    """Return the boxes of interval arithmetic (IBP), widened by their rounding.

    Args:
        network: whose nodes are bounded.
        region: the images.
        splits: signs that are assumed, see Splits.
    """
    return _forward(network, region, splits or {}, refine=False)


def crown(
    network: Network,
    region: Region,
    splits: Splits | None = None,
    *,
    until: float = math.inf,
) -> Relaxed:
    """Return for every node the better of IBP's and CROWN's boxes, one node after another.

    CROWN bounds the units that IBP leaves unstable, and all inputs of smooth functions.

    Args:
        network: whose nodes are bounded.
        region: the images.
        splits: signs that are assumed, see Splits.
        until: time.perf_counter() at which the remaining nodes keep IBP's bounds, which are as
            sound.
    """
    return _forward(network, region, splits or {}, refine=True, until=until)


def differences(labels: Tensor, classes: int, like: Tensor) -> Tensor:
    """Return the coefficients of the true logit less each other, float[b, classes - 1, classes]."""
    eye = torch.eye(classes, device=like.device, dtype=like.dtype)
    others = torch.arange(classes, device=labels.device).expand(len(labels), classes)
    others = others[others != labels[:, None]].reshape(len(labels), classes - 1)
    return eye[labels][:, None] - eye[others]


def lower_bounds(relaxed: Relaxed, coefficients: Tensor, slopes: Slopes | None = None) -> Tensor:
    """Return lower bounds of linear functions of the logits over the region, float[b, q].

    Each is the better of CROWN's, carried back through the relaxed network, and that of the last
    boxes.

    Args:
        relaxed: boxes around the input of each bent node.
        coefficients: float[b, q, classes].
        slopes: those that are chosen; None and missing ones take the default.
    """
    last = len(relaxed.network.nodes) - 1
    found = _backward(relaxed, last, coefficients, slopes or Slopes())
    return torch.maximum(found, interval_differences(relaxed, coefficients))


def at_bends(relaxed: Relaxed, coefficients: Tensor) -> dict[int, Tensor]:
    """Return the coefficients that CROWN carries back to each bent node's output, float[b, q, *].

    Args:
        relaxed: boxes around the input of each bent node.
        coefficients: float[b, q, classes].
    """
    seen: dict[int, Tensor] = {}
    _backward(relaxed, len(relaxed.network.nodes) - 1, coefficients, Slopes(), seen)
    return seen


def interval_differences(relaxed: Relaxed, coefficients: Tensor) -> Tensor:
    """Return the boxes' lower bounds of linear functions of the logits, float[b, q].

    The last layer is merged with the functions, which makes the bounds tighter.

    Args:
        relaxed: of intervals, for IBP's bounds.
        coefficients: float[b, q, classes].
    """
    network = relaxed.network
    node, place = network.nodes[-1], len(network.nodes) - 1
    constant = coefficients.new_zeros(coefficients.shape[:2])
    # Affine nodes at the end lose nothing when they are merged with the differences.
    while isinstance(node.operation, Affine):
        coefficients, more = node.operation.backward(coefficients)
        constant = constant + more
        place = node.inputs[0]
        node = network.nodes[place]
    box = relaxed.boxes[place]
    a = coefficients.flatten(2)
    lower = a.clamp(min=0) @ box.lower.flatten(1)[:, :, None]
    upper = a.clamp(max=0) @ box.upper.flatten(1)[:, :, None]
    mass = a.abs() @ torch.maximum(box.lower.abs(), box.upper.abs()).flatten(1)[:, :, None]
    return (lower + upper).squeeze(2) + constant - MARGIN * (1 + mass.squeeze(2) + constant.abs())


def _forward(
    network: Network, region: Region, splits: Splits, *, refine: bool, until: float = math.inf
) -> Relaxed:
    inputs: dict[int, Interval] = {}
    boxes: list[Interval] = []
    relaxed = Relaxed(network, region, inputs, boxes)
    exact = _exact(network, region)
    for place, node in enumerate(network.nodes):
        if place in network.bent:
            before = node.inputs[0]
            box = boxes[before]
            if refine and before not in exact:
                box = _refined(relaxed, place, before, box, until)
                boxes[before] = box
            if place in splits:
                sign = splits[place]
                lower = torch.where(sign > 0, box.lower.clamp(min=0), box.lower)
                upper = torch.where(sign < 0, box.upper.clamp(max=0), box.upper)
                # A sign that is impossible has an empty box, for which any bound is sound.
                box = Interval(torch.minimum(lower, upper), torch.maximum(lower, upper))
            inputs[place] = box
        boxes.append(_node_box(relaxed, place, boxes))
    return relaxed


def _exact(network: Network, region: Region) -> set[int]:
    """Return the places whose boxes of interval arithmetic can't be improved."""
    spread = {0}
    found = {0}
    for place, node in enumerate(network.nodes):
        if isinstance(node.operation, Affine) and node.inputs[0] in spread:
            if region.norm == "linf" or node.operation.diagonal:
                found.add(place)
            if node.operation.diagonal:
                spread.add(place)
    return found


def _refined(relaxed: Relaxed, place: int, before: int, box: Interval, until: float) -> Interval:
    """Return the box of node before, its units bounded by CROWN if that helps and time allows."""
    operation = relaxed.network.nodes[place].operation
    if isinstance(operation, Elementwise) and operation.curve.kink is not None:
        wanted = (box.lower < 0) & (box.upper > 0)
    else:
        wanted = box.upper > box.lower
    shape = box.lower.shape[1:]
    wanted = wanted.flatten(1)
    b, count = wanted.shape
    most = int(wanted.sum(1).max())
    if not most:
        return box
    # Each image's own units first; images with fewer bound some others too.
    order = wanted.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    widest = max(_size(node.shape) for node in relaxed.network.nodes[: before + 1])
    chunk = max(1, _NUMBERS // (2 * b * widest))
    lower, upper = box.lower.flatten(1).clone(), box.upper.flatten(1).clone()
    for start in range(0, most, chunk):
        if time.perf_counter() > until:
            break
        units = order[:, start : start + chunk]
        rows = torch.zeros(b, units.shape[1], count, device=lower.device, dtype=lower.dtype)
        rows.scatter_(2, units[:, :, None], 1.0)
        rows = rows.reshape(b, -1, *shape)
        found = _backward(relaxed, before, torch.cat([rows, -rows], 1), Slopes())
        low, high = found.chunk(2, 1)
        lower.scatter_reduce_(1, units, low, "amax")
        upper.scatter_reduce_(1, units, -high, "amin")
    better = Interval(lower.reshape(b, *shape), upper.reshape(b, *shape))
    return Interval(better.lower, torch.maximum(better.lower, better.upper))


def _backward(
    relaxed: Relaxed,
    place: int,
    coefficients: Tensor,
    slopes: Slopes,
    seen: dict[int, Tensor] | None = None,
) -> Tensor:
    """Return lower bounds, float[b, q], of linear functions of a node's output, float[b, q, *].

    seen gets the coefficients of every bent node's output.
    """
    nodes = relaxed.network.nodes
    waiting: dict[int, Tensor] = {place: coefficients}
    constant = coefficients.new_zeros(coefficients.shape[:2])
    size = constant
    for here in range(place, 0, -1):
        c = waiting.pop(here, None)
        if c is None:
            continue
        node = nodes[here]
        if seen is not None and here in relaxed.inputs:
            seen[here] = c
        parts, more = _through(relaxed, here, node, c, slopes)
        constant = constant + more
        size = size + more.abs()
        for before, part in zip(node.inputs, parts, strict=True):
            waiting[before] = waiting[before] + part if before in waiting else part
    if 0 not in waiting:
        return constant - MARGIN * (1 + size)
    found, mass = relaxed.region.lowest(waiting[0])
    return found + constant - MARGIN * (1 + mass + size)


def _through(
    relaxed: Relaxed, place: int, node: Node, c: Tensor, slopes: Slopes
) -> tuple[list[Tensor], Tensor]:
    """Return the coefficients of a node's inputs, and the constant that is added."""
    operation = node.operation
    none = c.new_zeros(c.shape[:2])
    if isinstance(operation, Affine):
        back, more = operation.backward(c)
        return [back], more
    if isinstance(operation, Sum):
        return [c if sign > 0 else -c for sign in operation.signs], none
    if isinstance(operation, Joined):
        return list(torch.split(c, list(operation.sizes), operation.dimension + 2)), none
    _, lines = relaxed.lines(place)
    above, below = c.clamp(max=0), c.clamp(min=0)
    if isinstance(operation, Maximum):
        b, q = c.shape[:2]
        flat_above, flat_below = above.flatten(2), below.flatten(2)
        spread = flat_above[..., None] * lines.upper_slope[:, None]
        spread = spread + flat_below[..., None] * lines.lower_slope[:, None]
        shape = relaxed.network.nodes[node.inputs[0]].shape
        back = operation.scattered(spread.flatten(0, 1), shape).reshape(b, q, *shape)
        return [back], (flat_above * lines.upper_offset[:, None].squeeze(-1)).sum(2)
    assert isinstance(operation, Elementwise)
    curve, box = operation.curve, relaxed.inputs[place]
    low, low_offset = lines.lower_slope[:, None], lines.lower_offset[:, None]
    high, high_offset = lines.upper_slope[:, None], lines.upper_offset[:, None]
    if place in slopes.lower:
        low = slopes.lower[place]
        if curve.kink is not None:
            # A line through (0, 0) with any slope between those of the pieces is below both.
            low_offset = torch.zeros_like(low_offset)
        else:
            ends = box.lower[:, None] + 0 * low, box.upper[:, None] + 0 * low
            low_offset = curve.offset(low, *ends, above=False)
    if place in slopes.upper:
        high = slopes.upper[place]
        ends = box.lower[:, None] + 0 * high, box.upper[:, None] + 0 * high
        high_offset = curve.offset(high, *ends, above=True)
    back = above * high + below * low
    if place in slopes.signs:
        back = back - slopes.signs[place]
    return [back], (above * high_offset + below * low_offset).flatten(2).sum(2)


def _node_box(relaxed: Relaxed, place: int, boxes: list[Interval]) -> Interval:
    """Return the box of a node from those of its inputs, widened by rounding."""
    node = relaxed.network.nodes[place]
    operation = node.operation
    if operation is None:
        return relaxed.region.box
    given = boxes[node.inputs[0]] if place not in relaxed.inputs else relaxed.inputs[place]
    if isinstance(operation, (Affine, Maximum)):
        box = operation.interval(given)
    elif isinstance(operation, Elementwise):
        box = Interval(*operation.curve.image(given.lower, given.upper))
    elif isinstance(operation, Sum):
        lower = upper = None
        for sign, i in zip(operation.signs, node.inputs, strict=True):
            part = boxes[i]
            ends = (part.lower, part.upper) if sign > 0 else (-part.upper, -part.lower)
            lower = ends[0] if lower is None else lower + ends[0]
            upper = ends[1] if upper is None else upper + ends[1]
        assert lower is not None
        assert upper is not None
        box = Interval(lower, upper)
    else:
        parts = [boxes[i] for i in node.inputs]
        along = operation.dimension + 1
        box = Interval(
            torch.cat([p.lower for p in parts], along), torch.cat([p.upper for p in parts], along)
        )
    if isinstance(operation, (Maximum, Joined)):
        return box
    if isinstance(operation, Elementwise) and operation.curve.kink is not None:
        return box
    margin = MARGIN * (1 + torch.maximum(box.lower.abs(), box.upper.abs()))
    if isinstance(operation, Affine) and operation.terms > 2:
        reach = torch.maximum(given.lower.abs(), given.upper.abs())
        margin = margin + MARGIN * operation.absolute(reach)
    return Interval(box.lower - margin, box.upper + margin)


def _size(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count
