"""Judges of the loss's inputs: the activation before it, its targets, its shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from unmask.flow.judge.regression import fit, regression
from unmask.flow.measure.calls import CLASSIFIERS, SYMMETRIC, LossCall
from unmask.flow.measure.statistics import FlowStats
from unmask.verdict import Severity, Verdict

# Fewer outputs than this are no classifier's.
_SEVERAL = 2
# More classes than this are words, some of which are masked on purpose to be guessed.
_FEW = 100
# A loss this many times as large as that of guessing is no sound start.
FAR = 10.0
# The fraction of images with no or several classes, which no softmax can say.
CROWDED = 0.2
# The batches that agree before texts are said not to end.
ALL_ALIKE = 4
# Cosines times less than this tell classes hardly apart.
SMALL = 0.5
# The brightest value of an image, which a mask read from a file has.
FULL = 255
_BELOW = ("gelu", "silu", "softplus")
# Of which the targets come second.
_DIRECTED = ("cross_entropy", "binary_cross_entropy", "binary_cross_entropy_with_logits")
_BOUNDED = ("sigmoid", "tanh", "hardtanh", "relu")


def head(history: list[FlowStats]) -> Iterator[Verdict]:
    """Judge every loss that was called, once a place: first its input, then its targets."""
    done: set[tuple[str, str | None, str]] = set()
    yield from _maximised(history)
    yield from regression(history)
    yield from _never_ends(history)
    yield from _left_out(history)
    for stats in history:
        for call in map(_named, stats.calls):
            for verdict in _judged(call, stats):
                key = (call.name, call.location, verdict.kind)
                if key not in done:
                    done.add(key)
                    yield verdict


def _left_out(history: list[FlowStats]) -> Iterator[Verdict]:
    """Find losses of the outputs that were computed at each step and never went backward."""
    seen: dict[tuple[str, str | None], list[bool]] = {}
    for call in (c for s in history for c in s.calls if c.own):
        seen.setdefault((call.name, call.location), []).append(call.left_out)
    for (name, location), left in seen.items():
        if len(left) >= ALL_ALIKE and all(left):
            yield Verdict(
                "loss without effect",
                "warning",
                f"{name} is computed of the model's outputs, and no backward pass leads to them: "
                "nothing is learnt of it",
                "add it to the loss that goes backward; or measure it under torch.no_grad()",
                location=location,
                step=history[-1].step,
                evidence={"calls": float(len(left))},
            )


def _named(call: LossCall) -> LossCall:
    """Return a call with a softmax that was written by hand called that."""
    by_hand = {"cross_entropy": "softmax", "nll_loss": "log_softmax"}.get(call.name)
    if by_hand is None or call.normalised is None or call.operation in ("softmax", "log_softmax"):
        return call
    if by_hand == "log_softmax" and call.normalised == 1:
        return call
    return replace(call, operation=by_hand, dim=call.normalised)


def _judged(call: LossCall, stats: FlowStats) -> Iterator[Verdict]:
    def verdict(
        kind: str, message: str, fix: str, severity: Severity = "error", **evidence: float
    ) -> Verdict:
        return Verdict(
            kind,
            severity,
            message,
            fix,
            location=call.location,
            step=stats.step,
            evidence=evidence,
        )

    if call.swapped and call.name in _DIRECTED:
        yield verdict(
            "wrong loss",
            f"{call.name} is given the targets first and the model's outputs second: it takes the "
            "labels for predictions",
            f"{call.name}(outputs, targets)",
        )
        return
    several = len(call.shape) > 1 and call.shape[1] >= _SEVERAL
    over = _wrong_dimension(call)
    if call.scrambled is not None and call.name in CLASSIFIERS:
        last = [0, *range(2, len(call.scrambled)), 1]
        yield verdict(
            "wrong loss",
            f"scores of shape {list(call.scrambled)} are cut into rows of {call.shape[1]} numbers "
            "in the order of their places: a row holds no place's classes",
            f"scores.permute({', '.join(map(str, last))}).reshape(-1, {call.shape[1]}), or feed "
            f"{call.name} the scores as they are, and targets of shape "
            f"{[n for d, n in enumerate(call.scrambled) if d != 1]}",
        )
    if call.given_away:
        yield verdict(
            "target leakage",
            "the decoder is given the very words that are its targets: it learns to copy, and "
            "predicts nothing",
            "feed it words[:, :-1], and compare with words[:, 1:]",
        )
    if call.shown:
        yield verdict(
            "target leakage",
            "the words that are to be guessed stand in the text that the model reads: it learns to "
            "copy, and guesses nothing",
            "feed it the text in which they are masked",
        )
    few = several and call.shape[1] <= _FEW
    if call.ignored is not None and few:
        yield verdict(
            "wrong loss",
            f"ignore_index leaves out {call.ignored:.0%} of the labels, at words of many kinds: "
            "their class is never learnt",
            "pad the labels with -100, which ignore_index is by default",
            severity="warning",
            ignored=call.ignored,
        )
    if over is not None:
        yield verdict(
            "activation before the loss",
            f"{call.operation} before {call.name} is taken over dimension {call.dim}, {over}, "
            "instead of over the classes",
            f"{call.operation}(dim=1)",
            dim=float(call.dim or 0),
        )
    elif call.operation in ("softmax", "log_softmax") and call.width == 1:
        yield verdict(
            "activation before the loss",
            f"{call.operation} over one output is always {int(call.operation == 'softmax')}, "
            "whatever the network computes",
            "use sigmoid or binary_cross_entropy_with_logits on one output, or one output a class",
            width=1.0,
        )
    elif call.operation == "dropout":
        yield verdict(
            "activation before the loss",
            f"dropout stands before {call.name}: it sets outputs to 0 at random",
            "put dropout before the output layer",
            severity="warning",
        )
    elif call.name == "cross_entropy":
        yield from _cross_entropy(call, several, verdict)
        yield from _start(call, stats)
    elif call.name == "kl_div" and (call.high > 1e-5 or call.target_low < 0 < call.target_high):
        wants = "log-probabilities" if call.high > 1e-5 else "probabilities as targets"
        yield verdict(
            "wrong loss",
            f"kl_div is fed inputs up to {call.high:.3g} and targets from {call.target_low:.3g} to "
            f"{call.target_high:.3g}; it wants {wants}",
            "kl_div(log_softmax(scores, dim=1), target_probabilities); log_target=True where the "
            "targets are log-probabilities",
            highest=call.high,
            target_low=call.target_low,
        )
    elif call.name == "ctc_loss" and call.normalised != 1:
        fed = "probabilities" if call.operation == "softmax" else "scores"
        yield verdict(
            "wrong loss",
            f"ctc_loss is fed {fed} up to {call.high:.3g}; it wants log-probabilities, which over "
            "the classes, the last dimension, add up to 1",
            "log_softmax(scores, dim=-1) before ctc_loss, of shape (times, images, classes)",
            highest=call.high,
        )
    elif call.name == "nll_loss":
        if call.operation == "softmax" or (call.operation != "log_softmax" and call.high > 1e-5):
            fed = "probabilities" if call.operation == "softmax" else "scores"
            yield verdict(
                "wrong loss",
                f"nll_loss is fed {fed} up to {call.high:.3g}; it wants log-probabilities, at most "
                "0, and falls without bound",
                "use cross_entropy on the scores, or log_softmax(scores, dim=1) before nll_loss",
                highest=call.high,
            )
    elif call.name.startswith("binary_cross_entropy"):
        yield from _binary(call, verdict)
    elif call.name == "difference":
        yield verdict(
            "shapes broadcast",
            f"outputs of shape {list(call.shape)} meet targets or weights of shape "
            f"{list(call.target_shape)}: each is broadcast against every other",
            "give both one shape, for instance with squeeze(1)",
        )
    elif call.name in SYMMETRIC:
        yield from fit(call, verdict)


def _maximised(history: list[FlowStats]) -> Iterator[Verdict]:
    """Find steps whose loss is the negative of a classifier's."""
    turned = []
    for stats in history:
        calls = [c for c in stats.calls if c.name in CLASSIFIERS and c.value]
        if len(calls) == 1 and stats.loss is not None and calls[0].own:
            value = calls[0].value or 0.0
            loss = -stats.loss if stats.maximises else stats.loss
            if value > 0 and abs(loss + value) <= 1e-3 * value:
                turned.append(calls[0])
    if len(turned) > 1 and len(turned) == len([s for s in history if s.loss is not None]):
        yield Verdict(
            "wrong loss",
            "error",
            f"what is minimised is the negative of {turned[0].name}, which grows from "
            f"{turned[0].value:.3g} to {turned[-1].value:.3g}",
            "leave out maximize=True" if history[-1].maximises else "leave out the minus sign",
            location=turned[0].location,
            step=history[-1].step,
            evidence={"first": turned[0].value or 0.0, "last": turned[-1].value or 0.0},
        )


def _never_ends(history: list[FlowStats]) -> Iterator[Verdict]:
    """Find texts whose last word is their padding too, and so is never learnt."""
    told = [c for s in history for c in s.calls if c.name == "cross_entropy" and c.integers]
    if len(told) >= ALL_ALIKE and all(c.endless for c in told):
        yield Verdict(
            "wrong loss",
            "warning",
            "the word that ends every text is left out of the loss, as padding is: the model never "
            "learns to stop",
            "give padding a word of its own, tokenizer.add_special_tokens({'pad_token': '<pad>'}), "
            "or leave out what attention_mask hides, not every word that looks like padding",
            location=told[-1].location,
            step=history[-1].step,
            evidence={"batches": float(len(told))},
        )


def _wrong_dimension(call: LossCall) -> str | None:
    if call.operation not in ("softmax", "log_softmax") or call.dim is None:
        return None
    if call.name not in CLASSIFIERS or len(call.shape) < 2:
        return None
    # A dimension of the outputs before they were reshaped, as those of words in a row are.
    elsewhere = call.dim >= len(call.shape) or call.shape[call.dim] != call.width
    if call.dim == 1 or call.normalised == 1 or (elsewhere and call.width == call.shape[1]):
        return None
    return "the images of a batch" if call.dim == 0 else "the places"


def _cross_entropy(call: LossCall, several: bool, verdict: object) -> Iterator[Verdict]:
    assert callable(verdict)
    classes = call.shape[1] if len(call.shape) > 1 else 1
    if len(call.shape) > 1 and call.shape[1] == 1:
        yield verdict(
            "wrong loss",
            "cross_entropy is fed one output an image: softmax over one is 1, so the loss is 0",
            "give one output a class, or use binary_cross_entropy_with_logits",
            outputs=1.0,
        )
    elif call.operation == "softmax":
        least = math.log(1 + (classes - 1) / math.e)
        yield verdict(
            "activation before the loss",
            "softmax stands before cross_entropy, which applies it itself: the loss can't fall "
            f"below {least:.3g}, and its gradient is small where the network is wrong",
            "feed cross_entropy the scores before softmax",
            least_loss=least,
        )
    elif call.operation in _BOUNDED and several:
        yield verdict(
            "activation before the loss",
            f"{call.operation} stands before cross_entropy and bounds the scores",
            f"feed cross_entropy the output layer's own scores, without {call.operation}",
            lowest=call.low,
            highest=call.high,
        )
    elif call.operation in _BELOW and several:
        yield verdict(
            "activation before the loss",
            f"{call.operation} stands before cross_entropy and cuts off scores below 0",
            f"feed cross_entropy the output layer's own scores, without {call.operation}",
            severity="warning",
            lowest=call.low,
            highest=call.high,
        )
    elif call.operation == "cosine" and several:
        small = call.scale < SMALL
        yield verdict(
            "activation before the loss",
            "cross_entropy is fed cosines"
            + (f" times {call.scale:.3g}" if call.scale < 1 else "")
            + f", between {-call.scale:.3g} and {call.scale:.3g}: the loss can't fall below "
            f"{math.log(1 + (classes - 1) * math.exp(-2 * call.scale)):.3g}, where guessing gives "
            f"{math.log(classes):.3g}",
            "divide by the temperature instead of multiplying by it"
            if small
            else "multiply them by a scale, fixed (10 to 30) or learnt, or divide by a temperature",
            severity="error" if small else "warning",
            lowest=call.low,
            highest=call.high,
        )


def _start(call: LossCall, stats: FlowStats) -> Iterator[Verdict]:
    """Find scores that are far too large at the start, by a loss far above that of guessing."""
    classes = call.shape[1] if len(call.shape) > 1 else 1
    guess = math.log(max(classes, 2))
    mean = call.value if call.reduction == "mean" else None
    # What was trained before is sure of itself, and wrong where its task is new.
    tuned = any(x.frozen for x in stats.matrix_layers)
    fresh = stats.step == 0 and not tuned
    if fresh and call.integers and mean is not None and FAR * guess < mean < math.inf:
        yield Verdict(
            "exploding",
            "warning",
            f"the loss starts at {mean:.3g}, where guessing among {classes} classes gives "
            f"{guess:.3g}: the scores are far too large",
            "initialise the output layer with weights of RMS 1 / sqrt(inputs)",
            location=call.location,
            step=0,
            evidence={"loss": mean, "guess": guess},
        )


def _binary(call: LossCall, verdict: object) -> Iterator[Verdict]:
    assert callable(verdict)
    logits = call.name.endswith("with_logits")
    if call.target_low < 0 or call.target_high > 1:
        yield verdict(
            "wrong loss",
            f"{call.name} gets targets from {call.target_low:g} to {call.target_high:g}, where "
            "only 0 to 1 have a meaning: the loss falls without bound",
            "divide the targets by 255, as images are"
            if call.target_high == FULL
            else "use cross_entropy with one output a class"
            if call.target_high > 1
            else "scale the targets to 0 and 1",
            target_low=call.target_low,
            target_high=call.target_high,
        )
    elif logits and call.operation in ("sigmoid", "softmax", "relu"):
        twice = ", which applies a sigmoid itself" if call.operation != "relu" else ""
        yield verdict(
            "activation before the loss",
            f"{call.operation} stands before {call.name}{twice}",
            f"feed it the scores before {call.operation}",
            lowest=call.low,
            highest=call.high,
        )
    elif not logits and call.operation == "softmax" and call.crowded > CROWDED:
        yield verdict(
            "activation before the loss",
            f"softmax stands before {call.name}, so that the classes of an image share a sum of 1, "
            f"where {call.crowded:.0%} of the images have several of them or none",
            "use binary_cross_entropy_with_logits on the scores, or a sigmoid before it",
            crowded=call.crowded,
        )
    elif not logits and call.operation == "scores":
        yield verdict(
            "wrong loss",
            f"{call.name} is fed the output layer's scores, which know no bounds; it wants "
            "probabilities from 0 to 1",
            "use binary_cross_entropy_with_logits on the scores, or a sigmoid before it",
            lowest=call.low,
            highest=call.high,
        )
