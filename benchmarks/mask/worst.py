"""Sheets of what the folds' detectors got most wrong, in images that they had not seen, to look at.

From the predictions that ship (benchmarks/release/detector_predictions.json.xz), each calibrated
as its fold is on the card: OUT/worst.jpg shows the worst mistakes and OUT/false-positives.jpg all
boxes round no annotated face. A mistake costs 0 to 1: a false positive its score, a face of another
class the probability of the class told, a missed face its side as a fraction of 40 pixels. What is
annotated is white, what was found has its class's colour. Two lines say what there is.

    python -m benchmarks.mask.worst FACES [--out runs/mask-worst] [--count 48]
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.mask.wild import SCALE
from benchmarks.mask.wild_figures import PLAIN, part
from benchmarks.release.detector_predictions import PREDICTIONS, read_predictions
from PIL import Image, ImageDraw

from unmask.data.detection.boxes import area
from unmask.data.detection.dataset import AnnotatedImages, load_faces
from unmask.mask.evaluate.confidence import answers
from unmask.mask.evaluate.matching import countable, face_sides, matched
from unmask.mask.runtime.classes import colour_of, short_words
from unmask.mask.runtime.detections import NOT_JUDGED, Detections

FALSE, CLASS, MISSED = "false positive", "another class", "missed"
_LARGE = 40.0
_TILE, _ACROSS, _CONTEXT = 180, 8, 2.2
_WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Mistake:
    """One mistake: the image's stem, the box to look at, what is wrong, and its cost, 0 to 1."""

    image: str
    box: tuple[float, ...]
    kind: str
    words: str
    cost: float


def mistakes(annotated: AnnotatedImages, detections: Sequence[Detections]) -> list[Mistake]:
    """Return the mistakes in calibrated detections at their threshold, the worst first."""
    found = []
    for i, said in enumerate(countable(annotated, detections)):
        name, truth, labels = annotated.paths[i].stem, annotated.boxes[i], annotated.labels[i]
        face_of = matched(truth, said.boxes, said.scores)
        for k, face in enumerate(face_of.tolist()):
            box, label = tuple(said.boxes[k].tolist()), int(said.labels[k])
            word, score = said.names()[k], float(said.scores[k])
            if face < 0:
                found.append(Mistake(name, box, FALSE, f"no face: {short_words(word)}", score))
            elif label not in (NOT_JUDGED, int(labels[face])):
                sure = float(said.probabilities[k, label])
                true = short_words(annotated.class_names[labels[face]])
                found.append(Mistake(name, box, CLASS, f"{true}: {short_words(word)}", sure))
        for face in sorted(set(range(len(truth))) - set(face_of.tolist())):
            side = float(face_sides(truth[face][None])[0])
            words = f"missed {short_words(annotated.class_names[labels[face]])}"
            box = tuple(truth[face].tolist())
            found.append(Mistake(name, box, MISSED, words, min(side / _LARGE, 1.0)))
    return sorted(found, key=lambda m: -m.cost)


def sheet(
    chosen: Sequence[Mistake], annotated: AnnotatedImages, detections: Sequence[Detections]
) -> Image.Image:
    """Return a tile for every mistake, in rows."""
    rows = -(-max(len(chosen), 1) // _ACROSS)
    canvas = Image.new("RGB", (_ACROSS * _TILE, rows * (_TILE + 16)), (30, 30, 30))
    pencil = ImageDraw.Draw(canvas)
    place = {path.stem: i for i, path in enumerate(annotated.paths)}
    for n, mistake in enumerate(chosen):
        i = place[mistake.image]
        x, y = n % _ACROSS * _TILE, n // _ACROSS * (_TILE + 16)
        left, top, right, bottom = mistake.box
        side = _CONTEXT * max(right - left, bottom - top, 16)
        corner = ((left + right - side) / 2, (top + bottom - side) / 2)
        view = (*corner, corner[0] + side, corner[1] + side)
        image = Image.fromarray(annotated.pixels(i))
        tile = image.transform((_TILE, _TILE), Image.Transform.EXTENT, view, 2)
        inner = ImageDraw.Draw(tile)

        def shown(box: Any, view: Any = view, side: float = side) -> tuple[float, ...]:
            return tuple(
                (v - o) * _TILE / side for v, o in zip(box, (*view[:2], *view[:2]), strict=True)
            )

        said = detections[i]
        for box in annotated.boxes[i].tolist():
            inner.rectangle(shown(box), outline=_WHITE, width=2)
        for box, name in zip(said.boxes.tolist(), said.names(), strict=True):
            inner.rectangle(shown(box), outline=colour_of(name, said.class_names), width=1)
        canvas.paste(tile, (x, y))
        pencil.text((x + 2, y + _TILE + 2), f"{mistake.words} {mistake.cost:.2f}", _WHITE)
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/mask-worst"))
    parser.add_argument("--count", type=int, default=48)
    told = parser.parse_args()
    annotated = load_faces(told.faces, corrected=True)
    found, fitted = read_predictions(PREDICTIONS, annotated)
    said: dict[str, Detections] = {}
    for fold, sets in found.items():
        own, raw = part(sets[PLAIN])
        for path, one in zip(own.paths, raw, strict=True):
            said[path.stem] = answers(one, fitted[fold], scale=SCALE)
    seen = annotated[[i for i, path in enumerate(annotated.paths) if path.stem in said]]
    detections = [said[path.stem] for path in seen.paths]
    all_of = mistakes(seen, detections)
    false = [m for m in all_of if m.kind == FALSE]
    told.out.mkdir(parents=True, exist_ok=True)
    sheet(all_of[: told.count], seen, detections).save(told.out / "worst.jpg", quality=90)
    sheet(false, seen, detections).save(told.out / "false-positives.jpg", quality=90)
    counts = Counter(m.kind for m in all_of)
    small = sum(m.kind == MISSED and area(np.array([m.box]))[0] < 144 for m in all_of)
    print(f"{len(seen)} images, {seen.counts.sum():,} faces: {dict(counts)}, {small} under 12 px")
    print(f"{told.out}/worst.jpg, {told.out}/false-positives.jpg")


if __name__ == "__main__":
    main()
