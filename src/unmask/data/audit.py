"""What is wrong with a labelled set of images: duplicates, leaks, labels, classes, shortcuts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unmask.data.audit_duplicates import exact_duplicates, near_duplicates, thumbnails
from unmask.data.audit_labels import (
    LabelErrors,
    confident_errors,
    cross_validated,
    patch_features,
)
from unmask.data.images import Images
from unmask.data.sources import Source
from unmask.errors import UserError
from unmask.runtime import environment_stamp
from unmask.stats import wilson
from unmask.verdict import Verdict, worst_first

DataKind = Literal[
    "leak",
    "near duplicates across parts",
    "duplicates",
    "conflicting labels",
    "label errors",
    "missing class",
    "starved class",
    "unreadable files",
    "outliers",
    "shortcut",
]

# Of the test images: from how many exact copies in training on a leak is an error.
_LEAK, _LEAKS_MOST = 0.001, 3
_NEAR = 0.005
_LABELS_WARN = 0.005
_STARVED = 0.1
_ROBUST = 8.0
_SHORTCUT_IMAGES = 5000
_SHORTCUT, _SHORTCUT_ERROR = 0.5, 0.9
_SHOWN = 5


@dataclass(frozen=True)
class Shortcut:
    """How well something that should say nothing predicts the class.

    Args:
        name: what was looked at, such as "border pixels".
        images: how many.
        accuracy: cross-validated, of a linear model.
        chance: the fraction of the commonest class.
    """

    name: str
    images: int
    accuracy: float
    chance: float


@dataclass(frozen=True, eq=False)
class DataAudit:
    """What was found in a set of images; places are indices into a part, such as "test".

    Args:
        name: of the set.
        counts: images by part and class.
        copies: groups of equal images, each a list of (part, place).
        near: pairs of nearly equal images, each two (part, place).
        conflicts: groups of equal images with different labels.
        label_errors: by part, likely label errors.
        outliers: by part and measure, the places of images far from all others.
        shortcuts: what else predicts the class.
        verdicts: worst first.
        provenance: what is needed to replay it.
    """

    name: str
    counts: dict[str, dict[str, int]]
    copies: list[list[tuple[str, int]]]
    near: list[list[tuple[str, int]]]
    conflicts: list[list[tuple[str, int]]]
    label_errors: dict[str, LabelErrors]
    outliers: dict[str, dict[str, list[int]]]
    shortcuts: list[Shortcut]
    verdicts: list[Verdict]
    provenance: dict[str, Any] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """Return the figures by name, as --fail-if knows them."""
        total = sum(sum(by.values()) for by in self.counts.values())
        found: dict[str, float] = {
            "images": total,
            "duplicates": sum(len(g) - 1 for g in self.copies),
            "near_duplicates": len(self.near),
            "leaks": sum(_crosses(g) for g in self.copies),
            "near_leaks": sum(_crosses(p) for p in self.near),
            "conflicting_labels": len(self.conflicts),
        }
        for part, errors in self.label_errors.items():
            found[f"label_errors_{part}"] = len(errors.rows)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "name": self.name,
            "figures": self.figures(),
            "counts": self.counts,
            "copies": self.copies,
            "near_duplicates": self.near,
            "conflicting_labels": self.conflicts,
            "label_errors": {
                part: {
                    "model_accuracy": e.accuracy,
                    "rows": e.rows.tolist(),
                    "suggested": e.suggested.tolist(),
                    "confidence": e.confidence.tolist(),
                }
                for part, e in self.label_errors.items()
            },
            "outliers": self.outliers,
            "shortcuts": [s.__dict__ for s in self.shortcuts],
            "verdicts": [v.as_dict() for v in self.verdicts],
            "provenance": self.provenance,
        }


Progress = Callable[[str], None]


def audit_data(
    data: Source | Images,
    *,
    probabilities: dict[str, NDArray[np.float64]] | None = None,
    labels: bool = True,
    near: bool = True,
    extra: dict[str, dict[str, NDArray[np.float64]]] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> DataAudit:
    """Look for what is wrong with a labelled set of images.

    Args:
        data: a Source with its parts, or Images, which are then the part "train".
        probabilities: by part, out-of-sample class probabilities float64[n, k] of a model; of
            other parts they come from a quick cross-validated model.
        labels: whether label errors are looked for in parts without given probabilities.
        near: whether nearly equal images are looked for.
        extra: by part, measures of each file that should say nothing of its class, float64[n].
        seed: of folds and patches.
        progress: told what is being done.

    Returns:
        The findings and verdicts.

    Raises:
        UserError: probabilities don't fit the images.
    """
    parts = _parts(data)
    first = next(iter(parts.values()))
    names = first.class_names
    tell = progress or (lambda _: None)
    tell("duplicates")
    pixels = np.concatenate([p.pixels for p in parts.values()])
    every = np.concatenate([p.labels for p in parts.values()])
    place = [(name, i) for name, p in parts.items() for i in range(len(p))]
    groups = exact_duplicates(pixels)
    copies = [[place[i] for i in g] for g in groups]
    conflicts = [[place[i] for i in g] for g in groups if len(set(every[g])) > 1]
    pairs: list[list[tuple[str, int]]] = []
    if near:
        tell("near duplicates")
        pairs = [[place[a], place[b]] for a, b in near_duplicates(pixels)]
    errors: dict[str, LabelErrors] = {}
    given = probabilities or {}
    for name, part in parts.items():
        if name in given:
            errors[name] = _doubts(given[name], part)
    if labels and (rest := [name for name in parts if name not in given]):
        tell("label errors")
        errors |= _cross_validated(parts, rest, seed)
    tell("shortcuts")
    shortcuts = find_shortcuts(first, (extra or {}).get(next(iter(parts)), {}), seed)
    outliers = {name: _outliers(part) for name, part in parts.items()}
    warnings = data.warnings if isinstance(data, Source) else ()
    counts = {
        name: dict(zip(names, np.bincount(p.labels, minlength=len(names)).tolist(), strict=True))
        for name, p in parts.items()
    }
    found = DataAudit(
        name=first.name,
        counts=counts,
        copies=copies,
        near=pairs,
        conflicts=conflicts,
        label_errors=errors,
        outliers=outliers,
        shortcuts=shortcuts,
        verdicts=[],
        provenance=environment_stamp(
            seed=seed, data={name: part.sha256 for name, part in parts.items()}
        ),
    )
    found.verdicts.extend(worst_first(_judged(found, names, warnings)))
    return found


def _parts(data: Source | Images) -> dict[str, Images]:
    if isinstance(data, Images):
        return {"train": data}
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: part for name, part in parts.items() if part is not None and len(part)}


def _doubts(probabilities: NDArray[np.float64], part: Images) -> LabelErrors:
    if probabilities.shape != (len(part), len(part.class_names)):
        raise UserError(
            f"probabilities must be [{len(part)}, {len(part.class_names)}]",
            got=list(probabilities.shape),
        )
    return confident_errors(np.asarray(probabilities, np.float64), part.labels)


def _cross_validated(
    parts: dict[str, Images], names: Sequence[str], seed: int
) -> dict[str, LabelErrors]:
    """Doubt the labels of several parts at once: each helps to judge the others."""
    chosen = [parts[name] for name in names]
    labels = np.concatenate([p.labels for p in chosen])
    if len(labels) < 50 or len(np.unique(labels)) < 2:
        return {}
    features = patch_features(np.concatenate([p.pixels for p in chosen]), seed)
    classes = len(chosen[0].class_names)
    probabilities = cross_validated(features, labels, classes, seed)
    ends = np.cumsum([len(p) for p in chosen])[:-1]
    return {
        name: _doubts(part, images)
        for name, part, images in zip(names, np.split(probabilities, ends), chosen, strict=True)
    }


def find_shortcuts(
    images: Images, extra: dict[str, NDArray[np.float64]], seed: int = 0
) -> list[Shortcut]:
    """Return how well a linear model predicts the class from what should say nothing of it.

    Args:
        images: labelled; at most 5,000 are used, spread over all.
        extra: more measures of each image, float64[n], such as the size of its file.
        seed: of the folds.
    """
    kept = min(len(images), _SHORTCUT_IMAGES)
    rows = np.arange(kept) * len(images) // max(kept, 1)
    labels = images.labels[rows]
    counts = np.bincount(labels)
    if kept < 50 or (counts > 0).sum() < 2:
        return []
    x = images.pixels[rows].astype(np.float32) / 255
    frame = np.concatenate([x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1]], 2)
    step = max(1, frame.shape[2] // 128)
    looked = {
        "border pixels": frame[:, :, ::step].reshape(kept, -1),
        "mean colour": np.concatenate([x.mean((2, 3)), x.mean((2, 3)) ** 2], 1),
        **{k: np.stack([v[rows], v[rows] ** 2], 1).astype(np.float32) for k, v in extra.items()},
    }
    chance = float(counts.max() / kept)
    found = []
    for name, features in looked.items():
        if float(features.std(0).max()) < 1e-6:
            continue
        p = cross_validated(features, labels, len(images.class_names), seed)
        found.append(Shortcut(name, kept, float((p.argmax(1) == labels).mean()), chance))
    return found


def _outliers(images: Images) -> dict[str, list[int]]:
    """Return the places of images of unusual brightness, contrast or sharpness."""
    small = thumbnails(images.pixels, 16)
    detail = np.abs(np.diff(small, axis=1)).mean((1, 2)) + np.abs(np.diff(small, axis=2)).mean(
        (1, 2)
    )
    measures = {
        "brightness": small.mean((1, 2)),
        "contrast": small.std((1, 2)),
        "sharpness": np.log(detail + 0.1),
    }
    found = {}
    for name, values in measures.items():
        middle = np.median(values)
        # The median absolute deviation, as a standard deviation of normal values.
        spread = 1.4826 * float(np.median(np.abs(values - middle))) + 1e-6
        rows = np.flatnonzero(np.abs(values - middle) > _ROBUST * spread)
        if 0 < len(rows) <= max(1, len(images) // 100):
            found[name] = rows.tolist()
    return found


def _crosses(group: Sequence[tuple[str, int]]) -> bool:
    return len({part for part, _ in group}) > 1


def _named(group: Sequence[tuple[str, int]]) -> str:
    return " = ".join(f"{part} {i}" for part, i in group[:3])


def _some(groups: Sequence[Sequence[tuple[str, int]]]) -> str:
    shown = "; ".join(_named(g) for g in groups[:_SHOWN])
    return f"{shown}; ..." if len(groups) > _SHOWN else shown


def _judged(found: DataAudit, names: tuple[str, ...], warnings: Sequence[str]) -> list[Verdict]:
    verdicts = [*_duplicate_verdicts(found), *_class_verdicts(found, names)]
    sizes = {part: sum(by.values()) for part, by in found.counts.items()}
    for part, errors in found.label_errors.items():
        n, k = sizes[part], len(errors.rows)
        low, high = wilson(k, n)
        if k / n < _LABELS_WARN:
            continue
        shown = ", ".join(
            f"{row} ({names[to]})"
            for row, to in zip(errors.rows[:_SHOWN], errors.suggested[:_SHOWN], strict=True)
        )
        # A model that is often wrong itself doubts labels that are right.
        trusted = 1 - errors.accuracy < 2 * k / n
        verdicts.append(
            Verdict(
                "label errors",
                "warning" if trusted else "note",
                f"{k:,} of {n:,} labels ({k / n:.1%}, 95 % interval {low:.1%} to {high:.1%}) are "
                f"likely wrong, first {shown}",
                subject=part,
                cause=f"a model that is right for {errors.accuracy:.1%} of the labels contradicts "
                "them with confidence",
                fix="look at these images and correct their labels; the list is in the report",
                evidence={"fraction": k / n, "model_accuracy": errors.accuracy},
            )
        )
    if warnings:
        verdicts.append(
            Verdict(
                "unreadable files",
                "warning",
                f"{len(warnings):,} files were left out, first: {warnings[0]}",
                fix="mend or delete them",
                evidence={"files": len(warnings)},
            )
        )
    for part, by in found.outliers.items():
        for measure, rows in by.items():
            verdicts.append(
                Verdict(
                    "outliers",
                    "note",
                    f"the {measure} of {len(rows):,} images is over {_ROBUST:g} deviations from "
                    f"the median, first {', '.join(map(str, rows[:_SHOWN]))}",
                    subject=part,
                    fix="look at these images",
                    evidence={"images": len(rows)},
                )
            )
    for s in found.shortcuts:
        left = (s.accuracy - s.chance) / (1 - s.chance) if s.chance < 1 else 0.0
        if left >= _SHORTCUT:
            verdicts.append(
                Verdict(
                    "shortcut",
                    # Colour may well be what the class is.
                    "error" if left >= _SHORTCUT_ERROR and s.name != "mean colour" else "warning",
                    f"the {s.name} of an image alone predict its class for {s.accuracy:.1%} of "
                    f"{s.images:,} images ({s.chance:.1%} by chance)",
                    subject=s.name,
                    cause="a model can learn this instead of the class",
                    fix="crop it away, or collect images in which it says nothing",
                    evidence={"accuracy": s.accuracy, "chance": s.chance},
                )
            )
    return verdicts


def _duplicate_verdicts(found: DataAudit) -> list[Verdict]:
    verdicts = []
    tested = sum(sum(by.values()) for part, by in found.counts.items() if part != "train")
    leaks = [g for g in found.copies if _crosses(g)]
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
    near = [p for p in found.near if _crosses(p)]
    if near:
        verdicts.append(
            Verdict(
                "near duplicates across parts",
                "warning" if len(near) / tested >= _NEAR else "note",
                f"{len(near):,} pairs of nearly equal images lie in different parts: {_some(near)}",
                fix="split by source (scene, person, video) and not by image",
                evidence={"pairs": len(near)},
            )
        )
    if found.conflicts:
        verdicts.append(
            Verdict(
                "conflicting labels",
                "warning",
                f"{len(found.conflicts):,} images are there more than once with different labels: "
                f"{_some(found.conflicts)}",
                fix="keep one label each",
                evidence={"groups": len(found.conflicts)},
            )
        )
    within = [g for g in [*found.copies, *found.near] if not _crosses(g)]
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
