"""Fixes of each fault, with the number to set."""

from __future__ import annotations

import math

from unmask.flow.judge.indicators import median, normalised, update_ratios
from unmask.flow.measure.statistics import FlowStats, LayerStats
from unmask.flow.theory import critical_sigma_w2
from unmask.models.activations import ACTIVATIONS

# The usual step changes weights by about a thousandth of their size.
USUAL_RATIO = 1e-3
# Normalisation layers that multiply by less than this shrink the signal, layer by layer.
SMALL_NORM = 0.3
# Numbers of this size and more are far from the smallest of any format but float16.
HALF = 1e-30
SCALED = (
    "scale the loss with torch.amp.GradScaler, or train in bfloat16 or float32; a mean over images "
    "needs no further division"
)
# The bias variance at which an activation's critical line is used: 0 where it has a point there.
# GELU and SiLU have none below 0.173 and 0.555; biases that large train worse than normalisation.
BIAS_VARIANCE = {"tanh": 0.05, "lecun": 0.05, "erf": 0.05}


def critical(activation: str) -> tuple[float, float] | None:
    """Return (sigma_w2, sigma_b2) at which gradients keep their size, or None where unknown."""
    if activation not in ACTIVATIONS:
        return None
    sigma_b2 = BIAS_VARIANCE.get(activation, 0.0)
    sigma_w2 = critical_sigma_w2(activation, sigma_b2)
    return None if sigma_w2 is None else (sigma_w2, sigma_b2)


def main_activation(stats: FlowStats) -> str | None:
    """Return the activation that follows most layers, or None where none is known."""
    names = [x.slopes.activation for x in stats.matrix_layers if x.slopes]
    return max(set(names), key=lambda n: (names.count(n), n)) if names else None


def initialise(stats: FlowStats) -> str:
    """Return the critical initialisation for the network's activation, in words."""
    name = main_activation(stats)
    if name in (None, "sigmoid", "softplus", "hardsigmoid", "logsigmoid"):
        what, instead = critical("tanh"), "tanh"
        lead = "use tanh" if name is None else f"use tanh instead of {name}"
    else:
        assert name is not None
        what, instead, lead = critical(name), name, f"initialise for {name}"
    if normalised(stats):
        small = _small_norms(stats)
        if small is not None:
            return (
                "initialise the weights of the normalisation layers with 1: their RMS is "
                f"{small:.2g}"
            )
        return "warm the learning rate up over the first few hundred steps, or lower it"
    if what is None:
        return f"put a normalisation layer after every layer, or use tanh instead of {instead}"
    return f"{lead} with sigma_w2 = {what[0]:.3g}, sigma_b2 = {what[1]:.2g}"


def at_random(stats: FlowStats) -> str:
    """Return how to break the symmetry of units that are all alike."""
    if normalised(stats):
        return "draw the weights at random, as each layer's reset_parameters() does"
    return initialise(stats)


def faded(stats: FlowStats) -> str:
    """Return how to let more gradient through to the first layers."""
    if normalised(stats) and not _small_norms(stats):
        return "skip connections past the layers that follow, or larger scales (layer scale, gains)"
    return initialise(stats)


def _small_norms(stats: FlowStats) -> float | None:
    """Return the RMS of the normalisation layers' weights where it is small, or None."""
    sizes = [x.weight.rms for x in stats.layers if "Norm" in x.kind and x.weight is not None]
    return median(sizes) if sizes and median(sizes) < SMALL_NORM else None


def dead(stats: FlowStats, layer: LayerStats) -> str:
    """Return how to revive the units after a layer."""
    rate = f", learning rate {rounded(stats.learning_rate / 10)}" if stats.learning_rate else ""
    return f"set the biases of {layer.name} to 0 and use leaky ReLU (slope 0.01){rate}"


def saturated(stats: FlowStats, layer: LayerStats) -> str:
    """Return by what to divide the weights so that pre-activations have unit size."""
    assert layer.output is not None
    if layer.output.rms > 1:
        return f"divide the weights and biases of {layer.name} by {layer.output.rms:.2g}"
    if normalised(stats):
        return f"normalise between {layer.name} and its activation, with gains of 1"
    return initialise(stats)


def underflow(stats: FlowStats, largest: float, what: str) -> str:
    """Return what keeps numbers within their format.

    Args:
        stats: of one step.
        largest: of the numbers and their neighbours; only in float16 are large ones too small.
        what: they are, "outputs" or "weight gradients".
    """
    if largest < HALF:
        return initialise(stats)
    return SCALED if what != "outputs" else "compute them in bfloat16 or float32"


def diverged(history: list[FlowStats]) -> str:
    """Return the learning rate that would not have diverged, in words."""
    if history[0].learning_rate is None or len(history) < 2:
        return f"{initialise(history[0])}, and check the inputs for NaN"
    return slower(history)


def slower(history: list[FlowStats]) -> str:
    """Return the learning rate that brings the first step's update ratio to the usual, in words."""
    return f"learning rate {rounded(slower_rate(history))}"


def slower_rate(history: list[FlowStats]) -> float:
    """Return that learning rate as a number, at most a third of the present one."""
    rate = history[0].learning_rate or 1e-2
    ratios = update_ratios(history[0])
    scale = USUAL_RATIO / max(ratios) if ratios and max(ratios) > 0 else 0.1
    return rate * min(scale, 1 / 3)


def faster(history: list[FlowStats]) -> str:
    """Return the learning rate that brings the update ratio up to the usual, in words."""
    return f"learning rate {rounded(faster_rate(history))}"


def faster_rate(history: list[FlowStats]) -> float:
    """Return that learning rate as a number, at least three times the present one."""
    rate = history[-1].learning_rate or 1e-3
    ratios = update_ratios(history[-1])
    middle = ratios[len(ratios) // 2] if ratios else 0.0
    return rate * (max(USUAL_RATIO / middle, 3.0) if middle > 0 else 10.0)


def rounded(rate: float) -> str:
    """Return a learning rate to one digit: 3e-3."""
    if not (rate > 0 and math.isfinite(rate)):
        return "1e-3"
    mantissa, _, exponent = f"{rate:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}"
