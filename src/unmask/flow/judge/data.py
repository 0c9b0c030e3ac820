"""Judges of the data: the labels, the inputs of training and validation, what becomes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from unmask.flow.judge.trials import reversed_mask, trials
from unmask.flow.measure.calls import CLASSIFIERS, REVERSED_MASK
from unmask.flow.measure.inputs import Colours, InputFacts
from unmask.flow.measure.statistics import NEVER, FlowStats
from unmask.verdict import Verdict

_BINARY = ("binary_cross_entropy", "binary_cross_entropy_with_logits")
LEAST_LABELS, MAJORITY, MANY = 32, 0.9, 1000
# Batches with at most this fraction of all classes seen, and the fewest such batches.
SORTED, SORTED_BATCHES = 0.5, 3
LEAST_VALUES = 4
# The variation over images of an output that varies, and of a loss's input that doesn't.
VARIED, SAME = 0.01, 1e-6
# The rate of dropout that may be too strong, and the units of an image that are too few.
STRONG, FEW_UNITS = 0.9, 4
# A running mean with this momentum holds little more than the last batch.
LAST_BATCH = 0.9
# Inputs whose deviations differ by this factor, or whose means by a deviation.
APART = 2.0
# A shift of the first and the last channel, in standard deviations of the entries and in errors,
# and the fraction of the validation images' contrast of colours that is no accident in training.
TURNED, SURE_OF_COLOURS, PALER = 0.05, 6.0, 0.3
LEAST_VALIDATED, SEEN = 32, 0.98
# In rows of whole images differences grow with the distance; where the colours lie side by side
# they are this much smaller from pixel to pixel than a place before.
DIPS = 0.8
# The fraction of a batch's images that are different, and the batches that agree.
ALIKE, ALIKE_BATCHES = 0.125, 8
# A class that is so many times as frequent as another, and its weight so many times as large.
UNEQUAL, HEAVIER = 3, 2.0
# The labels of probed steps that tell the fraction of one class of two.
SURE_OF_TWO = 300
# The fraction of a table's columns that are drowned.
DROWNED = 0.5
# The labels of a whole loop that make a majority certain.
ENOUGH_LABELS = 500
# The masks that tell whether they lie where their images do, and the fraction that may not.
ENOUGH_MASKS, MIRRORED = 48, 0.3
# The labels a class after which one would have come, and the fraction of those that never came.
SEEN_BEFORE, NEW = 20, 0.1
# The batches that make an order by class certain, and the fraction of them that must show it.
ORDERED_BATCHES, IN_ORDER = 20, 0.95


def data(history: list[FlowStats]) -> Iterator[Verdict]:
    """Judge the labels of all steps seen together, and the outcomes of the experiments."""
    last = history[-1].step
    batches = [(s, c) for s in history for c in s.calls if c.name in CLASSIFIERS and c.classes]
    # Most places in an image or words in a text may well be of one class, and the first of two that
    # are compared may always be the right one.
    batches = [(s, c) for s, c in batches if len(c.shape) > 1 and 1 < c.shape[1] < MANY]
    batches = [(s, c) for s, c in batches if c.own and len(c.target_shape) == 1]
    # Where no layer has a unit for each, columns are other images, as of a contrastive loss.
    batches = [(s, c) for s, c in batches if any(x.units == c.shape[1] for x in s.layers)]
    counts: Counter[int] = Counter()
    for _, c in batches:
        counts.update(c.classes)
    total = sum(counts.values())
    where = batches[-1][1].location if batches else None
    if total >= LEAST_LABELS:
        name, most = counts.most_common(1)[0]
        if len(counts) == 1:
            yield Verdict(
                "labels constant",
                "error",
                f"all {total} labels seen are {name}: nothing can be learnt from them",
                "check how the labels are read, and that the data is shuffled",
                location=where,
                step=last,
                evidence={"labels": float(total)},
            )
        elif _reversed_weights(counts, batches[-1][1].weights):
            rare = min(counts, key=lambda c: counts[c])
            yield Verdict(
                "labels imbalanced",
                "error",
                f"class {name} has {most / total:.0%} of the labels and a larger weight in the "
                f"loss than class {rare} with {counts[rare] / total:.1%}: the rare class is given "
                "up",
                "weight classes by the inverse of their frequency: total / (classes * counts)",
                location=where,
                step=last,
                evidence={"majority": most / total, "labels": float(total)},
            )
        elif most / total >= MAJORITY:
            yield imbalanced(name, most, total, where, last)
        few = [len(c.classes) <= max(1, SORTED * len(counts)) for _, c in batches]
        large = [sum(c.classes.values()) >= 4 * len(counts) for _, c in batches]
        mixed = most / total < MAJORITY
        if len(few) >= SORTED_BATCHES and len(counts) > 2 and mixed and all(few) and all(large):
            yield Verdict(
                "batches sorted by class",
                "error",
                f"each batch holds at most {max(len(c.classes) for _, c in batches)} of the "
                f"{len(counts)} classes: every step unlearns the others",
                "shuffle: DataLoader(..., shuffle=True)",
                location=where,
                step=last,
                evidence={"classes": float(len(counts)), "batches": float(len(batches))},
            )
    yield from _two_classes(history)
    values = sorted(s.values_a_channel for s in history if s.values_a_channel is not None)
    if values and values[len(values) // 2] < LEAST_VALUES:
        yield Verdict(
            "batch too small",
            "warning",
            f"batch normalisation sees {values[len(values) // 2]} values a channel: their mean and "
            "deviation are mostly noise",
            "a larger batch, or GroupNorm",
            step=last,
            evidence={"values": float(values[len(values) // 2])},
        )
    yield from _columns(history[0])
    yield from _running(history[-1])
    yield from _dropout(history[-1])
    for stats in history:
        varied = stats.output is not None and (stats.output.variation or 0.0) > VARIED
        fed = any(c.own for c in stats.calls)
        lost = [c for c in stats.calls if not fed and c.variation is not None]
        if varied and lost and all(c.variation < SAME for c in lost if c.variation is not None):
            yield Verdict(
                "loss independent of the images",
                "error",
                f"what {lost[0].name} is fed is the same for every image, though the model's "
                "output is not",
                "look at what is done with the output on its way to the loss",
                location=lost[0].location,
                step=stats.step,
                evidence={"variation": lost[0].variation or 0.0},
            )
            break
    blind = next((c for s in history for c in s.cuts if c.operation == REVERSED_MASK), None)
    if blind is not None:
        yield reversed_mask(blind.layer, blind.location, last)
    yield from (v for v in trials(history) if blind is None or v.kind != "attention mask reversed")


def _two_classes(history: list[FlowStats]) -> Iterator[Verdict]:
    """Judge how often each of two classes occurs, where one output tells them apart."""
    told = [
        (c.shape[0], c.positives, c)
        for s in history
        for c in s.calls
        if c.own and c.name in _BINARY and c.positives is not None and c.shape
    ]
    total = sum(n for n, _, _ in told)
    if total < SURE_OF_TWO:
        return
    part = sum(n * p for n, p, _ in told) / total
    call = told[-1][2]
    rare, weight = min(part, 1 - part), call.heavier if part < 0.5 else 1 / max(call.heavier, 1e-9)
    if rare * UNEQUAL <= 1 - rare and weight * HEAVIER < 1:
        yield Verdict(
            "labels imbalanced",
            "error",
            f"{part:.1%} of the labels are 1, and pos_weight={call.heavier:.3g} makes the rare "
            "class count even less: it is given up",
            f"pos_weight={(1 - part) / max(part, 1 / total):.3g}: zeros over ones",
            location=call.location,
            step=history[-1].step,
            evidence={"ones": part, "labels": float(total)},
        )
    elif rare <= 1 - MAJORITY and weight * rare < 0.5 * (1 - rare):
        most, last = round(total * (1 - rare)), history[-1].step
        yield imbalanced(int(part > 0.5), most, total, call.location, last)


def _reversed_weights(counts: Counter[int], weights: tuple[float, ...] | None) -> bool:
    """Return whether a loss weighs classes the more, the more frequent they are."""
    if weights is None or not all(0 <= c < len(weights) for c in counts):
        return False
    by_count = sorted(counts, key=lambda c: counts[c])
    rare, common = by_count[0], by_count[-1]
    uneven = counts[common] >= UNEQUAL * counts[rare]
    rises = [weights[a] <= weights[b] for a, b in pairwise(by_count)]
    heavier = weights[common] > HEAVIER * weights[rare] > 0
    return uneven and heavier and sum(rises) > len(rises) / 2


def imbalanced(
    name: int, most: int, total: int, location: str | None = None, step: int | None = None
) -> Verdict:
    """Return the verdict on labels nearly all of which are of one class.

    Args:
        name: of the class.
        most: the number of its labels.
        total: the number of all labels.
        location: "file:line" of the loss.
        step: at which they were counted.
    """
    return Verdict(
        "labels imbalanced",
        "warning",
        f"{most / total:.0%} of the labels are {name}: always predicting it is as accurate",
        "compare accuracy with that figure; weight the classes or sample them evenly",
        location=location,
        step=step,
        evidence={"majority": most / total, "labels": float(total)},
    )


def inputs(facts: InputFacts, ended: bool) -> Iterator[Verdict]:
    """Judge what a whole loop was fed in training and in validation.

    Args:
        facts: of its inputs.
        ended: whether the training is over.
    """
    if facts.train is not None and facts.validation is not None:
        (mean, std), (other, spread) = facts.train, facts.validation
        scaled = std > 0 and not 1 / APART < spread / std < APART
        if scaled or (std > 0 and abs(other - mean) > std):
            # A mean moves by itself where the world does, as that of a series with a trend.
            yield Verdict(
                "train and validation inputs differ",
                "error" if scaled else "warning",
                f"training is fed inputs of mean {mean:.3g} and standard deviation {std:.3g}, "
                f"validation {other:.3g} and {spread:.3g}",
                "normalise both in the same way: x.sub(mean).div(std) with one mean and std",
                evidence={
                    "train_mean": mean,
                    "train_std": std,
                    "validation_mean": other,
                    "validation_std": spread,
                },
            )
    if facts.colours is not None and _turned(*facts.colours):
        red, _, blue = facts.colours[0]
        yield Verdict(
            "train and validation inputs differ",
            "warning",
            "red and blue have changed places in the validation images, as it seems: the first "
            f"channel is {abs(red):.2g} standard deviations {'darker' if red < 0 else 'brighter'} "
            f"than in training, the last {abs(blue):.2g} {'darker' if blue < 0 else 'brighter'}, "
            "the middle one as bright",
            "bring both to RGB: cv2.cvtColor(image, cv2.COLOR_BGR2RGB)",
            evidence={"first": red, "last": blue},
        )
    channels = len(facts.rows) // 2
    if channels and all(facts.rows[k] < DIPS * facts.rows[k - 1] for k in (channels, 2 * channels)):
        yield Verdict(
            "bad data",
            "error",
            "along the rows of the images a number is more like the one "
            f"{channels} places further than like nearer ones",
            "images of [n, height, width, channels] want permute(0, 3, 1, 2); reshape and view "
            "keep the order of the numbers",
            cause="the colours of a pixel lie side by side, in images whose channels come first",
            evidence={"nearer": facts.rows[channels - 1], "a pixel": facts.rows[channels]},
        )
    for turned, (straight, mirrored) in facts.placed.items():
        if straight + mirrored >= ENOUGH_MASKS and mirrored >= MIRRORED * (straight + mirrored):
            yield Verdict(
                "bad data",
                "error",
                f"{mirrored} of {straight + mirrored} masks fit their image better with {turned} "
                "exchanged: images and masks are not turned together",
                "draw a flip, crop or rotation once for both, as "
                "torchvision.transforms.v2 does for an image and its tv_tensors.Mask",
                cause="masks that lie elsewhere than in their images",
                evidence={"mirrored": float(mirrored), "masks": float(straight + mirrored)},
            )
            break
    yield from _never_trained(facts)
    images, different = (sum(pair[i] for pair in facts.alike) for i in range(2))
    # One alone shows in the first layer's input.
    if ALIKE_BATCHES <= len(facts.alike) < different <= ALIKE * images:
        yield Verdict(
            "bad data",
            "warning",
            f"{len(facts.alike)} batches of {images / len(facts.alike):.0f} images hold "
            f"{different / len(facts.alike):.0f} different ones each: the others are their copies",
            "look at what draws them: a sampler wants a weight for each image, not for each class",
            evidence={"images": float(images), "different": float(different)},
        )
    total = sum(facts.classes.values())
    if len(facts.classes) > 1 and total >= ENOUGH_LABELS:
        name = max(facts.classes, key=lambda c: facts.classes[c])
        if facts.classes[name] >= MAJORITY * total:
            yield imbalanced(name, facts.classes[name], total)
    if len(facts.classes) > 2 and facts.batches >= ORDERED_BATCHES:
        in_order = facts.few / facts.batches
        if in_order >= IN_ORDER:
            yield Verdict(
                "batches sorted by class",
                "error",
                f"{in_order:.0%} of {facts.batches:,} batches hold at most half of the "
                f"{len(facts.classes)} classes: every step unlearns the others",
                "shuffle: DataLoader(..., shuffle=True)",
                evidence={"classes": float(len(facts.classes)), "batches": float(facts.batches)},
            )
    # Until the end other images may come, after those whose training accuracy was measured.
    if ended and facts.validated >= LEAST_VALIDATED and facts.seen >= SEEN:
        yield Verdict(
            "validation images seen in training",
            "warning",
            f"{facts.seen:.0%} of the {facts.validated:,} images of evaluation passes were trained "
            "on: what they measure is memory",
            "keep images apart for validation, by file or by person",
            evidence={"seen": facts.seen, "images": float(facts.validated)},
        )


def _never_trained(facts: InputFacts) -> Iterator[Verdict]:
    """Find labels of validation images of which training has none."""
    trained, known = sum(facts.classes.values()), len({*facts.classes, *facts.checked})
    validated = sum(facts.checked.values())
    new = sorted(c for c in facts.checked if c >= 0 and c not in facts.classes)
    part = sum(facts.checked[c] for c in new) / max(validated, 1)
    enough = trained >= max(ENOUGH_LABELS, SEEN_BEFORE * known) and validated >= LEAST_VALIDATED
    if enough and known <= MANY and part >= NEW:
        few = ", ".join(map(str, new[:4])) + (", ..." if len(new) > 4 else "")
        yield Verdict(
            "train and validation inputs differ",
            "error",
            f"{part:.0%} of {validated:,} validation labels are of classes ({few}) that none of "
            f"{trained:,} training labels is",
            "shuffle before the split, or stratify it: every class belongs on both sides",
            evidence={"new": part, "classes": float(len(new))},
        )


def _turned(shift: Colours, error: Colours, before: float) -> bool:
    """Return whether channels differ as they do when the first and the last change places.

    Paler colours in training, as of augmentation, don't turn the order of the channels.
    """
    first, middle, last = shift
    size = abs(first - last) / 2
    after = before + first - last
    if before * after > 0 and abs(before) > PALER * abs(after):
        return False
    sure = size > max(TURNED, SURE_OF_COLOURS * max(error))
    still = abs(middle) < max(0.2 * size, 2 * error[1])
    return sure and still and abs(first + last) < max(0.4 * size, 2 * max(error))


def _columns(stats: FlowStats) -> Iterator[Verdict]:
    """Find a table whose largest column drowns the others."""
    drowned = stats.input.drowned if stats.input is not None else None
    if drowned is None or drowned < DROWNED:
        return
    yield Verdict(
        "inputs badly scaled",
        "warning",
        f"{drowned:.0%} of the input's columns vary by less than a hundredth of the one that "
        "varies most, which drowns them",
        "scale each column by itself: x.sub(x.mean(0)).div(x.std(0)), with the figures of the "
        "training data",
        cause="columns of different size",
        step=stats.step,
        evidence={"drowned": drowned},
    )


def _running(stats: FlowStats) -> Iterator[Verdict]:
    """Judge the statistics that batch normalisation keeps for evaluation."""
    name, momentum = stats.momentum or ("", 0.1)
    if NEVER <= momentum < LAST_BATCH:
        return
    yield Verdict(
        "running statistics",
        "warning" if momentum else "error",
        f"batch normalisation with momentum {momentum:g} "
        + (
            "keeps little more than the last batch's mean and variance for evaluation"
            if momentum >= LAST_BATCH
            else f"is evaluated mostly with the mean 0 and variance 1 that it begins with, for its "
            f"first {1 / momentum:,.0f} batches"
            if momentum
            else "never updates its running mean and variance, with which the model is evaluated"
        ),
        "momentum=0.1; other libraries call 1 - momentum that",
        subject=name,
        step=stats.step,
        evidence={"momentum": momentum},
    )


def _dropout(stats: FlowStats) -> Iterator[Verdict]:
    """Find dropout that leaves hardly any units of an image."""
    found = stats.dropout
    if found is None or found.rate < STRONG:
        return
    yield Verdict(
        "dropout too strong",
        "error" if found.kept < FEW_UNITS else "warning",
        f"dropout of {found.rate:g} leaves {found.kept:.2g} of the units of an image",
        "dropout of 0.1 to 0.5",
        step=stats.step,
        subject=found.name or None,
        evidence={"dropout": found.rate, "kept": found.kept},
    )
