"""Judges of the outcomes of changing a batch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from unmask.flow.measure.calls import CLASSIFIERS
from unmask.flow.measure.statistics import Experiments, FlowStats
from unmask.verdict import Verdict

_ABSOLUTE = ("l1_loss", "smooth_l1_loss", "huber_loss")
# The fraction of an output's gradient that comes to other images, and the change of a loss whose
# images change places, that are no more than rounding.
MIXED, SWAPPED = 0.005, 1e-7
# The fraction that comes to later words, of which an output that is to predict the next must not
# depend on any.
LEAKS = 0.01
# The fraction of an output's gradient that comes to words rather than to padding, and what it is of
# the words' fraction of the places where a recurrent layer goes on over long padding.
UNREAD, FORGOTTEN, LONG_PADDING = 1e-6, 0.3, 0.8
# The change of an output with its place in the batch that is no rounding.
MOVED = 1e-3
# Rounding alone gives a linear network up to this relative error in float32.
AFFINE = 1e-4
# Outputs that differ by this much from pass to pass are drawn at random.
RANDOM = 0.05
# The fraction of a gradient that passes from a sequence's end to its start.
FADED_IN_TIME = 1e-4
# The fraction of a sequence without a gradient, above which it isn't cut in windows.
SEVERED = 0.85
# The largest class's fraction of the images above which accuracy hardly tells a fit from chance.
UNEVEN = 0.6
# Standard errors above chance that a linear fit of related labels passes on a few hundred images.
ABOVE_CHANCE = 2.0


def trials(history: list[FlowStats]) -> Iterator[Verdict]:
    """Judge what the experiments on the first batch found."""
    stats = history[0]
    found = stats.experiments
    if found is None:
        return
    mixed = found.mixed or 0.0
    if mixed > MIXED:
        yield Verdict(
            "images mixed",
            "error",
            f"{mixed:.0%} of what the first image's output depends on are the other images "
            "of its batch",
            "keep the batch's dimension apart: transpose where view or reshape is used, "
            "batch_first=True in recurrent and attention layers",
            step=stats.step,
            evidence={"mixed": mixed},
        )
    if found.leak is not None and found.leak > LEAKS:
        yield Verdict(
            "target leakage",
            "error",
            f"{found.leak:.0%} of what the output for a word depends on are the words after it, of "
            "which the next is its target",
            "mask attention to later words (is_causal=True), pad convolutions at the start only, "
            "and read sequences in one direction",
            step=stats.step,
            evidence={"leak": found.leak},
        )
    elif found.place is not None and found.place > MOVED and mixed <= MIXED:
        yield Verdict(
            "images mixed",
            "error",
            "an output depends on its image's place in the batch: in another order it changes by "
            f"{found.place:.0%} of what separates one image's output from another's",
            "what is added or hidden by place belongs to the places of a sequence, not to the "
            "batch: with the batch first these are x.size(1), as of pe[:x.size(1)]",
            step=stats.step,
            evidence={"change": found.place},
        )
    if found.read is not None and found.read < UNREAD:
        yield reversed_mask(None, None, stats.step)
    read, words = found.last or (1.0, 1.0)
    if words < LONG_PADDING and read < FORGOTTEN * words:
        yield Verdict(
            "padding read",
            "warning",
            f"{1 - read:.0%} of what the output of a text depends on is its padding, which fills "
            f"{1 - words:.0%} of the places: the recurrent layer goes on over it, and forgets",
            "take each text's output at its last word, out[torch.arange(n), lengths - 1], or give "
            "the layer pack_padded_sequence(x, lengths)",
            step=stats.step,
            evidence={"read": read, "words": words},
        )
    if found.unshifted:
        yield Verdict(
            "target leakage",
            "error",
            "the target of every word is that word itself, which the model is given: it learns to "
            "copy, and predicts nothing",
            "feed words[:, :-1], and compare with words[:, 1:]",
            step=stats.step,
        )
    # While every output is too low, absolute errors add up to the same whatever their order.
    absolute = any(c.name in _ABSOLUTE for c in stats.calls)
    if found.swapped is not None and found.swapped < SWAPPED and not absolute:
        yield Verdict(
            "loss independent of the images",
            "error",
            "the loss stays the same when the images change places and their labels don't",
            "look for what makes the output or the targets constant on the way to the loss",
            step=stats.step,
            evidence={"change": found.swapped},
        )
    if found.severed is not None and found.severed > SEVERED:
        lines = Counter(c.location for c in stats.cuts if c.operation in (".detach()", ".data"))
        line, times = lines.most_common(1)[0]
        where = next(c for c in stats.cuts if c.location == line)
        yield Verdict(
            "vanishing",
            "error",
            f"{where.operation} cuts the graph {times} times in one pass: the output depends on "
            f"all of a sequence, and {found.severed:.0%} of it, from its start, gets no gradient",
            f"leave out {where.operation}; to save memory, cut once in many time steps",
            cause="no gradient goes back from one time step to the one before",
            subject=where.layer,
            location=line,
            step=stats.step,
            evidence={"severed": found.severed, "cuts": float(times)},
        )
    if found.through_time is not None and found.through_time < FADED_IN_TIME:
        yield Verdict(
            "vanishing",
            "error",
            "of the gradient at the end of a sequence "
            + (f"1 / {1 / found.through_time:.2g}" if found.through_time > 0 else "nothing")
            + " is left at its start: the recurrent layer learns from the last inputs only",
            "shorter sequences (rows instead of pixels), an LSTM or GRU, the mean over time "
            "instead of the last state, or attention",
            cause="through time",
            step=stats.step,
            evidence={"through_time": found.through_time},
        )
    # A generator may well draw its outputs at random, a classifier may not.
    classifies = any(c.name in CLASSIFIERS and c.own for c in stats.calls)
    if found.random is not None and found.random > RANDOM and classifies:
        yield Verdict(
            "wrong mode",
            "warning",
            f"in evaluation mode the same images give outputs that differ by {found.random:.0%}",
            "dropout(x, p, training=self.training), or nn.Dropout as a layer",
            step=stats.step,
            evidence={"difference": found.random},
        )
    if found.affine is not None and found.affine < AFFINE and _in_series(stats):
        yield Verdict(
            "no activation",
            "warning",
            "the network is a linear function of its images: its "
            f"{len(stats.matrix_layers)} layers compute no more than one could",
            "put an activation, such as ReLU, between the layers",
            step=stats.step,
            evidence={"affine": found.affine},
        )
    if found.linear is not None and _at_chance(found.linear, found):
        yield Verdict(
            "labels unrelated to the images",
            "warning",
            f"a linear fit predicts {found.linear:.0%} of held-out labels, where always "
            f"predicting the commonest is right for {found.chance:.0%}",
            "check that images and labels are shuffled together",
            step=stats.step,
            evidence={"linear": found.linear, "chance": found.chance or 0.0},
        )


def unpredicted(found: Experiments) -> bool:
    """Return whether the nearest image predicts a label no better than chance does."""
    return found.nearest is not None and _at_chance(found.nearest, found)


def _in_series(stats: FlowStats) -> bool:
    """Return whether a layer can be fed by another, rather than stand beside it."""
    layers = stats.matrix_layers
    return any(a.units > 1 and b.fan_in % a.units == 0 for a, b in pairwise(layers))


def _at_chance(accuracy: float, found: Experiments) -> bool:
    # A fit to classes of which one is far larger than the others predicts that one.
    if found.chance is None or found.chance > UNEVEN:
        return False
    error = math.sqrt(found.chance * (1 - found.chance) / found.images)
    return accuracy < found.chance + ABOVE_CHANCE * error


def reversed_mask(layer: str | None, location: str | None, step: int) -> Verdict:
    """Return the verdict on an output that depends on the padding of texts alone.

    Args:
        layer: the attention, None where it isn't known.
        location: "file:line" of its call.
        step: at which it was seen.
    """
    return Verdict(
        "attention mask reversed",
        "error",
        "attention sees the padding of every text, and none of its words",
        "masks by hand hide padding: scores.masked_fill(words == padding, -inf); key_padding_mask "
        "and src_key_padding_mask are True there, attention_mask of transformers is 1 at words",
        subject=layer,
        location=location,
        step=step,
    )
