"""Write the mask detector that ships, and a card that says what it is and where it fails.

From what benchmarks.mask.wild stored of the folds: exports the detector of all images in 8 bits,
with the calibration out of fold, and puts together what is known of it. All figures are of images
that each fold's detector was not trained on: average precision on corrected and on original
annotations, tables by size, class and crowding, the hard set, other light and other poses, images
without a face, confidences, what is judged and what is hidden; and the flow check of a fresh
network, and an audit of how small a change makes the network predict a mask on a bare face. OUT
gets detector.onnx, detector.safetensors, detector.json and the same in words, detector.md. The last
line is JSON.

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
from benchmarks.mask.hard_faces import BARE, MASKED
from benchmarks.mask.wild import COUNT, SCALE
from benchmarks.mask.wild_figures import all_figures, calibration_of, stored
from benchmarks.release.detector_card_text import in_words

from unmask.data.detection.dataset import AnnotatedImages, load_faces
from unmask.flow.check import check_flow
from unmask.fool.audit.plan import AuditPlan
from unmask.fool.audit.run import run_audit
from unmask.fool.victim import Victim
from unmask.mask.evaluate.confidence import LEAST_SIDE
from unmask.mask.runtime.calibration import Calibration
from unmask.mask.runtime.card import ShippedCard
from unmask.mask.runtime.detector import MaskDetector
from unmask.mask.training.canvases import WILD, Canvases
from unmask.mask.training.colour import recoloured
from unmask.mask.training.cross_validation import write_onnx
from unmask.mask.training.export import recalibrated
from unmask.mask.training.loss import losses, targets
from unmask.mask.training.network import (
    DetectorCard,
    FaceNetwork,
    load_detector,
    parameters_of,
    save_detector,
)
from unmask.mask.training.trainer import rarity_weights
from unmask.runtime import environment_stamp, seeded, sha256, write_atomically
from unmask.stats import wilson

ALL = COUNT
BATCH, SEED = 8, 0
_CANVAS_STREAM = 11
PLANS = {
    "linf": AuditPlan(norm="linf", eps=(4 / 255,), queries=500),
    "l2": AuditPlan(norm="l2", eps=(0.5,), queries=500),
}


def flow(annotated: AnnotatedImages, card: DetectorCard) -> dict[str, Any]:
    """Return what the flow check says of one batch at the start, in plain values."""
    size = WILD.size
    canvases = Canvases(annotated[list(range(4 * BATCH))], WILD)
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
    calibration = calibration_of(stored(out), [k for k in stored(out) if k != fold])
    threshold = calibration.uncalibrated(calibration.face)
    judge = CropJudge(network, threshold).eval()
    images = faces_of(annotated[held_of(annotated, out, fold)], BARE, LEAST_SIDE, faces)
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


def held_of(annotated: AnnotatedImages, out: Path, fold: int) -> Any:
    """Return the images that a fold's detector was not trained on."""
    dealt = json.loads((out / "dealt.json").read_bytes())
    return np.flatnonzero(np.array([dealt[p.stem] for p in annotated.paths]) == fold)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--folds", type=Path, default=Path("runs/mask-folds"))
    parser.add_argument("--out", type=Path, default=Path("src/unmask/mask/weights"))
    parser.add_argument(
        "--audit", type=int, default=40, help="how many faces are attacked; 0: no check, no audit"
    )
    parser.add_argument("--floating", action="store_true", help="the folds were not quantised")
    told = parser.parse_args()
    original = load_faces(told.faces)
    annotated = original.corrected()
    source = told.folds / f"fold-{ALL}"
    network, card = load_detector(source / "detector.safetensors")
    figures = all_figures(original, told.folds)
    calibration = Calibration(**figures.pop("calibration"))
    chosen = figures["folds"]
    corrected = figures.pop("corrected")
    facts: dict[str, Any] = {
        "data": {
            "name": "Kaggle andrewmvd/face-mask-detection, CC0, with corrected annotations",
            "sha256": annotated.sha256,
            "pictures": len(annotated),
            "faces": dict(zip(annotated.class_names, annotated.counts.tolist(), strict=True)),
        },
        "parameters": parameters_of(network),
        "recipe": {**card.facts, "canvas": json.loads(json.dumps(WILD, default=vars))},
        "scale": SCALE,
        "measured_in": "floating point" if told.floating else "8 bits",
        "calibration": calibration.as_dict(),
        "cross_validation": {"folds": chosen, **corrected},
        **figures,
        "stamp": environment_stamp(seed=SEED),
    }
    if told.audit:
        facts["flow"] = flow(annotated, card)
        facts["audit"] = audited(annotated, told.folds, chosen[0], told.audit)
    out: Path = told.out
    out.mkdir(parents=True, exist_ok=True)
    onnx, weights = out / "detector.onnx", out / "detector.safetensors"
    made, told_of = source / "int8.onnx", source / "int8.json"
    if not told_of.exists():
        difference, agreement = write_onnx(made, source, annotated, ALL, calibration, SCALE)
        entries = {"difference": difference, "faces": agreement.faces, "again": agreement.again}
        told_of.write_text(json.dumps(entries))
    entries = json.loads(told_of.read_bytes())
    recalibrated(made, onnx, calibration)
    facts["onnx_difference"] = entries.pop("difference")
    facts["quantized"] = {"bits": 8, **entries}
    save_detector(weights, network, replace(card, facts={**card.facts, "data": annotated.sha256}))
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
