"""The two-stage baseline of the mask detector: YuNet finds faces, a classifier judges their crops.

Measured on a fold of benchmarks/mask/folds.py, the same pictures as the detector's. The classifier
is the document's network in three classes by the recipe augmented, trained on the faces of all
other folds. YuNet sees every picture at twice its size; since it draws boxes another way than the
set's annotators, they are moved and stretched as fits the other folds' faces best. A table comes
first, then one line of JSON.

    python -m benchmarks.mask.two_stage FACES --yunet FILE --out runs/mask-two-stage [--fold 0]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.mask.folds import COUNT
from benchmarks.mask.rivals import Found, yunet
from PIL import Image
from rich.console import Console
from rich.table import Table

from unmask.data.detection.boxes import clip, iou
from unmask.data.detection.dataset import AnnotatedImages, load_faces
from unmask.mask.evaluate.confidence import LEAST_PRECISION, LEAST_SIDE
from unmask.mask.evaluate.folds import folds
from unmask.mask.evaluate.matching import FaceMatches
from unmask.mask.evaluate.metrics import measured
from unmask.mask.runtime.detections import Detections
from unmask.mask.training.classifier import FACE_RECIPES, train_on_faces
from unmask.mask.training.crops import square
from unmask.models.classifier import Classifier
from unmask.runtime import environment_stamp

SIDE, SCALE, LEAST = 832, 2.0, 0.05
# Of YuNet's boxes and annotated ones: the overlap from which on they are the same face.
_SAME = 0.3


def judge_of(annotated: AnnotatedImages, fold: int, out: Path) -> Classifier:
    """Return the classifier of faces, trained on all folds but one."""
    chosen = FACE_RECIPES["augmented"]
    config = replace(chosen.recipe.config, seed=fold)
    chosen = replace(chosen, recipe=replace(chosen.recipe, config=config))
    result = train_on_faces(chosen, annotated, out=out, classes=3, parts=COUNT, resume=True)
    return result.trained.classifier.eval()


def faces_in(find: Any, picture: np.ndarray) -> Found:
    """Return YuNet's boxes, float32[n, 4] in pixels of the picture, and scores."""
    height, width = picture.shape[:2]
    scale = min(SCALE, SIDE / max(height, width))
    wide, high = round(width * scale), round(height * scale)
    canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
    seen = Image.fromarray(picture).resize((wide, high), Image.Resampling.BILINEAR)
    canvas[:high, :wide] = np.asarray(seen)
    boxes, scores = find(canvas, LEAST)
    return clip((boxes / scale).astype(np.float32), width, height), scores


def stretch(annotated: AnnotatedImages, found: list[Found]) -> np.ndarray:
    """Return how far annotated sides lie from YuNet's, in parts of its box: float64[4]."""
    apart = []
    for (boxes, _), faces in zip(found, annotated.boxes, strict=True):
        overlap = iou(boxes, faces)
        if not overlap.size:
            continue
        best = overlap.argmax(1)
        same = overlap.max(1) >= _SAME
        own, theirs = boxes[same], faces[best[same]]
        sides = np.tile(own[:, 2:] - own[:, :2], 2)
        apart.append((theirs - own) / sides)
    return np.asarray(np.median(np.concatenate(apart), 0))


@torch.inference_mode()
def judged(
    judge: Classifier, picture: np.ndarray, found: Found, by: np.ndarray, names: tuple[str, ...]
) -> Detections:
    """Return what the classifier says of the boxes, stretched."""
    boxes, scores = found
    height, width = picture.shape[:2]
    boxes = boxes + by * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    boxes = clip(boxes.astype(np.float32), width, height)
    good = (boxes[:, 2:] > boxes[:, :2]).all(1)
    boxes, scores = boxes[good], scores[good]
    if not len(boxes):
        return Detections.none(names, width, height)
    facts = judge.card.facts["faces"]
    crops = np.stack([square(picture, box, facts["size"], facts["context"]) for box in boxes])
    pixels = torch.from_numpy(crops).float() / 255
    sure = (judge(pixels).softmax(1) + judge(pixels.flip(3)).softmax(1)) / 2
    order = np.argsort(-scores, kind="stable")
    sure = sure.numpy()[order]
    return Detections(
        boxes[order],
        sure.argmax(1).astype(np.int64),
        scores[order].astype(np.float32),
        sure.astype(np.float32),
        names,
        width,
        height,
    )


def main() -> None:
    """Train the classifier, look, measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--yunet", type=Path, required=True, help="see benchmarks/mask.py")
    parser.add_argument("--out", type=Path, default=Path("runs/mask-two-stage"))
    parser.add_argument("--fold", type=int, default=0, choices=range(COUNT))
    arguments = parser.parse_args()
    annotated = load_faces(arguments.faces)
    chosen, left_out = (part.tolist() for part in folds(annotated, COUNT)[arguments.fold])
    judge = judge_of(annotated, arguments.fold, arguments.out / f"fold-{arguments.fold}")
    find = yunet(arguments.yunet, (SIDE, SIDE))
    found = [faces_in(find, annotated.pixels(i)) for i in range(len(annotated))]
    by = stretch(annotated[chosen], [found[i] for i in chosen])
    own, names = annotated[left_out], annotated.class_names
    said = [judged(judge, annotated.pixels(i), found[i], by, names) for i in left_out]
    metrics = measured(own, said, threshold=0.5)
    recall, _ = FaceMatches.of(own, said).recall_at(LEAST_PRECISION, least_side=LEAST_SIDE)
    table = Table(title=f"YuNet and a classifier, fold {arguments.fold}, {len(own)} pictures")
    for column in ("figure", "value"):
        table.add_column(column)
    for name, value in zip(names, metrics.ap.tolist(), strict=True):
        table.add_row(f"AP@50 {name}", f"{value:.3f}")
    low, high = metrics.mean_ap_interval
    table.add_row("mAP@50", f"{metrics.mean_ap:.3f} ({low:.3f} to {high:.3f})")
    table.add_row("AP@50 of faces", f"{metrics.face_ap:.3f}")
    table.add_row("recall of 20 px and more at precision 0.90", f"{recall:.3f}")
    Console().print(table)
    told = {
        **metrics.as_dict(),
        "recall_20px_at_precision_90": recall,
        "stretch": by.tolist(),
        "stamp": environment_stamp(data=annotated.sha256),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
