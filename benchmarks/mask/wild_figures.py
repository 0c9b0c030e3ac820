"""Figures from what benchmarks.mask.wild stored: no detector runs again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.mask.wild import COUNT, SCALE

from unmask.data.detection.dataset import FACE_CLASSES, AnnotatedImages
from unmask.mask.evaluate.confidence import answers, calibrated, reliabilities
from unmask.mask.evaluate.matching import FaceMatches, countable, face_sides, matched
from unmask.mask.evaluate.metrics import SIZES, average_precision, class_curve, measured, size_name
from unmask.mask.runtime.calibration import Calibration
from unmask.mask.runtime.detections import NOT_JUDGED, Detections
from unmask.mask.runtime.drawing import HIDE_SCORE, heads
from unmask.stats import wilson

Part = tuple[AnnotatedImages, list[Detections]]
# By fold and set the entries of its images.
Found = dict[int, dict[str, Any]]

PLAIN, EMPTY = "as they are", "without a face"
SHIFTS = ("dark", "blurred", "far", "turned 15", "turned 30", "turned 45", "turned 90")
# What the calibration is fitted on, beside the images as they are.
FITTED = ("dark", "blurred", "far")
LEAST_SIDE, LEAST_PRECISION = 20.0, 0.9
# Of a class that is told, at least: by plain images alone, of which nearly all answers are right,
# it would answer of any face, and call a drawn scarf a mask.
CERTAIN = 0.9
NOT_FOUND, UNTOLD = "not found", "not judged"
# A face is hidden when so much of its box is.
COVERED, LEAST_HIDDEN = 0.8, 12.0


def stored(folder: Path) -> Found:
    """Return what each fold's detector found, by fold and set."""
    files = {k: folder / f"fold-{k}" / "wild.json" for k in range(COUNT)}
    return {k: json.loads(f.read_bytes()) for k, f in files.items() if f.exists()}


def part(entries: Sequence[dict[str, Any]]) -> Part:
    """Return the annotations and the detections of a set's images."""
    found = [Detections.from_dict(e["found"]) for e in entries]

    def boxes(e: dict[str, Any], key: str) -> Any:
        return np.array(e.get(key, []), np.float32).reshape(-1, 4)

    annotated = AnnotatedImages(
        tuple(Path(e.get("name") or f"{i}") for i, e in enumerate(entries)),
        np.array([[d.width, d.height] for d in found], np.int64).reshape(-1, 2),
        tuple(boxes(e, "boxes") for e in entries),
        tuple(np.array(e.get("labels", []), np.int64) for e in entries),
        FACE_CLASSES,
        "stored",
        tuple(boxes(e, "ignored") for e in entries),
    )
    return annotated, found


def together(parts: Sequence[Part]) -> Part:
    """Return several sets as one."""
    all_of = [a for a, _ in parts]
    first = all_of[0]
    joined = replace(
        first,
        paths=tuple(p for a in all_of for p in a.paths),
        sizes=np.concatenate([a.sizes for a in all_of]),
        boxes=tuple(b for a in all_of for b in a.boxes),
        labels=tuple(k for a in all_of for k in a.labels),
        ignored=tuple(b for a in all_of for b in a.ignored),
    )
    return joined, [d for _, found in parts for d in found]


def cross_fits(found: Found) -> dict[int, Calibration]:
    """Return of each fold the calibration that all others ask for."""
    others = {k: [o for o in found if o != k] or [k] for k in found}
    return {k: calibration_of(found, others[k]) for k in found}


def calibration_of(found: Found, chosen: Sequence[int]) -> Calibration:
    """Return the calibration by images that these folds' detectors were not trained on."""
    wanted = (PLAIN, *FITTED, EMPTY)
    sets = [found[k][name] for k in chosen for name in wanted if name in found[k]]
    fitted = calibrated(*together([part(entries) for entries in sets]), scale=SCALE)
    return replace(fitted, certain=max(fitted.certain, CERTAIN))


def all_figures(
    original: AnnotatedImages, found: Found, fitted: dict[int, Calibration]
) -> dict[str, Any]:
    """Return all figures of the folds and sets that are there.

    original: the face mask set with its own annotations. found: what each fold's detector found.
    fitted: of each fold the calibration by images that neither it nor its detector has seen.
    """
    chosen = sorted(found)
    place = {path.stem: i for i, path in enumerate(original.paths)}

    def said(k: int, name: str, threshold: float | None = 0.0) -> Part:
        annotated, raw = part(found[k][name])
        return annotated, [answers(d, fitted[k], scale=SCALE, threshold=threshold) for d in raw]

    plain = {k: said(k, PLAIN) for k in chosen}
    own = {
        k: (original[[place[path.name] for path in a.paths]], said_)
        for k, (a, said_) in plain.items()
    }
    told: dict[str, Any] = {
        "folds": chosen,
        "corrected": _folded(plain, fitted),
        "original": _folded(own, fitted),
        "shifts": {},
        "hard_set": {},
    }
    names = dict.fromkeys(name for k in chosen for name in found[k])

    def everyone(name: str, threshold: float | None = None) -> list[Part]:
        return [said(k, name, threshold) for k in chosen if name in found[k]]

    for name in (n for n in (PLAIN, *SHIFTS) if n in names):
        told["shifts"][name] = _shift(together(everyone(name)))
    for kind in names:
        if kind not in (PLAIN, EMPTY, *SHIFTS):
            each = (_hard(found[k][kind], said(k, kind, None)) for k in chosen if kind in found[k])
            told["hard_set"][kind] = _counted(list(chain.from_iterable(each)))
    if EMPTY in names:
        told["without_a_face"] = _empty(
            {k: said(k, EMPTY, None) for k in chosen if EMPTY in found[k]}
        )
    told["hidden"] = _hidden(together(everyone(PLAIN, HIDE_SCORE)))
    told["judged_by_size"] = _judged(
        together([p for name in (PLAIN, *FITTED) for p in everyone(name)])
    )
    return told


def _folded(parts: dict[int, Part], fitted: dict[int, Calibration]) -> dict[str, Any]:
    each = []
    for annotated, raw in parts.values():
        answered = countable(annotated, raw)
        curves = [class_curve(annotated, answered, c) for c in range(len(FACE_CLASSES))]
        ap = [average_precision(hits, truths.sum()) for hits, _, truths in curves]
        recall, _ = FaceMatches.of(annotated, answered).recall_at(
            LEAST_PRECISION, least_side=LEAST_SIDE
        )
        each.append([*ap, float(np.nanmean(ap)), recall])
    names = [*FACE_CLASSES, "map_50", "recall_20px_at_precision_90"]
    threshold = float(np.mean([c.face for c in fitted.values()]))
    return {
        "mean": dict(zip(names, np.nanmean(each, 0).tolist(), strict=True)),
        "each": [dict(zip(names, row, strict=True)) for row in each],
        "pooled": measured(*together(list(parts.values())), threshold=threshold).as_dict(),
    }


def _shift(both: Part) -> dict[str, Any]:
    annotated, answered = both
    matches = FaceMatches.of(annotated, answered)
    large = matches.face_side >= LEAST_SIDE
    hit = np.zeros(len(large), bool)
    hit[matches.face[matches.face >= 0]] = True
    inside = hit & large
    right = matches.label == np.append(matches.face_label, -9)[matches.face]
    told = (matches.face >= 0) & (matches.label >= 0)
    reliable = reliabilities(annotated, answered)
    return {
        "images": len(annotated),
        "faces_20px": int(large.sum()),
        "found_20px": int(inside.sum()),
        "recall_20px": float(inside.sum() / max(large.sum(), 1)),
        "recall_20px_interval_95": wilson(int(inside.sum()), int(large.sum())),
        "judged": int(told.sum()),
        "right": int((right & told).sum()),
        "accuracy": float((right & told).sum() / max(told.sum(), 1)),
        "gaps": {of: r.mean_gap for of, r in reliable.items()},
        "largest_gaps": {of: r.largest_gap for of, r in reliable.items()},
    }


def _hard(entries: Sequence[dict[str, Any]], both: Part) -> list[tuple[str, str]]:
    told = []
    for entry, boxes, labels, found in zip(
        entries, both[0].boxes, both[0].labels, both[1], strict=True
    ):
        face_of = matched(boxes, found.boxes, found.scores)
        for face in np.flatnonzero(np.array(entry["about"], bool)):
            box = np.flatnonzero(face_of == face)
            answer = NOT_FOUND
            if len(box):
                label = int(found.labels[box[0]])
                answer = UNTOLD if label == NOT_JUDGED else FACE_CLASSES[label]
            told.append((FACE_CLASSES[int(labels[face])], answer))
    return told


def _counted(told: list[tuple[str, str]]) -> dict[str, Any]:
    n = len(told)
    found = sum(answer != NOT_FOUND for _, answer in told)
    judged = sum(answer not in (NOT_FOUND, UNTOLD) for _, answer in told)
    right = sum(true == answer for true, answer in told)
    masked = sum(answer == FACE_CLASSES[0] for true, answer in told if true != FACE_CLASSES[0])
    confusion: dict[str, dict[str, int]] = {}
    for true, answer in told:
        confusion.setdefault(true, Counter())[answer] += 1
    return {
        "faces": n,
        "found": found,
        "judged": judged,
        "right": right,
        "called_masked": masked,
        "recall": found / n if n else None,
        "recall_interval_95": wilson(found, n),
        "accuracy": right / judged if judged else None,
        "accuracy_interval_95": wilson(right, judged),
        "called_masked_rate": masked / n if n else None,
        "called_masked_interval_95": wilson(masked, n),
        "confusion": {true: dict(answers) for true, answers in confusion.items()},
    }


def _empty(parts: dict[int, Part]) -> dict[str, Any]:
    rates, names = [], Counter[str]()
    alarms = 0
    for annotated, answered in parts.values():
        wrong = [len(d) > 0 for d in answered]
        alarms += sum(len(d) for d in answered)
        rates.append(float(np.mean(wrong)))
        names.update(p.name for p, w in zip(annotated.paths, wrong, strict=True) if w)
    # Where each detector looks at some of them, all of these together.
    count = max(len({p.name for a, _ in parts.values() for p in a.paths}), 1)
    mean = float(np.mean(rates))
    return {
        "images": count,
        "detectors": len(parts),
        "alarmed_rate": mean,
        "each": rates,
        "alarmed_interval_95": wilson(round(mean * count), count),
        "false_positives_per_image": alarms / (count * len(parts)),
        "worst": names.most_common(8),
    }


def _hidden(both: Part) -> dict[str, Any]:
    """Return how many faces stay visible when heads are hidden, as drawing.hide hides them."""
    faces = seen = 0
    for boxes, found in zip(both[0].boxes, both[1], strict=True):
        for box in boxes[face_sides(boxes) >= LEAST_HIDDEN]:
            faces += 1
            canvas = np.zeros((20, 20), bool)
            x = np.linspace(box[0], box[2], 21)[:-1] + (box[2] - box[0]) / 40
            y = np.linspace(box[1], box[3], 21)[:-1] + (box[3] - box[1]) / 40
            for left, top, right, bottom in heads(found.boxes):
                inside = ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))
                canvas |= inside
            seen += canvas.mean() < COVERED
    return {
        "threshold": HIDE_SCORE,
        "least_side": LEAST_HIDDEN,
        "faces": faces,
        "visible": int(seen),
        "visible_rate": seen / max(faces, 1),
        "visible_interval_95": wilson(int(seen), faces),
    }


def _judged(both: Part) -> list[dict[str, Any]]:
    matches = FaceMatches.of(*both)
    hit = matches.face >= 0
    side = np.append(matches.face_side, 0)[matches.face]
    right = matches.label == np.append(matches.face_label, -9)[matches.face]
    rows = []
    for low, high in pairwise(SIZES):
        own = hit & (side >= low) & (side < high)
        told = own & (matches.label >= 0)
        rows.append(
            {
                "name": size_name(low, high),
                "found": int(own.sum()),
                "judged": int(told.sum()),
                "right": int((told & right).sum()),
                "accuracy_interval_95": wilson(int((told & right).sum()), int(told.sum())),
            }
        )
    return rows
