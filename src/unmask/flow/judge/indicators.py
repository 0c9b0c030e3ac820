"""Scale-free indicators of a step's statistics: how a gradient fades with depth, and why."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from unmask.flow.measure.calls import LossCall
from unmask.flow.measure.statistics import FlowStats, LayerStats, Slopes
from unmask.stats import student_t

# The spread of log10 RMS between equal layers of width 256: no fit can be more certain than this.
LAYER_NOISE = 0.1

# Steps from the start within which a network is judged by its loss's response to its weights: one
# that has learnt all it can no longer responds.
FRESH = 20
# A network whose loss has fallen to this fraction of its first learns.
LEARNS = 0.95

UNBORN = 0.1
# The losses of regressions, and one computed by hand.
_OF_NUMBERS = ("mse", "l1", "smooth_l1", "huber", "difference")

# In a network that trains, a relative change of any layer's weights changes the loss by about the
# same fraction. Below this not even doubling the weights changes it by 1 %.
UNRESPONSIVE = 0.005
TABLES = ("Embedding", "EmbeddingBag")
# How many times as much the loss answers to a layer than to those before it, if they are beside it.
BRANCH = 2000.0
# A response that has grown by this is coming back; one that is less than this fraction of another
# layer's is far from it.
RISES, APART = 10.0, 0.05
# Of a table of words, which the gradient reaches last.
TABLE = 0.03

# The fraction of standard normal inputs that meet a flat end: beyond 1 of hardtanh, below 0 of
# relu6. Smooth activations are flat for hardly any.
FLAT = {"hardtanh": math.erfc(math.sqrt(0.5)), "relu6": 0.5}


@dataclass(frozen=True)
class Decay:
    """The straight line through log10 of the gradient's norm, layer by layer from the input.

    Args:
        per_layer: the change from a layer to the one before it, in powers of ten; negative where
            the gradient fades on its way back.
        low: the lower bound of per_layer, with 95 % confidence.
        high: the upper bound.
        layers: how many the gradient crosses.
    """

    per_layer: float
    low: float
    high: float
    layers: int

    @property
    def total(self) -> tuple[float, float]:
        """Return the bounds of the change across all layers, in powers of ten."""
        return self.low * self.layers, self.high * self.layers


@dataclass(frozen=True)
class Factors:
    """The factors on the gradient from layer to layer, geometric means.

    Args:
        derivative: of the activation's derivative.
        weights: of the weights.
    """

    derivative: float
    weights: float

    def cause(self, fading: bool) -> str:
        """Return which factor is responsible, in words with its figure."""
        if (self.derivative < self.weights) if fading else (self.derivative > self.weights):
            return f"derivative factor {self.derivative:.2g} a layer (weights {self.weights:.2g})"
        return f"weight factor {self.weights:.2g} a layer (derivative {self.derivative:.2g})"


def gradient_norm(layer: LayerStats) -> float:
    """Return the norm of dE/dz of a layer for one image, which does not depend on its width.

    Args:
        layer: one layer at one step.

    Returns:
        NaN where it was not measured.
    """
    if layer.output_gradient is None:
        return math.nan
    return layer.output_gradient.rms * math.sqrt(layer.output_size)


def decay(stats: FlowStats) -> Decay | None:
    """Fit the gradient's decay over the hidden layers.

    Layers of one kind are compared with one another: a branch has a scale of its own, and the
    gradient of a residual stream shows in each kind of layer alike. Of several kinds the one with
    most layers counts, and of equally many the one whose gradient keeps its size best.

    Args:
        stats: of one step.

    Returns:
        None with fewer than three layers that have a gradient.
    """
    norms = [gradient_norm(layer) for layer in stats.matrix_layers[:-1]]
    points = [(i, math.log10(n)) for i, n in enumerate(norms) if 0 < n < math.inf]
    roles: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for i, y in points:
        layer = stats.matrix_layers[i]
        roles.setdefault((re.sub(r"\d+", "#", layer.name), layer.kind), []).append((i, y))
    alike = [p for p in roles.values() if len(p) > 2]
    # With layers of many names and kinds, each a few times, all are fitted in their order.
    fits = [fit for p in alike or [points] if (fit := _fit(p)) is not None]
    most = max(map(len, alike), default=0)
    best = [f for f, p in zip(fits, alike, strict=False) if len(p) == most] or fits
    return min(best, key=lambda f: abs(f.per_layer * f.layers), default=None)


def _fit(points: list[tuple[int, float]]) -> Decay | None:
    if len(points) < 3:
        return None
    n = len(points)
    mean_x = sum(x for x, _ in points) / n
    mean_y = sum(y for _, y in points) / n
    sxx = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sxx
    residual = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    error = math.sqrt(max(residual / (n - 2), LAYER_NOISE**2) / sxx)
    reach = student_t(n - 2) * error
    return Decay(slope * -1, -slope - reach, -slope + reach, points[-1][0] - points[0][0])


def factors(stats: FlowStats) -> Factors | None:
    """Split the mean factor between hidden layers into derivative and weights.

    dE/dz of a layer is phi'(z) times the next layer's weights times its dE/dz.

    Args:
        stats: of one step.

    Returns:
        None where phi' is not known.
    """
    derivative: list[float] = []
    weights: list[float] = []
    layers = stats.matrix_layers
    # The output layer has another width; its factor counts only where there are few others.
    for layer, after in pairwise(layers[:-1] if len(layers) > 3 else layers):
        here, there = gradient_norm(layer), gradient_norm(after)
        if layer.slopes is None or not (0 < here < math.inf and 0 < there < math.inf):
            continue
        if layer.slopes.rms > 0:
            derivative.append(math.log10(layer.slopes.rms))
            weights.append(math.log10(here / there) - derivative[-1])
    if not derivative:
        return None
    return Factors(_geometric(derivative), _geometric(weights))


def way_round(stats: FlowStats) -> float | None:
    """Return how much more gradient passes a layer than its weights transmit, in powers of ten.

    Through one layer alone the gradient's norm changes by sqrt(E[phi'^2]) |W| / sqrt(units), where
    W are the next layer's weights; in a plain network the result is 0. Where something bypasses the
    layers, as in a residual network, the norm changes by more.

    Args:
        stats: of one step.

    Returns:
        The median over the layers; None where too little is known.
    """
    off = []
    for layer, after in pairwise(stats.matrix_layers[:-1]):
        here, there, weight = gradient_norm(layer), gradient_norm(after), after.weight
        if layer.slopes is None or weight is None or not (here > 0 and there > 0):
            continue
        through = layer.slopes.rms * weight.rms * math.sqrt(after.fan_in)
        if through > 0:
            off.append(math.log10(here / there / through))
    return median(off) if off else None


def sensitivities(stats: FlowStats) -> list[float]:
    """Return for each layer that mixes units the loss's relative response to W, |dE/dW| |W| / E.

    It is about 1 in a network that trains, whatever its width, loss or optimiser. Relative to one
    another the layers show little, since small weights make all of them fade alike.

    Args:
        stats: of one step.

    Returns:
        One number a layer; NaN where it was not measured or the loss is not known, or is below
        zero, where it has no natural size.
    """
    if not stats.loss or stats.loss < 0:
        return [math.nan for _ in stats.matrix_layers]
    return [
        layer.weight_gradient.rms
        * layer.weight.rms
        * layer.weight.count
        * layer.matched
        / stats.loss
        if layer.weight is not None and layer.weight_gradient is not None
        else math.nan
        for layer in stats.matrix_layers
    ]


def front_response(stats: FlowStats) -> tuple[float, LayerStats] | None:
    """Return how the loss responds to the layers at the input, and to which of them most.

    These are the first eighth of the layers that mix units, and at least one, with those that read
    the same tensor, as queries, keys and values do: where the loss responds to one of them, the
    gradient has come all the way, even if side branches keep their own. So it has where the next
    layer answers thousands of times as much. Layers that are small by
    design, among others that are not, and an output layer that starts at zero are judged as if
    their weights had the usual size.

    Args:
        stats: of one step.

    Returns:
        The response and the layer; None where nothing is known.
    """
    layers, response = stats.matrix_layers, sensitivities(stats)
    if len(layers) < 2:
        return None
    last, hidden = layers[-1], list(zip(response[:-1], layers[:-1], strict=True))
    small = sum(unborn(x) for _, x in hidden) <= len(hidden) / 2
    end = 1.0
    if unborn(last) and last.weight is not None:
        end = last.weight.rms * math.sqrt(last.fan_in)
    found = []
    for r, x in hidden:
        size = x.weight.rms * math.sqrt(x.fan_in) if x.weight is not None else 1.0
        scale = end * (size if small and unborn(x) else 1.0)
        if not math.isnan(r) and scale > 0 and x.kind not in TABLES:
            found.append((r / scale, x))
    eighth = max(1, len(hidden) // 8)
    names = {x.name for _, x in found[:eighth]}
    front = found[:eighth] + [(r, x) for r, x in found[eighth:] if x.beside in names]
    silent = max((r for r, _ in front), default=0.0)
    if len(found) > len(front) and 0 < BRANCH * silent < found[eighth][0]:
        # No layer of a chain takes so much of the gradient: these stand on a branch.
        front.append(found[eighth])
    return max(front, key=lambda pair: pair[0]) if front else None


def words_answer(stats: FlowStats) -> bool:
    """Return whether the loss responds to a table of words that the first half of the layers holds.

    The gradient has then come all the way, however little branches beside its path get.

    Args:
        stats: of one step.
    """
    answers = zip(sensitivities(stats), stats.matrix_layers, strict=True)
    first = list(answers)[: (len(stats.matrix_layers) + 1) // 2 + 1]
    return any(x.kind in TABLES and r >= TABLE for r, x in first)


def natural(stats: FlowStats) -> float:
    """Return the loss over its natural size, at most 1.

    A loss of the user's own, such as a difference of means, may lie near 0 by chance, and that of a
    regression is small where its targets are; outputs tell how large they can be. A cross-entropy
    is as large as that of guessing, unless its task is solved at the start, as that of telling two
    views of one image from other images may be.

    Args:
        stats: of one step.
    """
    to_guessing = [c.value / math.log(c.shape[1]) for c in stats.calls if c.value and _guesses(c)]
    if to_guessing:
        return min(1.0, max(to_guessing))
    last = stats.matrix_layers[-1].output if stats.matrix_layers else None
    if sized(stats) or last is None or not stats.loss or last.rms <= stats.loss:
        return 1.0
    return stats.loss / last.rms


def sized(stats: FlowStats) -> bool:
    """Return whether a loss is fed scores of classes, and so has a size of its own.

    Args:
        stats: of one step.
    """
    return any(not c.name.startswith(_OF_NUMBERS) for c in stats.calls)


def _guesses(call: LossCall) -> bool:
    several = len(call.shape) > 1 and call.shape[1] > 1
    return call.name == "cross_entropy" and call.reduction == "mean" and several


def normalised(stats: FlowStats) -> bool:
    """Return whether the network has normalisation, so that its weights' scale matters little."""
    norms = sum("Norm" in layer.kind for layer in stats.layers)
    return norms > 1 and norms >= len(stats.matrix_layers) / 8


def adaptive(stats: FlowStats) -> bool:
    """Return whether the optimiser divides by the gradient's size, so a small one matters less."""
    name = (stats.optimizer or "").lower()
    return any(part in name for part in ("ada", "rmsprop", "rprop", "lion", "lamb", "novograd"))


def comes_back(history: list[FlowStats], weakest: float) -> bool:
    """Return whether a faint response of the loss is likely to grow by itself.

    Of a network whose parts start near zero it grows with every step; where the gradient vanishes
    it stays as it is. And where steps don't depend on the gradient's size, what counts is whether
    the loss responds to other layers much more.

    Args:
        history: of one training, in order.
        weakest: the response to the layers at the input.
    """
    last = [front[0] for s in history[-2:] if (front := front_response(s)) is not None]
    if len(last) == 2 and last[1] > max(last[0], RISES * weakest):
        return True
    if not last or not adaptive(history[-1]) or normalised(history[0]):
        return False
    return 0 < max(finite(sensitivities(history[-1])), default=0.0) < last[-1] / APART


def relative_gain(stats: FlowStats) -> float | None:
    """Return the step's expected decrease of the loss over the loss, or None."""
    gains = [x.expected_gain for x in stats.layers if x.expected_gain is not None]
    if not gains or not stats.loss or stats.loss < 0:
        return None
    return sum(gains) / stats.loss


def unborn(layer: LayerStats) -> bool:
    """Return whether a layer's weights are still (nearly) zero, as of an output layer set to 0.

    Its first updates are large beside its weights, and little gradient passes it, which is no
    fault.

    Args:
        layer: one layer at one step; weights of the usual size have an RMS of about 1 /
            sqrt(fan_in).
    """
    return layer.weight is not None and layer.weight.rms * math.sqrt(layer.fan_in) < UNBORN


def saturated_beyond(slopes: Slopes) -> float:
    """Return the saturated fraction of the inputs that would not be if all had unit size."""
    flat = FLAT.get(slopes.activation, 0.0)
    return (slopes.saturated - flat) / (1 - flat)


def update_ratios(stats: FlowStats) -> list[float]:
    """Return, sorted, the update-to-weight ratios of the layers that mix units and were updated.

    Layers whose weights are nearly zero count only where all are.

    Args:
        stats: of one step.
    """
    layers = [x for x in stats.matrix_layers if x.update_to_weight_ratio is not None]
    grown = [x for x in layers if not unborn(x)] or layers
    return sorted(finite([x.update_to_weight_ratio or 0.0 for x in grown]))


def finite(values: Sequence[float]) -> list[float]:
    """Return the values that are neither NaN nor infinite."""
    return [v for v in values if math.isfinite(v)]


def pace(stats: FlowStats) -> float | None:
    """Return how fast the weights change: the typical update ratio, or the output layer's.

    The latter is relative to weights of the usual size, RMS 1 / sqrt(fan_in): as long as the output
    layer is small, it holds the others back.

    Args:
        stats: of one step.

    Returns:
        The larger of the two; None before any update.
    """
    ratios, layers = update_ratios(stats), stats.matrix_layers
    if not ratios or all(x.kind in TABLES for x in layers):
        # A step moves the rows of a table that its batch asks for, and no others.
        return None
    last = layers[-1]
    if last.update_to_weight_ratio is None or last.weight is None:
        return median(ratios)
    change = last.update_to_weight_ratio * last.weight.rms
    return max(median(ratios), change * math.sqrt(last.fan_in))


def median(values: Sequence[float]) -> float:
    """Return the middle value, or the upper one of two."""
    return sorted(values)[len(values) // 2]


def _geometric(logs: list[float]) -> float:
    return float(10 ** (sum(logs) / len(logs)))


def learns(history: Sequence[FlowStats]) -> bool:
    """Return whether the loss has fallen to LEARNS of its first value."""
    losses = [s.loss for s in history if s.loss is not None]
    return len(losses) > 1 and losses[-1] < LEARNS * losses[0]
