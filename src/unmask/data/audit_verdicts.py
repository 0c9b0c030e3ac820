"""The verdicts of an audit of data: a pure function of its findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from unmask.data.audit_labels import LabelErrors
from unmask.data.audit_result import DataAudit, Group, crosses
from unmask.data.folder import EMPTY
from unmask.data.listing import OTHERS
from unmask.data.peek import TRAITS
from unmask.stats import wilson
from unmask.verdict import Verdict

DataKind = Literal[
    "leak",
    "near duplicates across parts",
    "duplicates",
    "conflicting labels",
    "label errors",
    "missing class",
    "starved class",
    "unreadable files",
    "empty class",
    "outliers",
    "shortcut",
]

# The fraction of test images with exact copies in training from which on a leak is an error.
_LEAK, _LEAKS_MOST = 0.001, 3
_NEAR = 0.005
_LABELS_WARN = 0.005
# The accuracy from which on a model's doubts about labels count.
_ABLE = 0.7
_STARVED = 0.1
_SHORTCUT, _SHORTCUT_ERROR = 0.5, 0.9
_SHOWN = 5
# The deviations from the median above which an image is an outlier.
ROBUST = 8.0


def judge_data(found: DataAudit, names: tuple[str, ...], warnings: Sequence[str]) -> list[Verdict]:
    """Return what is wrong with a set of images.

    Args:
        found: by the audit.
        names: of the classes.
        warnings: a line for each file that was left out.
    """
    verdicts = [*_duplicate_verdicts(found), *_class_verdicts(found, names)]
    for part, errors in found.label_errors.items():
        verdicts += _label_verdicts(part, errors, names)
    verdicts += _file_verdicts(warnings)
    for part, by in found.outliers.items():
        for measure, rows in by.items():
            verdicts.append(
                Verdict(
                    "outliers",
                    "note",
                    f"the {measure} of {len(rows):,} images is over {ROBUST:g} deviations from "
                    f"the median, first {', '.join(map(str, rows[:_SHOWN]))}",
                    subject=part,
                    fix="look at these images",
                    evidence={"images": len(rows)},
                )
            )
    for s in found.shortcuts:
        left = (s.accuracy - s.chance) / (1 - s.chance) if s.chance < 1 else 0.0
        if left >= _SHORTCUT:
            of_files = s.name in TRAITS
            # Colour may well be what the class is, and no model sees what only the file tells.
            severe = left >= _SHORTCUT_ERROR and s.name != "mean colour" and not of_files
            predict = "predict" if s.name.endswith("pixels") else "predicts"
            verdicts.append(
                Verdict(
                    "shortcut",
                    "error" if severe else "warning",
                    f"the {s.name} of an image alone {predict} its class for {s.accuracy:.1%} of "
                    f"{s.images:,} images ({s.chance:.1%} by chance)",
                    subject=s.name,
                    cause="the classes come from different sources, which the pixels may give away"
                    if of_files
                    else "a model can learn this instead of the class",
                    fix="collect the classes from the same sources, in the same way"
                    if of_files
                    else "crop it away, or collect images in which it is unrelated to the class",
                    evidence={"accuracy": s.accuracy, "chance": s.chance},
                )
            )
    return verdicts


def _file_verdicts(warnings: Sequence[str]) -> list[Verdict]:
    """Judge what was left out; that other files lie beside the images is no fault."""
    verdicts = []
    faults = [w for w in warnings if not w.startswith(OTHERS)]
    if damaged := [w for w in faults if not w.endswith(EMPTY)]:
        verdicts.append(
            Verdict(
                "unreadable files",
                "warning",
                f"{len(damaged):,} {'file was' if len(damaged) == 1 else 'files were'} left out, "
                f"first: {damaged[0]}",
                fix="repair or delete them",
                evidence={"files": len(damaged)},
            )
        )
    if empty := [w for w in faults if w.endswith(EMPTY)]:
        verdicts.append(
            Verdict(
                "empty class",
                "warning",
                f"{len(empty):,} {'folder' if len(empty) == 1 else 'folders'} beside those of the "
                f"classes hold no image, first {empty[0].removesuffix(EMPTY)}",
                fix="add images of these classes, or delete the folders",
                evidence={"folders": len(empty)},
            )
        )
    return verdicts


def _label_verdicts(part: str, errors: LabelErrors, names: tuple[str, ...]) -> list[Verdict]:
    n, k = errors.images, len(errors.rows)
    if not n or k / n < _LABELS_WARN:
        return []
    low, high = wilson(k, n)
    shown = ", ".join(
        f"{row} ({names[to]})"
        for row, to in zip(errors.rows[:_SHOWN], errors.suggested[:_SHOWN], strict=True)
    )
    # A model that is often wrong doubts correct labels too, but rarely where it is confident.
    least = min((wilson(wrong, of)[0] for wrong, of in errors.surest if of), default=0.0)
    trusted = errors.accuracy >= _ABLE and least >= _LABELS_WARN
    wrong, of = errors.surest[-1] if errors.surest else (0, 0)
    sure = f"; of the {of:,} images that it is surest of, {wrong / of:.1%}" if of else ""
    return [
        Verdict(
            "label errors",
            "warning" if trusted else "note",
            f"{k:,} of {n:,} labels ({k / n:.1%}, 95 % interval {low:.1%} to {high:.1%}) are "
            f"likely wrong, first {shown}",
            subject=part,
            cause=f"a model that is right for {errors.accuracy:.1%} of the labels contradicts "
            f"them with confidence{sure}",
            fix="look at these images and correct their labels; unmask data audit lists them all",
            evidence={"fraction": k / n, "model_accuracy": errors.accuracy, "least": least},
        )
    ]


def _named(group: Group) -> str:
    return " = ".join(f"{part} {i}" for part, i in group[:3])


def _some(groups: Sequence[Group]) -> str:
    shown = "; ".join(_named(g) for g in groups[:_SHOWN])
    more = len(groups) - _SHOWN
    return f"{shown}; and {more:,} more" if more > 0 else shown


def _duplicate_verdicts(found: DataAudit) -> list[Verdict]:
    verdicts = []
    tested = sum(sum(by.values()) for part, by in found.counts.items() if part != "train")
    leaks = [g for g in found.copies if crosses(g)]
    if leaks:
        copied = sum(part != "train" for g in leaks for part, _ in g)
        error = copied >= _LEAKS_MOST and copied / tested >= _LEAK
        verdicts.append(
            Verdict(
                "leak",
                "error" if error else "warning",
                f"{copied:,} of {tested:,} images to validate or test with ({copied / tested:.1%}) "
                f"are in another part too: {_some(leaks)}",
                cause="the same image in training and test measures memory",
                fix="delete them from one of the parts, then train and test again",
                evidence={"leaks": copied, "fraction": copied / tested},
            )
        )
    near = [p for p in found.near if crosses(p)]
    if near:
        verdicts.append(
            Verdict(
                "near duplicates across parts",
                "warning" if len(near) / tested >= _NEAR else "note",
                f"{len(near):,} {'pair' if len(near) == 1 else 'pairs'} of nearly equal images in "
                f"different parts: {_some(near)}",
                fix="split by source (scene, person, video) and not by image",
                evidence={"pairs": len(near)},
            )
        )
    if found.conflicts:
        verdicts.append(
            Verdict(
                "conflicting labels",
                "warning",
                f"{len(found.conflicts):,} images occur more than once with different labels: "
                f"{_some(found.conflicts)}",
                fix="keep one label each",
                evidence={"groups": len(found.conflicts)},
            )
        )
    within = [g for g in [*found.copies, *found.near] if not crosses(g)]
    if within:
        verdicts.append(
            Verdict(
                "duplicates",
                "note",
                f"{len(within):,} groups of equal or nearly equal images within a part: "
                f"{_some(within)}",
                fix="keep one of each, or know that they count more",
                evidence={"groups": len(within)},
            )
        )
    return verdicts


def _class_verdicts(found: DataAudit, names: tuple[str, ...]) -> list[Verdict]:
    verdicts = []
    for part, by in found.counts.items():
        middle = float(np.median([n for n in by.values() if n] or [0]))
        if missing := [name for name in names if not by[name]]:
            verdicts.append(
                Verdict(
                    "missing class",
                    "warning",
                    f"{part} has no image of {', '.join(missing[:_SHOWN])}"
                    + (f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""),
                    subject=part,
                    fix="add images of these classes, or leave the classes out",
                    evidence={"classes": len(missing)},
                )
            )
        verdicts += [
            Verdict(
                "starved class",
                "warning",
                f"{part} has {by[name]:,} images of {name}, the median class {middle:,.0f}",
                subject=name,
                fix="add images of this class, or weight it in training",
                evidence={"images": by[name], "median": middle},
            )
            for name in names
            if 0 < by[name] < _STARVED * middle
        ]
    return verdicts
