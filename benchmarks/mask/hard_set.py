"""What the mask detector makes of the faces that detectors of masks are known to mistake.

Composes the pictures of hard_faces.py from those that each fold of benchmarks/mask/folds.py left
out, lets the fold's own detector look at them, exported and calibrated as the other folds ask, and
tells, kind by kind and with 95 % intervals (Wilson), how many of the altered faces it found, and
what it said of them; beside it, what it had said of the same faces as they were. A table comes
first, then one line of JSON.

    python -m benchmarks.mask.hard_set FACES --folds runs/mask-folds [--only 0] [--show FOLDER]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.mask.folds import COUNT, SCALE
from benchmarks.mask.hard_faces import LARGE, HardPicture, compose
from PIL import Image
from rich.console import Console
from rich.table import Table

from unmask.data.detection.dataset import AnnotatedImages, load_faces
from unmask.mask.evaluate.confidence import calibrated
from unmask.mask.evaluate.folds import folds
from unmask.mask.evaluate.matching import matched
from unmask.mask.runtime.calibration import Calibration
from unmask.mask.runtime.detections import NOT_JUDGED, Detections
from unmask.mask.runtime.detector import MaskDetector
from unmask.mask.training.cross_validation import write_onnx
from unmask.runtime import environment_stamp
from unmask.stats import wilson

NOT_FOUND, UNTOLD = "not found", "not judged"


def fold_detections(out: Path, fold: int) -> list[Detections]:
    """Return what a fold's detector found, uncalibrated, in the pictures it was not trained on."""
    entries = json.loads((out / f"fold-{fold}" / "int8.json").read_bytes())
    return [Detections.from_dict(entry) for entry in entries]


def present(out: Path, only: list[int] | None = None) -> list[int]:
    """Return the folds whose detector and detections are there."""
    wanted = range(COUNT) if only is None else only
    files = ("int8.json", "detector.safetensors")
    return [k for k in wanted if all((out / f"fold-{k}" / f).exists() for f in files)]


def calibration_without(annotated: AnnotatedImages, out: Path, fold: int) -> Calibration:
    """Return the calibration by all other folds, or by itself where there is no other."""
    others = [k for k in present(out) if k != fold] or [fold]
    dealt = folds(annotated, COUNT)
    index = np.concatenate([dealt[k][1] for k in others])
    found = [d for k in others for d in fold_detections(out, k)]
    return calibrated(annotated[index], found, scale=SCALE)


def detector_of(
    annotated: AnnotatedImages, out: Path, fold: int, calibration: Calibration
) -> MaskDetector:
    """Return a fold's detector as it would ship."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "detector.onnx"
        chosen = folds(annotated, COUNT)[fold][0]
        write_onnx(file, out / f"fold-{fold}", annotated[chosen], fold, calibration, SCALE)
        return MaskDetector.load(file)


def said_of(picture: HardPicture, found: Detections) -> list[tuple[int, str]]:
    """Return the true class, and what was said, of each face that the picture is about."""
    face_of = matched(picture.boxes, found.boxes, found.scores)
    told = []
    for face in np.flatnonzero(picture.about):
        box = np.flatnonzero(face_of == face)
        if not len(box):
            said = NOT_FOUND
        elif (label := int(found.labels[box[0]])) == NOT_JUDGED:
            said = UNTOLD
        else:
            said = found.class_names[label]
        told.append((int(picture.labels[face]), said))
    return told


def figures(told: list[tuple[int, str]], names: tuple[str, ...]) -> dict[str, Any]:
    """Return counts, proportions and their intervals of faces and what was said of each."""
    found = sum(said != NOT_FOUND for _, said in told)
    judged = sum(said not in (NOT_FOUND, UNTOLD) for _, said in told)
    right = sum(names[label] == said for label, said in told)
    confusion: dict[str, dict[str, int]] = {}
    for label, name in enumerate(names):
        of_class = Counter(said for true, said in told if true == label)
        if of_class:
            confusion[name] = dict(of_class)
    return {
        "faces": len(told),
        "found": found,
        "judged": judged,
        "right": right,
        "recall": found / len(told) if told else None,
        "recall_interval_95": wilson(found, len(told)),
        "accuracy": right / judged if judged else None,
        "accuracy_interval_95": wilson(right, judged),
        "confusion": confusion,
    }


def hard_figures(
    annotated: AnnotatedImages, out: Path, chosen: list[int], show: Path | None = None
) -> dict[str, dict[str, Any]]:
    """Return, for every kind, the figures of the altered faces and, as before, of the same ones."""
    names = annotated.class_names
    after: dict[str, list[tuple[int, str]]] = {}
    before: dict[str, list[tuple[int, str]]] = {}
    for fold in chosen:
        own = annotated[folds(annotated, COUNT)[fold][1]]
        detector = detector_of(annotated, out, fold, calibration_without(annotated, out, fold))
        plain: dict[int, Detections] = {}
        for kind, pictures in compose(own).items():
            for i, picture in enumerate(pictures):
                said = detector.detect(picture.pixels)
                after.setdefault(kind, []).extend(said_of(picture, said))
                if show is not None:
                    _draw(picture, said, show / kind.replace(" ", "-") / f"{fold}-{i}.jpg")
                # A face shown so large is on another picture than it was.
                if kind != LARGE:
                    if picture.picture not in plain:
                        plain[picture.picture] = detector.detect(own.paths[picture.picture])
                    before.setdefault(kind, []).extend(said_of(picture, plain[picture.picture]))
    return {
        kind: {
            **figures(told, names),
            "as_they_were": figures(before[kind], names) if kind in before else None,
        }
        for kind, told in after.items()
    }


def _draw(picture: HardPicture, said: Detections, path: Path) -> None:
    from unmask.mask.runtime.drawing import draw

    path.parent.mkdir(parents=True, exist_ok=True)
    draw(Image.fromarray(picture.pixels), said).save(path, quality=90)


def table_of(found: dict[str, dict[str, Any]]) -> Table:
    """Return the figures as a table."""
    table = Table(
        "faces", "count", "found, %", "before", "class right, %", "before", "mistaken for"
    )
    for kind, f in found.items():
        was = f["as_they_were"] or {"recall": None, "accuracy": None}
        wrong: Counter[str] = Counter()
        for name, said in f["confusion"].items():
            wrong.update({k: n for k, n in said.items() if k not in (name, NOT_FOUND, UNTOLD)})
        table.add_row(
            kind,
            str(f["faces"]),
            _percent(f["recall"], f["recall_interval_95"]),
            _percent(was["recall"]),
            _percent(f["accuracy"], f["accuracy_interval_95"]),
            _percent(was["accuracy"]),
            ", ".join(f"{name} {n}" for name, n in wrong.most_common()) or "-",
        )
    return table


def _percent(value: float | None, interval: tuple[float, float] | None = None) -> str:
    if value is None:
        return "-"
    around = "" if interval is None else f" ({100 * interval[0]:.0f}-{100 * interval[1]:.0f})"
    return f"{100 * value:.0f}{around}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--folds", type=Path, default=Path("runs/mask-folds"))
    parser.add_argument("--only", type=int, nargs="*")
    parser.add_argument("--show", type=Path, help="a folder for the pictures, with what was found")
    arguments = parser.parse_args()
    annotated = load_faces(arguments.faces)
    chosen = present(arguments.folds, arguments.only)
    if not chosen:
        raise SystemExit(f"no fold is done in {arguments.folds}: run benchmarks/mask/folds.py")
    found = hard_figures(annotated, arguments.folds, chosen, arguments.show)
    Console().print(table_of(found))
    print(json.dumps({"folds": chosen, "kinds": found, "stamp": environment_stamp(seed=0)}))


if __name__ == "__main__":
    main()
