"""Judges of the signals: forward through the layers, and back."""

from __future__ import annotations

import math

from unmask.flow.judge import fixes
from unmask.flow.judge.indicators import (
    FRESH,
    RISES,
    TABLES,
    UNRESPONSIVE,
    Decay,
    adaptive,
    comes_back,
    decay,
    factors,
    finite,
    front_response,
    gradient_norm,
    learns,
    median,
    natural,
    normalised,
    relative_gain,
    saturated_beyond,
    sensitivities,
    sized,
    unborn,
    way_round,
    words_answer,
)
from unmask.flow.judge.regression import distance, far_off
from unmask.flow.measure.statistics import FlowStats, LayerStats
from unmask.verdict import Verdict

BOUNDED = ("tanh", "sigmoid", "softsign", "erf", "hardtanh", "hardsigmoid", "relu6")
RECTIFIERS = ("relu", "relu6")

FAINT, FORCEFUL, OVERRESPONSIVE, OVERRESPONSIVE_UNKNOWN = 0.5, 3.0, 100.0, 1000.0
# The total change of the gradient across the hidden layers, in powers of ten, beyond which the
# whole confidence interval must lie. A decrease across few layers is soon made up: plain nets with
# torch's own initialisation train with one of up to about FADED_FAR, seven tanh layers or five of
# ReLU.
FADED, FADED_FAR, MANY_LAYERS = -0.65, -1.5, 7
# A loss that responds this much, and this many times as much as at the start, is recovering.
ANSWERS, ANSWERS_MORE = 0.03, 2.0
WAY_ROUND = 0.1
GROWN, GROWN_PLAIN, GROWN_A_LAYER = 0.9, 0.35, 0.04
GROWN_NORMALISED = 3.0
# A fading gradient does little harm where a step still lowers the loss by more than this fraction.
CRAWLS = 0.006
DEAD, NEARLY_ALL, SATURATED = 0.8, 0.95, 0.6
# Fewer images than this may leave a unit off that is alive.
SEVERAL = 24
DEAD_CLASSES, SHUT_OUTPUTS, ALIKE = 0.1, 0.8, 1e-3
AT_FLOOR, LOST, CONSTANT = 0.01, 0.5, 0.01
NOTHING = "every gradient is exactly 0, though the loss is not"
NO_SLOPE = "look for a clamp(), or activations that are off, on the way to the loss"
_SQUASHED = ("sigmoid", "softmax", "log_softmax")
# The range of the RMS of a first layer's outputs, and the most |mean| / std of its inputs.
FIRST_RMS, OFF_CENTRE, HUGE = (0.02, 20.0), 10.0, 1000.0
# The fewest images, beside the first of each batch, that show that all of a batch are the same.
OTHERS = 4
# Inputs that have grown by this factor say little of those to come.
GROWS = 2.0
# The fewest images whose scale is judged, unless it is as far off as this.
ENOUGH = 8


def symmetric(history: list[FlowStats]) -> Verdict | None:
    """Find hidden layers whose units are all alike."""
    stats = history[0]
    hidden = [x for x in stats.matrix_layers[:-1] if x.weight_spread is not None]
    # Layers set to 0 behind an output layer set to 0 differ once that has moved.
    grown = {x.name for x in history[-1].matrix_layers if not _units_alike(x)}
    alike = [x for x in hidden if _units_alike(x) and x.name not in grown]
    # One layer at zero, as at the end of a residual branch, is recognised by its gradients.
    stuck = [x for x in alike if x.gradient_spread is not None and x.gradient_spread < ALIKE]
    if not stuck and not (alike and len(alike) == len(hidden)):
        return None
    return Verdict(
        "symmetric initialisation",
        "error",
        f"all units of {len(alike)} of {len(hidden)} hidden layers have the same weights, "
        "so they learn the same",
        fixes.at_random(stats),
        step=stats.step,
        subject=alike[0].name,
        evidence={"weight_spread": alike[0].weight_spread or 0.0, "layers": len(alike)},
    )


def _units_alike(x: LayerStats) -> bool:
    # Zero weights with different biases are no symmetry, which the outputs show.
    return all(s is None or s < ALIKE for s in (x.weight_spread, x.spread))


def inputs(history: list[FlowStats]) -> Verdict | None:
    """Judge the inputs by the first layer's response to them."""
    stats = history[0]
    x = stats.input
    if x is not None and x.computed and not math.hypot(x.mean, x.std) >= HUGE:
        # The features of another network change with it; columns of data may stand beside them.
        return None
    first = next((layer for layer in stats.layers if layer.matrix), None)
    if x is None or first is None or (x.std == 0 and (first.fan_in == 1 or x.variation is None)):
        # A layer that is fed a constant learns a number.
        return None
    same = [
        s.input is not None and s.input.variation is not None and s.input.variation < 1e-6
        for s in history
    ]
    # Two rows of a code, such as a word's, are the same every few batches.
    others = sum(s.input.images - 1 for s in history if s.input is not None)
    if math.isfinite(x.maximum) and all(same) and others >= OTHERS:
        return Verdict(
            "bad data",
            "error",
            "all images of a batch are the same"
            + (f": each entry is {x.mean:.3g}" if x.std == 0 else ""),
            "look at a batch as it comes from the loader",
            step=stats.step,
            evidence={"mean": x.mean, "std": x.std},
        )
    # One image, or the state that an episode begins with, says little of the others.
    for later in (s.input for s in history[1:]):
        x = x if x.images >= ENOUGH or later is None else x.joined(later)
    if x.images < ENOUGH and x.maximum < HUGE:
        return None
    rms, last = math.hypot(x.mean, x.std), history[-1].input
    if last is not None and math.hypot(last.mean, last.std) > GROWS * rms > 0:
        # The states of an episode are small where it begins.
        return None
    size = first.weight.rms * math.sqrt(first.fan_in) if first.weight else 1.0
    # Weights whose scale is further off than the inputs' have verdicts of their own.
    theirs = rms == 0 or (size > 0 and abs(math.log(rms)) >= abs(math.log(size)))
    badly = theirs and not x.coded and not FIRST_RMS[0] <= rms * size <= FIRST_RMS[1]
    off = abs(x.mean) / x.std if x.std > 0 else math.inf
    if not badly and off <= OFF_CENTRE:
        return None
    after = stats.layers.index(first) + 1
    normalised = "Norm" in "".join(layer.kind for layer in stats.layers[after : after + 1])
    return Verdict(
        "inputs badly scaled",
        # For one linear layer a rate can make up for their size.
        "warning" if normalised or len(stats.matrix_layers) == 1 else "error",
        f"inputs of mean {x.mean:.3g} and standard deviation {x.std:.3g} give the first layer "
        f"outputs of size {rms * size:.2g}, where about 1 is expected",
        f"feed (x - {x.mean:.4g}) / {x.std:.4g}" if x.std > 0 else "check the data: all are equal",
        step=stats.step,
        subject=first.name,
        cause="too far off centre" if off > OFF_CENTRE else "too large" if rms > 1 else "too small",
        evidence={"mean": x.mean, "std": x.std, "max": x.maximum, "first_layer_rms": rms * size},
    )


def dead(history: list[FlowStats]) -> Verdict | None:
    """Find units that pass no gradient for any image."""
    stats = history[-1]
    layers = [(x.slopes.dead, x) for x in stats.matrix_layers if x.slopes]
    if not layers:
        return None
    share, x = max(layers, key=lambda pair: pair[0])
    if share < DEAD / 2 or x.slopes is None or (share < DEAD and learns(history)):
        return None
    if share < NEARLY_ALL and x.slopes.dead_pictures < SEVERAL:
        return None
    return Verdict(
        "dead units",
        "error" if share >= (DEAD if _narrow(stats, x, share) else NEARLY_ALL) else "warning",
        f"{share:.0%} of the units after {x.name} passed no gradient for "
        f"{x.slopes.dead_pictures} images",
        fixes.dead(stats, x),
        step=stats.step,
        subject=x.name,
        cause=f"derivative factor {x.slopes.rms:.2g} of {x.slopes.activation}",
        evidence={"dead": share, "pictures": x.slopes.dead_pictures},
    )


def _narrow(stats: FlowStats, x: LayerStats, share: float) -> bool:
    """Return whether no more units are alive than the network has outputs."""
    return round((1 - share) * x.units) <= stats.matrix_layers[-1].units


def saturated(history: list[FlowStats]) -> Verdict | None:
    """Find bounded activations on their flat ends."""
    stats = history[-1]
    layers = [
        (saturated_beyond(x.slopes), x)
        for x in stats.matrix_layers
        if x.slopes and x.slopes.activation in BOUNDED
    ]
    if not layers:
        return None
    beyond, x = max(layers, key=lambda pair: pair[0])
    if beyond < SATURATED / 2 or x.slopes is None or x.output is None:
        return None
    learning = _got_there_learning(history, x.name)
    judged = any(c.own for c in stats.calls)
    meant = learning or not (judged or _was_saturated(history, x.name))
    if meant and x is stats.matrix_layers[-1]:
        # Outputs at the ends of their range are what targets there, or a critic, ask for.
        return None
    share = x.slopes.saturated
    # Where a gradient can bypass them, as in residual networks, saturated units block little.
    blocks = (way_round(stats) or 0.0) < WAY_ROUND and not learning
    return Verdict(
        "saturated",
        "error" if beyond >= SATURATED and blocks else "warning",
        f"{share:.0%} of the outputs of {x.slopes.activation} after {x.name} are saturated",
        fixes.saturated(stats, x),
        step=stats.step,
        subject=x.name,
        cause=f"derivative factor {x.slopes.rms:.2g}: pre-activations of RMS {x.output.rms:.3g}",
        evidence={"saturated": share, "pre_activation_rms": x.output.rms},
    )


def _got_there_learning(history: list[FlowStats], name: str) -> bool:
    """Return whether a layer began unsaturated, and the loss has fallen while it saturated."""
    losses = [s.loss for s in history if s.loss is not None]
    # The losses of batches of a few images differ.
    falls = len(losses) > 1 and median(losses[-3:]) < median(losses[:3])
    return falls and not _was_saturated(history, name)


def _was_saturated(history: list[FlowStats], name: str) -> bool:
    began = [
        saturated_beyond(x.slopes) for x in history[0].matrix_layers if x.name == name and x.slopes
    ]
    return not began or began[0] >= SATURATED


def underflow(history: list[FlowStats]) -> Verdict | None:
    """Find signals that are too small for their number format."""
    stats = history[0]
    # Outputs are lost on the way forward, gradients on the way back.
    outputs = [(x, x.output) for x in stats.matrix_layers if x.output is not None]
    gradients = [
        (x, x.weight_gradient)
        for x in stats.matrix_layers
        # Of a table the rows that no image of a batch asks for have none.
        if x.weight_gradient is not None and not x.frozen and x.kind not in TABLES
    ]
    on_the_way = [outputs[max(i - 1, 0) : i + 1] for i in range(len(outputs))]
    still_to_come = [gradients[i:] for i in range(len(gradients))]
    for what, sizes, near in (
        ("outputs", outputs, on_the_way),
        ("weight gradients", gradients, still_to_come),
    ):
        for (x, m), passed in zip(sizes, near, strict=True):
            # If numbers were lost to the format, those before them are close to its smallest.
            at_floor = any(n.tiny > AT_FLOOR for _, n in passed)
            if at_floor and m.zero + m.tiny >= LOST:
                return Verdict(
                    "float underflow",
                    "error",
                    f"{m.zero + m.tiny:.0%} of the {what} of {x.name} are too small for their "
                    "number format: they are 0 or short of digits, though not truly zero",
                    fixes.underflow(stats, max(n.maximum for _, n in passed), what),
                    step=stats.step,
                    subject=x.name,
                    evidence={"zero": m.zero, "below_normal": m.tiny, "largest": m.maximum},
                )
    return None


def vanishing(history: list[FlowStats]) -> Verdict | None:
    """Judge how the gradient fades on its way back, and whether the first layers' weights matter.

    A fading gradient alone is no error: what counts is whether the layers at the input learn.

    Args:
        history: of one training, in order.
    """
    stats = _first_profile(history)
    hidden, d = stats.matrix_layers[:-1], decay(stats)
    front = front_response(stats) if stats.step <= FRESH else None
    weakest = front[0] * distance(stats) if front is not None else None
    later = front_response(history[-1])
    now = later[0] * distance(history[-1]) if later is not None else 0.0
    total = d.total[1] if d is not None else 0.0
    faint = weakest is not None and weakest < FAINT
    fades = total < (FADED if faint else FADED_FAR) and (faint or weakest is None)
    silent = weakest is not None and weakest < UNRESPONSIVE and not comes_back(history, weakest)
    healthy = not fades and (not silent or now >= UNRESPONSIVE)
    if not hidden or healthy or words_answer(stats):
        return None
    gains = finite([g for g in map(relative_gain, history) if g is not None])
    crawls = median(gains) < CRAWLS if gains else d is None or total < FADED_FAR
    far = d is None or d.layers >= MANY_LAYERS or total < FADED_FAR
    answers = weakest is not None and now >= max(ANSWERS, ANSWERS_MORE * weakest)
    response = sensitivities(stats)
    if silent and not any(r != 0 for r in response):
        return Verdict("vanishing", "error", NOTHING, NO_SLOPE, step=stats.step)
    # With normalisation and residual connections a gradient recovers as steps are made.
    stuck = silent or (crawls and far and not normalised(stats))
    x = front[1] if front is not None else hidden[0]
    said = []
    if d is not None and fades:
        said.append(
            f"the gradient fades by a factor of {10**-d.per_layer:.2g} a layer "
            f"({10**-d.high:.2g} to {10**-d.low:.2g})"
        )
    if front is not None:
        said.append(
            f"changing the weights of {x.name} by 1 % along their gradient changes the loss by "
            f"{front[0]:.1g} %"
        )
    f = factors(stats)
    # Steps that don't depend on the gradient's size cope with a gradient that is merely small.
    harmless = adaptive(history[-1]) and not silent
    return Verdict(
        "vanishing",
        "error" if stuck and not answers else "note" if harmless else "warning",
        "; ".join(said),
        fixes.faded(stats),
        step=stats.step,
        subject=x.name,
        cause=f.cause(fading=True) if f else "",
        evidence=({"response": weakest} if weakest is not None else {}) | _fit(d),
    )


def _first_profile(history: list[FlowStats]) -> FlowStats:
    # Nothing comes back through an output layer at zero until its first step.
    return next((s for s in history if decay(s) is not None), history[0])


def exploding(history: list[FlowStats]) -> Verdict | None:
    """Judge how the gradient grows on its way back.

    Where layers are normalised the scale of their weights cancels, and so do its consequences: the
    verdict is then a warning at most.

    Args:
        history: of one training, in order.
    """
    stats = _first_profile(history)
    d, calm = decay(stats), normalised(stats)
    response = finite(sensitivities(stats)) if stats.step <= FRESH else []
    strongest = max(response, default=None)
    if strongest is not None:
        strongest *= natural(stats)
    forceful = strongest is None or strongest > FORCEFUL
    grows = d is not None and forceful and _grows(d, way_round(stats))
    if calm:
        grows = grows and d is not None and d.total[0] > GROWN_NORMALISED
    # The natural size of a regression's, or of a loss of the user's own, is only roughly known.
    limit = OVERRESPONSIVE if sized(stats) else OVERRESPONSIVE_UNKNOWN
    if not grows and not (strongest is not None and strongest > limit and not calm):
        return None
    f = factors(stats)
    layers = stats.matrix_layers
    first = max(layers, key=lambda x: -1.0 if math.isnan(n := gradient_norm(x)) else n)
    return Verdict(
        "exploding",
        "warning" if calm else "error",
        f"the gradient grows by a factor of {10**d.per_layer:.2g} a layer on its way back "
        f"({10**d.low:.2g} to {10**d.high:.2g})"
        if d is not None and grows
        else "a change of the weights by 1 % along the gradient changes the loss by "
        f"{strongest:.3g} %",
        fixes.initialise(stats),
        step=stats.step,
        subject=first.name,
        cause=f.cause(fading=False) if f else "",
        evidence=({"response": strongest} if strongest is not None else {}) | _fit(d),
    )


def _grows(d: Decay, round_about: float | None) -> bool:
    # In residual networks the gradient grows a little with every block, which is harmless.
    if d.total[0] > GROWN:
        return True
    plain = round_about is not None and abs(round_about) < WAY_ROUND
    return plain and d.total[0] > GROWN_PLAIN and d.low > GROWN_A_LAYER


def _fit(d: Decay | None) -> dict[str, float]:
    if d is None:
        return {}
    return {"log10_per_layer": d.per_layer, "low": d.low, "high": d.high}


def _variation(stats: FlowStats) -> float | None:
    """Return how much the model's output varies over images, relative to its size."""
    layers, output = stats.matrix_layers, stats.output
    last = layers[-1]
    before = layers[-2] if len(layers) > 1 else last
    # An output layer that starts at zero predicts the same for every image, which is harmless.
    if unborn(last):
        return before.variation if output is None or before.feeds(last) else None
    if output is None:
        both = [v for v in (before.variation, last.variation) if v is not None]
        return min(both, default=None)
    if output.operation in _SQUASHED and output.variation is not None:
        # Around its middle a sigmoid's large mean hides how its outputs differ.
        return max(output.variation, last.variation or 0.0)
    return output.variation


def _differs_more(history: list[FlowStats]) -> bool:
    """Return whether the output's variation has grown far from its least, and still grows."""
    seen = [s.output.variation for s in history if s.output and s.output.variation is not None]
    return len(seen) > 2 and seen[-1] > max(seen[-2], RISES * min(seen))


def constant(history: list[FlowStats]) -> Verdict | None:
    """Find outputs that hardly depend on the image: the model's own, where they were seen."""
    stats = history[-1]
    layers = stats.matrix_layers
    last = layers[-1] if layers else None
    if last is None or last.output is None or all(x.frozen for x in layers) or far_off(history):
        # A frozen network gives features, as of an image that is being changed.
        return None
    x, output = stats.input, stats.output
    if x is not None and x.computed and x.variation is not None and x.variation < CONSTANT:
        return None
    silenced = 0.0
    if last.slopes and (output is None or output.operation in (*RECTIFIERS, "hardtanh")):
        silenced = last.slopes.dead
        if last.slopes.activation in RECTIFIERS and last.slopes.saturated >= SHUT_OUTPUTS:
            silenced = max(silenced, last.slopes.saturated)
    variation = _variation(stats)
    constant = variation is not None and variation < CONSTANT and not _differs_more(history)
    # Inputs that are all the same, or came one by one, show nothing of how outputs differ.
    constant = constant and (x is None or (x.variation or 0.0) >= ALIKE)
    if not constant and silenced < DEAD_CLASSES:
        return None
    # Where codes are chosen, as by the nearest entry of a table, all images may share one at first.
    coded = silenced < DEAD_CLASSES and any(c.operation == ".detach()" for c in stats.cuts)
    return Verdict(
        "constant outputs",
        "warning" if coded else "error",
        f"the output is nearly the same for every image: it varies by {variation:.1g} of its size"
        if silenced < DEAD_CLASSES
        else f"the activation on the output layer shuts off {silenced:.0%} of the outputs",
        "feed the loss the output layer's own outputs, without an activation"
        if silenced >= DEAD_CLASSES
        else fixes.initialise(history[0]),
        step=stats.step,
        subject=last.name,
        evidence={"variation": variation or 0.0, "silenced": silenced},
    )
