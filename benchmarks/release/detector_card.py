"""Write the mask detector that ships, and a card that says what it is and where it fails.

From the folds of benchmarks/mask/folds.py: exports the detector of all pictures with the
calibration out of fold, and puts together what is known of it. The figures are those of the folds,
each of pictures that its detector was not trained on: average precision, tables by size, class and
crowding, confidences (calibrated on four folds, checked on the fifth), the hard set of
benchmarks.mask.hard_set, the flow check of a fresh network on one batch, and an audit of how small
a change makes the network predict a mask on a bare face of 20 pixels and more. OUT gets
detector.onnx, detector.safetensors, detector.json and the same in words, detector.md. The last line
is JSON.

    python -m benchmarks.release.detector_card FACES --folds runs/mask-folds [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.mask.crop_judge import CONTEXT, CROP, CropJudge, faces_of
from benchmarks.mask.folds import ALL, COUNT, SCALE, figures
from benchmarks.mask.hard_faces import BARE, MASKED
from benchmarks.mask.hard_set import calibration_without, fold_detections, hard_figures, present
from benchmarks.release.detector_card_text import in_words

from unmask.data.detection.dataset import AnnotatedImages, load_faces
from unmask.flow.check import check_flow
from unmask.fool.audit.plan import AuditPlan
from unmask.fool.audit.run import run_audit
from unmask.fool.victim import Victim
from unmask.mask.evaluate.confidence import LEAST_SIDE, cross_fitted, reliabilities
from unmask.mask.evaluate.folds import folds
from unmask.mask.runtime.calibration import Calibration
from unmask.mask.runtime.card import ShippedCard
from unmask.mask.runtime.detector import MaskDetector
from unmask.mask.training.canvases import Canvases
from unmask.mask.training.colour import recoloured
from unmask.mask.training.cross_validation import write_onnx
from unmask.mask.training.loss import losses, targets
from unmask.mask.training.network import (
    DetectorCard,
    FaceNetwork,
    load_detector,
    parameters_of,
    save_detector,
)
from unmask.mask.training.trainer import DetectorSettings, rarity_weights
from unmask.models.checkpoint import TensorFile
from unmask.runtime import environment_stamp, seeded, sha256, write_atomically
from unmask.stats import wilson

BATCH, SEED = 8, 0
_CANVAS_STREAM = 11
PLANS = {
    "linf": AuditPlan(norm="linf", eps=(4 / 255,), queries=500),
    "l2": AuditPlan(norm="l2", eps=(0.5,), queries=500),
}


def certainties(annotated: AnnotatedImages, out: Path, chosen: list[int]) -> dict[str, Any]:
    """Return how reliable stated certainties are, calibrated on all folds but the one checked."""
    dealt = folds(annotated, COUNT)
    index = np.concatenate([dealt[k][1] for k in chosen])
    found = [d for k in chosen for d in fold_detections(out, k)]
    part = np.repeat(chosen, [len(dealt[k][1]) for k in chosen])
    if len(chosen) == 1:
        part = np.arange(len(index)) % COUNT
    own = annotated[index]
    said = cross_fitted(own, found, part, scale=SCALE)
    return {of: r.as_dict() for of, r in reliabilities(own, said).items()}


def flow(annotated: AnnotatedImages, card: DetectorCard) -> dict[str, Any]:
    """Return what the flow check says of one batch at the start, in plain values."""
    size = DetectorSettings().canvas.size
    canvases = Canvases(annotated[list(range(4 * BATCH))], DetectorSettings().canvas)
    made = [canvases.make(i, seeded(SEED, _CANVAS_STREAM, i)) for i in range(BATCH)]
    pixels = recoloured(torch.from_numpy(np.stack([c.pixels for c in made])), seeded(SEED))
    wanted = targets([c.faces for c in made], size, size)
    weights = rarity_weights(annotated.counts)
    torch.manual_seed(SEED)
    network = FaceNetwork(len(card.class_names), card.shape).train()
    found = check_flow(
        network, lambda heads, t: losses(heads, t, weights).total, (pixels, wanted), seed=SEED
    )
    return {
        "healthy": found.healthy,
        "verdicts": [
            {"severity": v.severity, "kind": v.kind, "message": v.message} for v in found.verdicts
        ],
        "pictures": BATCH,
        "seed": SEED,
    }


def audited(annotated: AnnotatedImages, out: Path, fold: int, faces: int) -> dict[str, Any]:
    """Return how small a change makes a bare face pass for masked, of a fold's unseen faces."""
    network, card = load_detector(out / f"fold-{fold}" / "detector.safetensors")
    calibration = calibration_without(annotated, out, fold)
    threshold = calibration.uncalibrated(calibration.face)
    judge = CropJudge(network, threshold).eval()
    images = faces_of(annotated[folds(annotated, COUNT)[fold][1]], BARE, LEAST_SIDE, faces)
    masked, bare = (card.class_names.index(name) for name in (MASKED, BARE))
    told: dict[str, Any] = {"faces": len(images), "fold": fold, "crop": CROP, "context": CONTEXT}
    for norm, plan in PLANS.items():
        plan = replace(plan, images=len(images), pairs=len(images))
        result = run_audit(Victim.of(judge, "the detector on crops"), images, plan)
        entry: dict[str, Any] = {
            "right_as_they_are": result.clean.as_dict(),
            "smallest_to_any_other_answer": result.smallest,
            "warnings": [f.message for f in result.findings],
        }
        if result.pairs is not None:
            pairs = result.pairs
            mine = (pairs.labels == bare) & (pairs.targets == masked)
            entry["to_pass_for_masked"] = _sizes(getattr(pairs, norm)[mine], pairs.reached[mine])
        told[norm] = entry
    return told


def _sizes(sizes: Any, reached: Any) -> dict[str, Any]:
    count, of = int(reached.sum()), len(reached)
    parts = dict(zip(("p5", "median", "p95"), (0.05, 0.5, 0.95), strict=True))
    return {
        "reached": count,
        "of": of,
        "interval_95": wilson(count, of),
        **{k: float(np.quantile(sizes[reached], q)) if count else None for k, q in parts.items()},
    }


def recipe(folder: Path) -> dict[str, Any]:
    """Return the settings and the epochs that a training's checkpoint says it had."""
    header = TensorFile(folder / "checkpoint.safetensors").header
    assert header, "a checkpoint has a header"
    seconds = header["epochs"][-1]["seconds"]
    return {**header["key"]["settings"], "epochs": len(header["epochs"]), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--folds", type=Path, default=Path("runs/mask-folds"))
    parser.add_argument("--out", type=Path, default=Path("src/unmask/mask/weights"))
    parser.add_argument("--fold", type=int, default=ALL, help="whose detector ships; of all, 5")
    parser.add_argument("--audit", type=int, default=40, help="how many faces are attacked")
    arguments = parser.parse_args()
    annotated = load_faces(arguments.faces)
    chosen = present(arguments.folds)
    if not chosen:
        raise SystemExit(f"no fold is done in {arguments.folds}: run benchmarks/mask/folds.py")
    source = arguments.folds / f"fold-{arguments.fold}"
    network, card = load_detector(source / "detector.safetensors")
    measured = figures(annotated, arguments.folds, "int8")
    floating = figures(annotated, arguments.folds, "float32")["mean"]
    calibration = Calibration(**measured.pop("calibration"))
    trained_on = np.arange(len(annotated))
    if arguments.fold != ALL:
        trained_on = folds(annotated, COUNT)[arguments.fold][0]
    data = annotated[trained_on]
    facts = {
        "data": {
            "name": "Kaggle andrewmvd/face-mask-detection, CC0",
            "sha256": data.sha256,
            "pictures": len(data),
            "faces": dict(zip(data.class_names, data.counts.tolist(), strict=True)),
        },
        "parameters": parameters_of(network),
        "recipe": recipe(source),
        "scale": SCALE,
        "calibration": calibration.as_dict(),
        "cross_validation": measured,
        "cross_validation_float32": floating,
        "reliability": certainties(annotated, arguments.folds, chosen),
        "hard_set": hard_figures(annotated, arguments.folds, chosen),
        "flow": flow(annotated, card),
        "audit": audited(annotated, arguments.folds, chosen[0], arguments.audit),
        "stamp": environment_stamp(seed=SEED),
    }
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    onnx, weights = out / "detector.onnx", out / "detector.safetensors"
    facts["onnx_difference"], agreement = write_onnx(
        onnx, source, data, arguments.fold, calibration, SCALE
    )
    facts["quantized"] = {"bits": 8, "faces": agreement.faces, "again": agreement.again}
    save_detector(weights, network, card)
    shipped = ShippedCard(
        card.class_names, sha256(onnx.read_bytes()), sha256(weights.read_bytes()), facts
    )
    shipped.write(out / "detector.json")
    with write_atomically(out / "detector.md") as file:
        file.write(in_words(shipped).encode())
    MaskDetector.load(onnx)
    print(in_words(shipped))
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
