"""Write the card of the mask detector that ships: what it is, how good it is, where it fails.

From what benchmarks.mask.wild stored of the folds, or without --folds from the predictions that
ship beside this file: average precision on corrected and on original annotations, tables by size,
class and crowding, what is hidden, and, where their predictions are at hand, the hard set, other
light and other poses, images without a face and what is judged. Sections without predictions stay
as they were, which is said. All figures are of images that each fold's detector was not trained on.

--origin adds a section of annotated images from elsewhere, at which the detector that ships looks.
--recalibrate gives it the calibration that the folds' detections ask for,
--weights exports the folds' detector of all images in 8 bits, with the calibration out of fold;
--audit adds the flow check of a fresh network and how small a change makes it predict a mask on a
bare face. OUT gets detector.json and the same in words, detector.md. The last line is JSON.

    python -m benchmarks.release.detector_card FACES [--folds runs/mask-folds] [--out FOLDER]
    python -m benchmarks.release.detector_card FACES --origin street=photos/street
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.mask.crop_judge import CONTEXT, CROP, CropJudge, faces_of
from benchmarks.mask.hard_faces import BARE, MASKED
from benchmarks.mask.wild import COUNT, SCALE
from benchmarks.mask.wild_figures import Found, all_figures, calibration_of, cross_fits, stored
from benchmarks.release.detector_card_text import in_words
from benchmarks.release.detector_predictions import (
    PREDICTIONS,
    read_predictions,
    write_predictions,
)

from unmask.data.detection.dataset import AnnotatedImages, load_faces, read_annotated
from unmask.flow.check import check_flow
from unmask.fool.audit.plan import AuditPlan
from unmask.fool.audit.run import run_audit
from unmask.fool.victim import Victim
from unmask.mask.evaluate.confidence import LEAST_SIDE, found_in, reliabilities
from unmask.mask.evaluate.metrics import measured
from unmask.mask.runtime.detector import WEIGHTS, MaskDetector
from unmask.mask.training.canvases import WILD, Canvases
from unmask.mask.training.colour import recoloured
from unmask.mask.training.cross_validation import write_onnx
from unmask.mask.training.export import recalibrated
from unmask.mask.training.loss import losses, targets
from unmask.mask.training.network import (
    fresh_detector,
    load_detector,
    parameters_of,
    save_detector,
)
from unmask.mask.training.trainer import rarity_weights
from unmask.models.card import ModelCard
from unmask.runtime import environment_stamp, seeded, sha256, write_atomically
from unmask.stats import wilson

ALL = COUNT
BATCH, SEED = 8, 0
_CANVAS_STREAM = 11
PLANS = {
    "linf": AuditPlan(norm="linf", eps=(4 / 255,), queries=500),
    "l2": AuditPlan(norm="l2", eps=(0.5,), queries=500),
}


def flow(annotated: AnnotatedImages, card: ModelCard) -> dict[str, Any]:
    """Return what the flow check says of one batch at the start, in plain values."""
    size = WILD.size
    canvases = Canvases(annotated[list(range(4 * BATCH))], WILD)
    made = [canvases.make(i, seeded(SEED, _CANVAS_STREAM, i)) for i in range(BATCH)]
    pixels = recoloured(torch.from_numpy(np.stack([c.pixels for c in made])), seeded(SEED))
    wanted = targets([c.faces for c in made], size, size)
    weights = rarity_weights(annotated.counts)
    torch.manual_seed(SEED)
    network = fresh_detector(card).train()
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


def origins(told: list[str], card: ModelCard, file: Path) -> dict[str, Any]:
    """Return the figures of the detector in a file on annotated images, NAME=FOLDER, by name."""
    made = {}
    detector = MaskDetector.load(file)
    for text in told:
        name, _, folder = text.partition("=")
        annotated = read_annotated(folder)[0].with_classes(card.class_names)
        found = found_in(detector, annotated)
        face = detector.facts.calibration.face
        gaps = {of: r.mean_gap for of, r in reliabilities(annotated, found, threshold=face).items()}
        made[name] = {
            "sha256": annotated.sha256,
            "gaps": gaps,
            **measured(annotated, found, threshold=face).as_dict(),
        }
    return made


def exported(source: Path, out: Path, annotated: AnnotatedImages, found: Found) -> dict[str, Any]:
    """Write the detector of all images in 8 bits, and return the facts of it and of its files."""
    network, card = load_detector(source / "detector.safetensors")
    calibration = calibration_of(found, sorted(found))
    onnx, weights = out / "detector.onnx", out / "detector.safetensors"
    made, told_of = source / "int8.onnx", source / "int8.json"
    if not told_of.exists():
        difference, agreement = write_onnx(made, source, annotated, ALL, calibration, SCALE)
        entries = {"difference": difference, "faces": agreement.faces, "again": agreement.again}
        told_of.write_text(json.dumps(entries))
    entries = json.loads(told_of.read_bytes())
    recalibrated(made, onnx, calibration)
    save_detector(weights, network, replace(card, facts={**card.facts, "data": annotated.sha256}))
    return {
        "data": {
            "name": "Kaggle andrewmvd/face-mask-detection, CC0, with corrected annotations",
            "sha256": annotated.sha256,
            "pictures": len(annotated),
            "faces": dict(zip(annotated.class_names, annotated.counts.tolist(), strict=True)),
        },
        "parameters": parameters_of(network),
        "recipe": {**card.facts, "canvas": json.loads(json.dumps(WILD, default=vars))},
        "scale": SCALE,
        "calibration": calibration.as_dict(),
        "onnx_difference": entries.pop("difference"),
        "quantized": {"bits": 8, **entries},
    }


def refreshed(facts: dict[str, Any], figures: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a card's facts with figures made anew, and the sections that stay as they were."""
    made = dict(figures)
    corrected = made.pop("corrected")
    told = {**facts, "cross_validation": {"folds": made.pop("folds"), **corrected}}
    told |= {"original": made.pop("original"), "hidden": made.pop("hidden")}
    stay = []
    for name in ("shifts", "hard_set", "without_a_face", "judged_by_size"):
        new = made.pop(name, None)
        if name == "judged_by_size" and len(figures["shifts"]) == 1:
            # It is of the changed images too.
            new = None
        if not new:
            stay.append(name)
        elif isinstance(new, dict):
            old = facts.get(name, {})
            stay += [f"{name}: {kind}" for kind in old if kind not in new]
            told[name] = {**old, **new}
        else:
            told[name] = new
    return told, stay


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--folds", type=Path, help="what ships if none")
    parser.add_argument("--out", type=Path, default=WEIGHTS.parent)
    parser.add_argument("--weights", action="store_true", help="export the detector too")
    parser.add_argument(
        "--recalibrate", action="store_true", help="the detector that is there, as the folds ask"
    )
    parser.add_argument("--origin", nargs="*", default=[], help="NAME=FOLDER, annotated")
    parser.add_argument("--audit", type=int, default=0, help="how many faces are attacked")
    parser.add_argument("--floating", action="store_true", help="the folds were not quantised")
    told = parser.parse_args()
    original = load_faces(told.faces)
    annotated = original.corrected()
    out: Path = told.out
    old = ModelCard.read(out / "detector.json")
    found: Found = {}
    if told.folds:
        found = stored(told.folds)
        write_predictions(PREDICTIONS, found, cross_fits(found))
    shipped, fitted = read_predictions(PREDICTIONS, annotated)
    # As they ship: rounded.
    found = {k: {**found.get(k, {}), **shipped[k]} for k in shipped}
    facts, stay = refreshed(old.facts, all_figures(original, found, fitted))
    facts["measured_in"] = "floating point" if told.floating or not told.folds else "8 bits"
    # Where the set and the folds lie is the machine's affair.
    words = ["python -m benchmarks.release.detector_card FACES"]
    words += ["--folds OUT"] if told.folds else []
    words += [f"--{name}" for name in ("floating", "recalibrate") if getattr(told, name)]
    command = " ".join(words)
    facts["stamp"] = environment_stamp(seed=SEED) | {"command": command}
    if told.recalibrate:
        calibration = calibration_of(found, sorted(found))
        recalibrated(out / "detector.onnx", out / "detector.onnx", calibration)
        facts["calibration"] = calibration.as_dict()
    if told.weights:
        facts |= exported(told.folds / f"fold-{ALL}", out, annotated, found)
    onnx, weights = out / "detector.onnx", out / "detector.safetensors"
    if told.audit:
        _, card = load_detector(weights)
        facts["flow"] = flow(annotated, card)
        facts["audit"] = audited(annotated, told.folds, sorted(found)[0], told.audit)
    sums = {
        "onnx_sha256": sha256(onnx.read_bytes()),
        "weights_sha256": sha256(weights.read_bytes()),
    }
    card = replace(old, facts=facts, **sums)
    if told.origin:
        facts["other_origins"] = origins(told.origin, card, onnx)
    card.write(out / "detector.json")
    with write_atomically(out / "detector.md") as file:
        file.write(in_words(card).encode())
    MaskDetector.load(onnx)
    print(in_words(card))
    for name in stay:
        print(f"as it was, since no predictions of it are at hand: {name}", file=sys.stderr)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
