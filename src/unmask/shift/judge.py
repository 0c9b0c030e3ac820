"""Verdicts on a shift measurement, each with the fix that was tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from unmask.shift import clean
from unmask.shift.corruptions.registry import CORRUPTIONS
from unmask.shift.pipeline import Mistake
from unmask.stats import wilson
from unmask.verdict import Verdict, worst_first

if TYPE_CHECKING:
    from unmask.shift.result import Shift

ShiftKind = Literal[
    "logits not finite",
    "random output",
    "no better than chance",
    "preprocessing",
    "fragile",
    "pipeline",
    "overconfident",
    "underconfident",
    "unaware of its mistakes",
    "batch norm statistics",
    "geometry",
    "runtime disagrees",
    "weak class",
]

# The loss of accuracy at severity 3 from which a corruption is worth a warning.
_FRAGILE = 0.3
_MOST_FRAGILE = 5
_CALIBRATED_SHIFTED = 0.15
_AWARE = 0.7
_ADAPTED = 0.05
_GEOMETRY = 0.3
_AGREES, _HARDLY_AGREES = 0.99, 0.9
_PIPELINE = 0.1
# A cure must gain this much, beyond chance: the probability that any of those tried does by luck.
_CURED, _CHANCE = 0.02, 0.005
# And leave the accuracy this far above that of a constant prediction, as a fraction of the rest.
_ABOVE_CONSTANT = 0.1


def judge(found: Shift) -> list[Verdict]:
    """Return the verdicts, worst first."""
    return worst_first(v for judged in _JUDGES for v in judged(found))


def named_mistake(mistakes: list[Mistake], most_common: float) -> Verdict | None:
    """Return the verdict on a model that does better with other preprocessing, or None.

    Args:
        mistakes: all that were tried.
        most_common: the fraction of the images in the largest class, which a constant prediction
            gets right.
    """
    tried = [m for m in mistakes if m.cure]
    least = most_common + _ABOVE_CONSTANT * (1 - most_common)
    cures = [
        m
        for m in tried
        if m.accuracy - m.stated >= _CURED
        and m.p_value < _CHANCE / len(tried)
        and wilson(round(m.accuracy * m.images), m.images)[0] > least
    ]
    if not cures:
        return None
    best = max(cures, key=lambda m: m.accuracy)
    return Verdict(
        "preprocessing",
        "error",
        f"{best.accuracy:.1%} of {best.images:,} images are right when they are fed "
        f"{best.name}, but {best.stated:.1%} as stated",
        cause=f"the model expects images {best.name}",
        fix=f"do this inside the model, or feed images so: {best.name}",
        evidence={"stated": best.stated, "accuracy": best.accuracy, "p_value": best.p_value},
    )


def _unchanged(found: Shift) -> Iterator[Verdict]:
    images = found.clean.images
    yield from clean.not_finite(found.not_finite, images, found.not_finite_weights)
    yield from clean.random_output(found.variation)
    counts = found.class_counts
    misfed = named_mistake(found.mistakes, max(counts, default=0) / max(sum(counts), 1))
    if misfed is None:
        yield from clean.no_better_than_chance(found.clean)
    else:
        yield misfed
    yield from clean.weak_classes(found.clean, counts, found.class_names)


def _fragile(found: Shift) -> Iterator[Verdict]:
    before = found.clean.accuracy
    losses = sorted(
        ((before - cell.accuracy, name, cell) for name, cell in found.at_severity(3).items()),
        key=lambda x: -x[0],
    )
    fragile = [x for x in losses if x[0] > _FRAGILE and x[2].interval[1] < before]
    for lost, name, cell in fragile[:_MOST_FRAGILE]:
        low, high = cell.interval
        smallest = found.smallest.get(name)
        falls = (
            f", and falls by {found.plan.drop:.0%} at severity {smallest:.2g}" if smallest else ""
        )
        known = CORRUPTIONS.get(name)
        yield Verdict(
            "fragile",
            "warning",
            f"accuracy is {cell.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}, n = "
            f"{cell.images:,}) under {name} at severity 3, {lost:.1%} below clean{falls}",
            subject=name,
            fix=f"train with {known.mends}" if known and known.mends else "",
            evidence={"clean": before, "accuracy": cell.accuracy, "lost": lost},
        )
    if len(fragile) > _MOST_FRAGILE:
        rest = ", ".join(name for _, name, _ in fragile[_MOST_FRAGILE:])
        yield Verdict(
            "fragile",
            "note",
            f"{len(fragile) - _MOST_FRAGILE} more corruptions cost over {_FRAGILE:.0%} at severity "
            f"3: {rest}",
            fix="train with AugMix or RandAugment, then measure again",
        )


def _pipeline(found: Shift) -> Iterator[Verdict]:
    for m in [*found.mistakes, *found.file_mistakes]:
        lost = m.stated - m.accuracy
        plausible = m.name.startswith(("JPEG", "stored", "Pillow", "torch", "OpenCV", "squeezed"))
        if plausible and lost > _PIPELINE:
            yield Verdict(
                "pipeline",
                "warning",
                f"{m.name} costs {lost:.1%} of accuracy ({m.accuracy:.1%} instead of "
                f"{m.stated:.1%}, n = {m.images:,})",
                subject=m.name,
                fix="read and resize images in deployment exactly as here, or train with images "
                "read in both ways",
                evidence={"stated": m.stated, "accuracy": m.accuracy},
            )


def _calibration(found: Shift) -> Iterator[Verdict]:
    # Logits that aren't finite have no confidence.
    if found.labels_only or found.not_finite:
        return
    yield from clean.miscalibrated(found.clean, found.temperature)
    # With few images even a perfect model's error isn't zero.
    noise = 1 / found.clean.images**0.5
    cells = list(found.at_severity(3).values())
    if not cells:
        return
    ece = sum(c.ece for c in cells) / len(cells)
    sure = sum(c.confidence - c.accuracy for c in cells) / len(cells)
    if ece > _CALIBRATED_SHIFTED + noise and sure > 0:
        yield Verdict(
            "overconfident",
            "warning",
            f"under shift its confidence exceeds its accuracy by {sure:.1%} on average "
            f"(calibration error {ece:.3f} at severity 3)",
            subject="shift",
            fix=clean.recalibration(found.temperature) or "calibrate on shifted images",
            evidence={"ece_at_severity_3": ece, "overconfidence": sure},
        )
    areas = [c.auroc for c in cells if c.auroc is not None]
    if areas and sum(areas) / len(areas) < _AWARE:
        area = sum(areas) / len(areas)
        yield Verdict(
            "unaware of its mistakes",
            "warning",
            f"under shift, confidence tells right answers from wrong ones with an AUROC of only "
            f"{area:.2f} (0.5 is a guess)",
            fix="don't use confidence to reject images; ensemble or train with corruptions",
            evidence={"auroc_at_severity_3": area},
        )


def _batch_norm(found: Shift) -> Iterator[Verdict]:
    helped = [a for a in found.adapted if a.after - a.before > _ADAPTED]
    if helped:
        best = max(helped, key=lambda a: a.after - a.before)
        yield Verdict(
            "batch norm statistics",
            "note",
            f"batch-norm statistics of shifted images raise accuracy from {best.before:.1%} to "
            f"{best.after:.1%} under {best.corruption} at severity 3 "
            f"({len(helped)} of {len(found.adapted)} corruptions tried gain over "
            f"{_ADAPTED:.0%})",
            subject=best.corruption,
            cause="the statistics of the training images don't fit shifted ones",
            fix="re-estimate them on a few hundred unlabelled images of the deployment "
            "(unmask.shift.fixes.reestimated)",
            evidence={"before": best.before, "after": best.after},
        )


def _geometry(found: Shift) -> Iterator[Verdict]:
    g = found.geometry
    if g is not None and g.clean - g.worst > _GEOMETRY:
        yield Verdict(
            "geometry",
            "warning",
            f"only {g.worst:.1%} of {g.images:,} images stay right under every rotation up to "
            f"{max(g.angles):g} degrees and shift up to {max(g.moves):.0%} of the side "
            f"({g.mean:.1%} on average, {g.clean:.1%} clean)",
            fix="train with RandomAffine of these angles and shifts, or with the worst of ten "
            "(Engstrom et al., 2019)",
            evidence={"worst": g.worst, "mean": g.mean, "clean": g.clean},
        )


def _runtime(found: Shift) -> Iterator[Verdict]:
    for r in found.runtimes:
        if r.agreement is None or r.agreement >= _AGREES:
            continue
        yield Verdict(
            "runtime disagrees",
            "warning",
            f"{r.name} predicts another class for {1 - r.agreement:.1%} of {r.images:,} images "
            f"(accuracy {r.accuracy or 0:.1%})",
            subject=r.name,
            fix="calibrate the quantisation on more images, or keep the first and the last layer "
            "in fp32"
            if "int8" in r.name
            else "keep fp32, or look at the layer whose values overflow",
            evidence={"agreement": r.agreement, "accuracy": r.accuracy or 0.0},
        )


_JUDGES: tuple[Callable[[Shift], Iterator[Verdict]], ...] = (
    _unchanged,
    _fragile,
    _pipeline,
    _calibration,
    _batch_norm,
    _geometry,
    _runtime,
)
