"""The layers of a network, and what is measured of them during one probed step."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unmask.flow.measure.drawn import drawn
from unmask.flow.measure.magnitude import ENTRIES, SAFE, Magnitude, few, measure
from unmask.flow.measure.slopes import alive, describe
from unmask.flow.measure.statistics import QUANTILES, InputStats, LayerStats, Slopes

PROBE_IMAGES = 512
# The fewest rows of a table whose columns are compared, and the most columns.
_ROWS, _COLUMNS = 16, 1024
_CONVOLUTIONS = ("Conv1d", "Conv2d", "Conv3d", "ConvTranspose")
# Parameters that are added or looked up, whatever their shape: tokens, position tables, prompts.
_LOOKED_UP = re.compile(r"token|pos|embed|bias|table|prompt|query|scale|gamma|beta|anchor", re.I)


@dataclass(frozen=True)
class Layer:
    """A module with parameters of its own.

    Args:
        name: as in named_modules, "(model)" for the network itself.
        module: with the parameters.
        weights: its parameters of two dimensions or more, or all where there is none.
        names: of the weights in the module.
    """

    name: str
    module: nn.Module
    weights: tuple[nn.Parameter, ...]
    names: tuple[str, ...] = ()

    @property
    def matrix(self) -> bool:
        """Return whether the layer mixes units, rather than scaling, shifting or looking up."""
        return any(
            sum(n > 1 for n in w.shape) > 1
            # A layer of one unit, or of units with one input.
            or (name == "weight" and (w.ndim == 2 or (w.ndim > 2 and max(w.shape[:2]) > 1)))
            for name, w in zip(self.names, self.weights, strict=True)
            if not _LOOKED_UP.search(name)
        )

    @property
    def fan_in(self) -> int:
        """Return the number of inputs of one unit."""
        largest = max(self.weights, key=lambda w: w.numel())
        return largest[0].numel() if largest.ndim > 1 else 1

    def single(self, z: Tensor) -> bool:
        """Return whether an output is that of one image, which came without a batch."""
        return z.ndim == 1 and len(z) == max(self.weights, key=lambda w: w.numel()).shape[0] > 1

    @property
    def unit_dim(self) -> int:
        """Return which dimension of the output counts the units."""
        return 1 if type(self.module).__name__.startswith(_CONVOLUTIONS) else -1


def layers_of(model: nn.Module) -> list[Layer]:
    """Return the layers of a network in the order of registration, tied weights once."""
    owners: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for path, parameter in model.named_parameters():
        # A parametrised weight (such as weight_norm's) lives one module below its layer.
        owner = (
            path.rpartition(".")[0]
            .split(".parametrizations", 1)[0]
            .removesuffix("parametrizations")
        )
        # A parametrised weight's parts, such as "original0", get the layer's own name.
        called = path.removeprefix(f"{owner}.").replace("parametrizations.", "").split(".")[0]
        owners.setdefault(owner, []).append((called, parameter))
    layers = []
    for name, own in owners.items():
        kept = [(called, p) for called, p in own if p.ndim > 1] or own
        layers.append(
            Layer(
                name or "(model)",
                model.get_submodule(name),
                tuple(p for _, p in kept),
                tuple(called for called, _ in kept),
            )
        )
    return layers


def attends(model: nn.Module) -> bool:
    """Return whether a network has attention layers, by their names."""
    return any("attention" in type(m).__name__.lower() for m in model.modules())


@dataclass
class Tally:
    """The rows that measure returns for tensors that belong together.

    Args:
        rows: one for each tensor.
        counts: entries of each tensor.
    """

    rows: list[tuple[float, ...]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def add(self, tensor: Tensor, scale: float = 1.0) -> None:
        """Measure a tensor whose entries are scale times too large."""
        largest, *rest = measure(tensor)
        self.rows.append((largest / scale, *rest))
        self.counts.append(tensor.numel())

    def read(self) -> Magnitude | None:
        """Return the magnitude of everything added, or None."""
        return Magnitude.pooled(self.rows, self.counts)


@dataclass
class Collected:
    """The measurements of one layer during a probed step.

    Args:
        layer: the layer.
        place: in the order of execution.
        output: of z.
        output_gradient: of dE/dz.
        weight: of W.
        weight_gradient: of dE/dW.
        output_size: entries of z an image.
        contrasts: the variations of z over images and over units, a row for each pass.
        weight_spread: see LayerStats.
        gradient_spread: see LayerStats.
        activation: the name of the one that follows, "" for none.
        slopes: what describe returned for each pass.
        update_to_weight_ratio: see LayerStats.
        expected_gain: see LayerStats.
        beside: see LayerStats.
        matched: see LayerStats.
    """

    layer: Layer
    place: int
    output: Tally = field(default_factory=Tally)
    output_gradient: Tally = field(default_factory=Tally)
    weight: Tally = field(default_factory=Tally)
    weight_gradient: Tally = field(default_factory=Tally)
    output_size: int = 0
    contrasts: list[tuple[float, ...]] = field(default_factory=list)
    weight_spread: float | None = None
    gradient_spread: float | None = None
    activation: str = ""
    slopes: list[tuple[float, ...]] = field(default_factory=list)
    update_to_weight_ratio: float | None = None
    expected_gain: float | None = None
    beside: str | None = None
    matched: float = 1.0

    def see_output(self, z: Tensor) -> None:
        """Measure an output: its size, and its variation over images and over units."""
        single = self.layer.single(z)
        z = few(z)
        self.output.add(z)
        self.output_size = len(z) if single else z[0].numel() if z.ndim > 1 else 1
        over_units = spread(z, self.layer.unit_dim if z.ndim > 1 else 0)
        self.contrasts.append((math.nan if single else spread(z, 0), over_units))

    def see_slope(self, name: str, slope: Tensor, supremum: float) -> None:
        """Measure an activation's derivative."""
        self.activation = name
        self.slopes.append(describe(slope, supremum))

    def see_weights(self, scale: float) -> None:
        """Measure the weights and their gradients, which are scale times too large."""
        if self.weight.rows:
            return
        for w in self.layer.weights:
            self.weight.add(w)
            if w.grad is not None:
                self.weight_gradient.add(w.grad, scale)
        if len(self.layer.weights) > 1:
            self.matched = _matched(self.layer.weights)
        largest = max(self.layer.weights, key=lambda w: w.numel())
        # A single unit has no other to compare with.
        if largest.ndim > 1 and len(largest) > 1:
            self.weight_spread = spread(largest.detach(), 0)
            if largest.grad is not None and not largest.grad.is_sparse:
                self.gradient_spread = spread(largest.grad, 0)

    def read(self, dead: float | None, dead_pictures: int) -> LayerStats:
        """Return the layer's statistics as plain numbers."""
        contrast = _mean(self.contrasts)
        return LayerStats(
            name=self.layer.name,
            kind=type(self.layer.module).__name__.removeprefix("Parametrized"),
            matrix=self.layer.matrix,
            frozen=not any(w.requires_grad for w in self.layer.weights),
            fan_in=self.layer.fan_in,
            weight=self.weight.read(),
            weight_gradient=self.weight_gradient.read(),
            weight_spread=self.weight_spread,
            gradient_spread=self.gradient_spread,
            output=self.output.read(),
            output_size=self.output_size,
            output_gradient=self.output_gradient.read(),
            variation=contrast[0] if contrast and not math.isnan(contrast[0]) else None,
            spread=contrast[1] if contrast else None,
            slopes=self._read_slopes(dead, dead_pictures),
            update_to_weight_ratio=self.update_to_weight_ratio,
            expected_gain=self.expected_gain,
            beside=self.beside,
            matched=self.matched,
            drawn=self._drawn(),
        )

    def _drawn(self) -> bool | None:
        weights = self.layer.weights
        if any(w.requires_grad for w in weights):
            return False
        own = {id(w) for w in weights}
        rest = [p for p in self.layer.module.parameters(recurse=False) if id(p) not in own]
        return drawn(weights, rest)

    def _read_slopes(self, dead: float | None, dead_pictures: int) -> Slopes | None:
        figures = _mean(self.slopes)
        if not figures or dead is None:
            return None
        n = len(QUANTILES)
        return Slopes(
            self.activation,
            tuple(figures[:n]),
            rms=figures[n],
            supremum=figures[n + 1],
            saturated=figures[n + 2],
            dead=dead,
            dead_pictures=dead_pictures,
        )


def _matched(weights: Sequence[Tensor]) -> float:
    norms = [
        (float(torch.linalg.vector_norm(w.grad)), float(torch.linalg.vector_norm(w.detach())))
        for w in weights
        if w.grad is not None and not w.grad.is_sparse
    ]
    together = math.prod(math.hypot(*part) for part in zip(*norms, strict=True))
    known = 0 < together < math.inf
    return sum(g * w for g, w in norms) / together if known else 1.0


class Units:
    """Counts for how many images in a row every unit's derivative has been dead.

    One batch shows little: a unit that is silent on 64 images may fire on the next. So the count
    continues over the probed steps, and a unit is dead after PROBE_IMAGES images.
    """

    def __init__(self) -> None:
        self._silent: Tensor | None = None
        self.images = 0

    def see(self, slope: Tensor, supremum: float, unit_dim: int) -> None:
        """Add the derivatives of a batch.

        Args:
            slope: phi', [images, ...] with units along unit_dim.
            supremum: the largest |phi'| of the activation.
            unit_dim: the dimension of the units.
        """
        fired = alive(slope, supremum, unit_dim)
        n = len(slope) if slope.ndim > 1 else 1
        if self._silent is None or self._silent.shape != fired.shape:
            self._silent = torch.zeros_like(fired, dtype=torch.int64)
            self.images = 0
        self._silent = (self._silent + n).masked_fill(fired, 0)
        self.images = min(self.images + n, PROBE_IMAGES)

    def dead(self) -> float | None:
        """Return the fraction of units that are dead, or None when none was seen."""
        if self._silent is None:
            return None
        return (self._silent >= self.images).double().mean().item()


def scattered(tensor: Tensor) -> Tensor:
    """Return a few places of all images of a batch, or its first images where they have no places.

    How images differ is a fact of all of them: a few may lie far from the others.
    """
    if tensor.ndim > 2:
        step = -(-tensor.numel() // ENTRIES)
        tensor = tensor[..., :: max(1, min(step, tensor.shape[-1]))]
    return few(tensor)


def spread(x: Tensor, dim: int) -> float:
    """Return RMS(x - mean of x over dim) / RMS(x), 0 where x is 0 throughout."""
    x = x.detach()
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    norm = float(torch.linalg.vector_norm(x))
    if not SAFE[0] < norm < SAFE[1]:
        largest = float(x.abs().amax())
        if largest == 0 or not math.isfinite(largest):
            return 0.0
        x = x / largest
        norm = float(torch.linalg.vector_norm(x))
    mean = x.mean(dim, keepdim=True)
    between = float(torch.linalg.vector_norm(mean)) * math.sqrt(x.numel() / max(mean.numel(), 1))
    share = 1 - (between / norm) ** 2
    # A small difference of two large numbers is taken entry by entry.
    return math.sqrt(share) if share > 0.01 else float(torch.linalg.vector_norm(x - mean)) / norm


def input_stats(x: Tensor) -> InputStats:
    """Return the mean, the standard deviation and the largest size of a tensor's entries."""
    computed, images = x.requires_grad, len(x) if x.ndim > 1 else 1
    x = few(x.detach())
    x = x.float() if x.element_size() < 4 else x
    mean = x.mean()
    deviation = float(torch.linalg.vector_norm(x - mean)) / math.sqrt(x.numel())
    variation = spread(x, 0) if x.ndim > 1 and len(x) > 1 else None
    drowned = None if computed else _drowned(x)
    largest = float(x.abs().amax())
    zero = 1 - int(torch.count_nonzero(x)) / x.numel()
    return InputStats(float(mean), deviation, largest, variation, computed, images, drowned, zero)


def _drowned(x: Tensor) -> float | None:
    """Return the fraction of a table's columns that vary by less than a hundredth of the most."""
    if x.ndim != 2 or len(x) < _ROWS or not 1 < x.shape[1] <= _COLUMNS:
        return None
    low, high = x.amin(0), x.amax(0)
    # Columns of two values are answers to a question, which may be rare.
    numbers = ~((x == low) | (x == high)).all(0)
    varies = x.std(0)[numbers]
    if len(varies) < 2 or not bool(varies.isfinite().all()):
        return None
    return float((varies < 0.01 * varies.amax()).float().mean())


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors of a module's input or output, however deeply nested."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.numel():
            yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from tensors_in(v)
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from tensors_in(v)


def _mean(rows: list[tuple[float, ...]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]
