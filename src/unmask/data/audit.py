"""An audit of a labelled set of images: duplicates, leaks, labels, classes, shortcuts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from unmask.data.audit_duplicates import exact_duplicates, near_duplicates, thumbnails
from unmask.data.audit_labels import (
    LabelErrors,
    confident_errors,
    cross_validated,
    patch_features,
)
from unmask.data.audit_result import DataAudit, Shortcut
from unmask.data.audit_verdicts import ROBUST, judge_data
from unmask.data.images import Images
from unmask.data.peek import TRAITS
from unmask.data.sources import Source
from unmask.errors import UserError
from unmask.runtime import environment_stamp
from unmask.verdict import worst_first

_SHORTCUT_IMAGES = 5000

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
    """Find the faults of a labelled set of images.

    Args:
        data: a Source with its parts, or Images, which are then the part "train".
        probabilities: by part, out-of-sample class probabilities float64[n, k] of a model; those of
            other parts come from a quick cross-validated model.
        labels: whether label errors are searched for in parts without given probabilities.
        near: whether nearly equal images are searched for.
        extra: by part, more measures of each image that must be unrelated to its class, float64[n]
            or float64[n, k]; those of its file are known where data came from files.
        seed: of folds and patches.
        progress: called with each step, in words.

    Returns:
        The findings and verdicts.

    Raises:
        UserError: when probabilities don't fit the images.
    """
    parts = _parts(data)
    first = next(iter(parts.values()))
    names = first.class_names
    tell = progress or (lambda _: None)
    tell("duplicates")
    several = len(parts) > 1
    pixels = np.concatenate([p.pixels for p in parts.values()]) if several else first.pixels
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
    tested = next(iter(parts))
    measured = _of_files(data, tested, len(first))
    measured.update(extra[tested] if extra and tested in extra else {})
    shortcuts = find_shortcuts(first, measured, seed)
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
    found.verdicts.extend(worst_first(judge_data(found, names, warnings)))
    return found


def _of_files(data: Source | Images, part: str, count: int) -> dict[str, NDArray[np.float64]]:
    # Whoever takes a few images of a source leaves what is known of all files as it is.
    if isinstance(data, Images) or len(data.traits.get(part, ())) != count:
        return {}
    return {name: data.traits[part][:, columns] for name, columns in TRAITS.items()}


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
    """Return doubtful labels of several parts at once, each judged with the help of the others."""
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
    """Return how well a linear model predicts the class from what is unrelated to it.

    Args:
        images: labelled; at most 5,000 are used, spread over all.
        extra: more measures of each image, float64[n] or float64[n, k], such as its file's size.
        seed: of the folds.
    """
    kept = min(len(images), _SHORTCUT_IMAGES)
    rows = np.arange(kept) * len(images) // max(kept, 1)
    labels = images.labels[rows]
    counts = np.bincount(labels)
    if kept < 50 or (counts > 0).sum() < 2:
        return []
    x = images.pixels if kept == len(images) else images.pixels[rows]
    frame = np.concatenate([x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1]], 2)
    # Of the bytes themselves: all pixels as floats would take four times their memory.
    colour = x.mean((2, 3), dtype=np.float32) / 255
    step = max(1, frame.shape[2] // 128)
    measured = {
        "border pixels": frame[:, :, ::step].reshape(kept, -1).astype(np.float32) / 255,
        "mean colour": np.concatenate([colour, colour**2], 1),
        **{name: _scaled(values[rows]) for name, values in extra.items()},
    }
    chance = float(counts.max() / kept)
    found = []
    for name, features in measured.items():
        if float(features.std(0).max()) < 1e-6:
            continue
        p = cross_validated(features, labels, len(images.class_names), seed)
        found.append(Shortcut(name, kept, float((p.argmax(1) == labels).mean()), chance))
    return found


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return measures with their squares, in units of their deviation."""
    x = values.reshape(len(values), -1)
    x = (x - x.mean(0)) / (x.std(0) + 1e-9)
    return np.concatenate([x, x**2], 1).astype(np.float32)


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
        rows = np.flatnonzero(np.abs(values - middle) > ROBUST * spread)
        if 0 < len(rows) <= max(1, len(images) // 100):
            found[name] = rows.tolist()
    return found
