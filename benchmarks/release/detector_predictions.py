"""What the folds' detectors found in images that they had not seen, as it ships with the project.

A packed JSON file of scores and boxes, uncalibrated, with the calibration that each fold's figures
were made with. It holds neither images nor annotations: those are the face mask set's.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.mask.wild import SCALE
from benchmarks.mask.wild_figures import PLAIN, Found

from unmask.data.detection.dataset import FACE_CLASSES, AnnotatedImages
from unmask.errors import UserError
from unmask.mask.runtime.calibration import Calibration
from unmask.runtime import write_atomically

PREDICTIONS = Path(__file__).with_suffix(".json.xz")
FORMAT = "unmask-mask-predictions/1"
# The network's own scores: what is below is the hundredth of a percent after calibration.
FLOOR = 0.05


def write_predictions(path: Path, found: Found, fitted: dict[int, Calibration]) -> None:
    """Write what each fold's detector found in the images as they are."""
    images = {}
    for fold, sets in found.items():
        for entry in sets[PLAIN]:
            kept = entry["found"]
            faces = [
                [
                    *(round(side, 1) for side in face["box"]),
                    round(face["score"], 4),
                    *(round(face["probabilities"][name], 4) for name in FACE_CLASSES),
                ]
                for face in kept["faces"]
                if face["score"] >= FLOOR
            ]
            images[entry["name"]] = [fold, kept["width"], kept["height"], faces]
    content = {
        "format": FORMAT,
        "scale": SCALE,
        "class_names": FACE_CLASSES,
        "calibrations": {str(k): fitted[k].as_dict() for k in found},
        "images": images,
    }
    with write_atomically(path) as file:
        file.write(lzma.compress(json.dumps(content, separators=(",", ":")).encode(), preset=9))


def read_predictions(
    path: Path, annotated: AnnotatedImages
) -> tuple[Found, dict[int, Calibration]]:
    """Return what was written, with the images' annotations.

    Raises UserError when an image isn't annotated or the file is another.
    """
    content = json.loads(lzma.decompress(path.read_bytes()))
    if content.get("format") != FORMAT:
        raise UserError(f"{path} holds no stored predictions", got=content.get("format"))
    place = {p.stem: i for i, p in enumerate(annotated.paths)}
    if missing := sorted(set(content["images"]) - set(place)):
        raise UserError(
            f"{len(missing)} images of the stored predictions aren't in {annotated.name}",
            got=missing[0],
            do="give the whole face mask set",
        )
    found: Found = {int(k): {PLAIN: []} for k in content["calibrations"]}
    for name, (fold, width, height, faces) in content["images"].items():
        i = place[name]
        found[fold][PLAIN].append(
            {
                "name": name,
                "found": _as_dict(width, height, faces),
                "boxes": annotated.boxes[i].tolist(),
                "labels": annotated.labels[i].tolist(),
                "ignored": annotated.ignored[i].tolist(),
                "about": np.ones(len(annotated.boxes[i]), bool).tolist(),
            }
        )
    fitted = {int(k): Calibration.of(v) for k, v in content["calibrations"].items()}
    return found, fitted


def _as_dict(width: int, height: int, faces: list[list[float]]) -> dict[str, Any]:
    rows = []
    for *box, score, first, second, third in faces:
        probabilities = dict(zip(FACE_CLASSES, (first, second, third), strict=True))
        label = max(probabilities, key=lambda name: probabilities[name])
        rows.append({"box": box, "label": label, "score": score, "probabilities": probabilities})
    return {"width": width, "height": height, "class_names": list(FACE_CLASSES), "faces": rows}
