"""The published rules of three other tools, on the same statistics of the same ten steps.

AutoTrainer (ICSE 2021) also watches accuracy from epoch to epoch: its rules on that are given the
whole training, which is thirty times what the others see. SageMaker Debugger's and DeepDiagnosis'
rules about saturation are about inputs of an activation; as phi' falls with the distance from 0,
they are read off its median.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from fault_labels import Case

from unmask.flow.judge.indicators import update_ratios
from unmask.flow.measure.magnitude import Magnitude
from unmask.flow.measure.statistics import FlowStats, LayerStats

# phi' where the rule draws its line: tanh at 9.5 and 5, the sigmoid at 17 and 5.
TANH_LINE = {9.5: 1 - math.tanh(9.5) ** 2, 5.0: 1 - math.tanh(5.0) ** 2}
SIGMOID_LINE = {17.0: math.exp(-17.0), 5.0: math.exp(-5.0) / (1 + math.exp(-5.0)) ** 2}


def broken(history: Sequence[FlowStats]) -> bool:
    """Return whether any figure was NaN or infinite, which every tool reports."""
    return any(
        not all(map(math.isfinite, [x for x in (s.loss, s.loss_after) if x is not None]))
        or any(g is not None and not g.finite for x in s.layers for g in (x.weight_gradient,))
        for s in history
    )


def gradients(stats: FlowStats) -> list[Magnitude]:
    return [x.weight_gradient for x in stats.matrix_layers if x.weight_gradient is not None]


def norm(g: Magnitude) -> float:
    return g.rms * math.sqrt(g.count)


def autotrainer(case: Case, history: Sequence[FlowStats]) -> bool:
    if broken(history):
        return True
    for stats in history:
        gs = gradients(stats)
        first, last = norm(gs[0]), norm(gs[-1])
        ratio = first / last if last > 0 else math.inf if first > 0 else 0.0
        if (ratio < 1e-3 and first < 1e-4) or ratio > 70:
            return True
        if sum(g.zero * g.count for g in gs) >= 0.7 * sum(g.count for g in gs):
            return True
        if max((x.output.mean for x in stats.matrix_layers if x.output), default=0.0) >= 10:
            return True
    steps = [b - a for a, b in zip(case.accuracies, case.accuracies[1:], strict=False)]
    return sum(s <= -0.03 for s in steps) >= 0.2 * len(steps) or max(steps) < 0.01


def sagemaker(case: Case, history: Sequence[FlowStats], poor_init: bool = True) -> bool:
    if broken(history):
        return True
    for stats in history:
        if any(g.mean < 1e-7 for g in gradients(stats)):
            return True
        if any(x.slopes and x.slopes.dead > 0.5 for x in stats.matrix_layers):
            return True
        if any(beyond(x, 9.5, 17.0) for x in stats.matrix_layers):
            return True
        if any(not 1e-8 <= r <= 10 for r in update_ratios(stats)):
            return True
        variances = [x.weight.rms**2 for x in stats.matrix_layers if x.weight and x.weight.rms]
        # A gradient's 5 to 95 percentile range is about 3.3 times its RMS.
        narrow = any(3.3 * g.rms < 1e-3 for g in gradients(stats))
        if poor_init and (narrow or (variances and max(variances) > 10 * min(variances))):
            return True
    return False


def deepdiagnosis(case: Case, history: Sequence[FlowStats]) -> bool:
    if broken(history):
        return True
    for stats in history:
        rectified = [
            x.slopes.saturated
            for x in stats.matrix_layers
            if x.slopes and x.slopes.activation in ("relu", "leaky_relu")
        ]
        if any(share >= 0.7 for share in rectified):
            return True
        if any(beyond(x, 5.0, 5.0) for x in stats.matrix_layers):
            return True
        if any(g.mean < 1e-7 for g in gradients(stats)):
            return True
        rate = stats.learning_rate or 0.0
        ratios = sorted(
            rate * x.weight_gradient.rms / x.weight.rms
            for x in stats.matrix_layers
            if x.weight_gradient and x.weight and x.weight.rms
        )
        if ratios and not 1e-5 <= ratios[len(ratios) // 2] <= 0.1:
            return True
    return False


def beyond(x: LayerStats, tanh_at: float, sigmoid_at: float) -> bool:
    """Return whether over half of a layer's inputs to tanh or sigmoid lie beyond the line."""
    if x.slopes is None:
        return False
    median = x.slopes.quantiles[2]
    if x.slopes.activation == "tanh":
        return median < TANH_LINE[tanh_at]
    return x.slopes.activation == "sigmoid" and median < SIGMOID_LINE[sigmoid_at]


RIVALS: dict[str, Callable[[Case, Sequence[FlowStats]], bool]] = {
    "AutoTrainer": autotrainer,
    "SageMaker Debugger": sagemaker,
    "SageMaker Debugger, without poor initialisation": lambda c, h: sagemaker(c, h, False),
    "DeepDiagnosis": deepdiagnosis,
}
