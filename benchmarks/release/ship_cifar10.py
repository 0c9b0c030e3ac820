"""Measure on the test images what train_cifar10.py made, and ship the first seed's network.

Each network is measured once, in single precision; which one ships is settled beforehand: the first
seed's. The figures of all seeds, the stages and the commands that repeat them go onto its card.

    python benchmarks/release/ship_cifar10.py OUT --source FOLDER            # measures every seed
    python benchmarks/release/ship_cifar10.py OUT --source FOLDER --ship     # and writes the card
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from unmask.data.cifar10 import load_cifar10
from unmask.data.images import Images
from unmask.models.classifier import Classifier
from unmask.train.evaluation import evaluate
from unmask.train.recipes import recipe

WEIGHTS = Path(__file__).parents[2] / "src" / "unmask" / "models" / "weights" / "cifar10"


def measured(folder: Path, test: Images) -> dict[str, Any]:
    """The figures of the network in a folder, kept beside it so that it is measured once."""
    kept = folder / "test.json"
    model = Classifier.load(folder / "model")
    if kept.is_file():
        found: dict[str, Any] = json.loads(kept.read_text())
        if found["weights_sha256"] == model.card.weights_sha256:
            return found
    figures = evaluate(model, test, test_time="flip_shift")
    found = {**figures.as_dict(), "weights_sha256": model.card.weights_sha256}
    kept.write_text(json.dumps(found))
    return found


def stage(result: dict[str, Any], name: str) -> dict[str, Any]:
    return next(s for s in result["stages"] if s["stage"] == name)


def commands(result: dict[str, Any], seed: int, config: dict[str, Any]) -> list[str]:
    """The same stages as commands, for a machine that has hours."""
    wide, student = stage(result, "wide, all"), stage(result, f"distilled, all, seed {seed}")
    held = stage(result, "distilled, held out")
    usual = recipe("cifar10", "distilled", 50_000).config
    if any(config[k] != getattr(usual, k) for k in ("batch_size", "rate", "head_rate", "warmup")):
        raise SystemExit("the recipe distilled isn't what was chosen: make it so first")
    taught = f"--recipe distilled --teacher-fraction {result['fraction']:g}"
    return [
        f"unmask train cifar10 --recipe wide --epochs {wide['epochs']} --validation 0.1 "
        "--out runs/wide-held-out",
        f"unmask train cifar10 {taught} --epochs {held['epochs']} --validation 0.1 --calibrate "
        "--teacher runs/wide-held-out/model --out runs/held-out",
        f"unmask train cifar10 --recipe wide --epochs {wide['epochs']} --validation 0 "
        "--out runs/wide",
        f"unmask train cifar10 {taught} --epochs {student['epochs']} --validation 0 --seed {seed} "
        f"--teacher runs/wide/model --temperature {held['temperature']:g} --half "
        "--out runs/distilled",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="what train_cifar10.py wrote")
    parser.add_argument("--source", type=Path, required=True, help="where CIFAR-10 lies")
    parser.add_argument("--seeds", type=int, nargs="+", help="measure these only")
    parser.add_argument("--ship", action="store_true")
    arguments = parser.parse_args()
    result = json.loads((arguments.folder / "result.json").read_text())
    chosen = stage(result, "chosen")["candidate"]
    result["fraction"] = float(chosen.split()[1].rstrip(",")) if "teacher" in chosen else 0.0
    folders = sorted(arguments.folder.glob("seed-*"))
    if arguments.seeds is not None:
        folders = [arguments.folder / f"seed-{seed}" for seed in arguments.seeds]
    _, test = load_cifar10(arguments.source)
    found = {int(f.name.removeprefix("seed-")): measured(f, test) for f in folders}
    for seed, figures in found.items():
        print(
            f"seed {seed}: {figures['accuracy']:.4f}, {figures['averaged_accuracy']} with "
            f"test-time augmentation, calibration error {figures['calibration_error']:.4f}"
        )
    if not arguments.ship:
        return
    seed, shipped = next(iter(found.items()))
    model = Classifier.load(arguments.folder / f"seed-{seed}" / "model")
    facts = dict(model.card.facts)
    facts["figures"] = {
        **facts["figures"],
        "test_accuracy": shipped["accuracy"],
        "test_accuracy_interval_95": shipped["accuracy_interval_95"],
        "test_averaged_accuracy": shipped["averaged_accuracy"],
        "test_loss": shipped["loss"],
        "test_calibration_error": shipped["calibration_error"],
        "test_pictures": shipped["pictures"],
        "test_data": test.name,
        "seeds": {
            str(s): {k: f[k] for k in ("accuracy", "averaged_accuracy", "calibration_error")}
            for s, f in found.items()
        },
    }
    if len(found) > 1:
        accuracies = [f["accuracy"] for f in found.values()]
        facts["figures"]["seeds_mean"] = statistics.mean(accuracies)
        facts["figures"]["seeds_standard_deviation"] = statistics.stdev(accuracies)
    *before, last = commands(result, seed, facts["recipe"])
    facts["release"] = {
        "command": result["stamp"]["command"],
        "gpu": result.get("gpu"),
        "stages": result["stages"],
    }
    facts["stages_before"], facts["command"] = before, last
    model.card = replace(model.card, facts=facts)
    card = model.save(WEIGHTS, half=True)
    print(f"{WEIGHTS}.safetensors: {Path(f'{WEIGHTS}.safetensors').stat().st_size:,} bytes")
    print(f"SHA-256 {card.weights_sha256}")


if __name__ == "__main__":
    main()
