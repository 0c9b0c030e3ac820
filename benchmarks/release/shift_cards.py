"""Measure each classifier that ships under all corruptions, and write that on its card.

The figures are of test images: MNIST's are at hand, CIFAR-10's lie where UNMASK_DATA says. The
weights' checksum does not cover the card's facts. What was measured is kept in --out, so that the
same command continues where it was stopped.

    python benchmarks/release/shift_cards.py mnist mnist-hardened cifar10 --images 500
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch

import unmask
from unmask.models.classifier import Classifier
from unmask.shift.measurement import measure_shift
from unmask.shift.result import Shift, ShiftPlan

SEVERITIES, SEED = (1, 3, 5), 0


def shift_facts(found: Shift, command: str) -> dict[str, Any]:
    """What a card holds of a measurement, in plain values."""
    return {
        "images": found.clean.images,
        "clean": round(found.clean.accuracy, 4),
        "clean_interval_95": [round(v, 4) for v in found.clean.interval],
        "severities": list(found.plan.severities),
        "accuracy": {
            name: [round(c.accuracy, 4) for c in row] for name, row in sorted(found.cells.items())
        },
        "accuracy_at_severity_3": round(found.figures()["accuracy_at_severity_3"], 4),
        "calibration_error": round(found.clean.ece, 4),
        "calibration_error_at_severity_3": round(
            sum(c.ece for c in found.at_severity(3).values()) / len(found.cells), 4
        ),
        "seed": SEED,
        "version": unmask.__version__,
        "command": command,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="+", help="models that ship")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("runs/shift-cards"))
    parser.add_argument("--threads", type=int, default=1)
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    weights = Path(str(resources.files("unmask.models") / "weights"))
    off = dict.fromkeys(("smallest", "geometry", "pipeline", "runtimes", "fixes"), False)
    plan = ShiftPlan(severities=SEVERITIES, images=settings.images, seed=SEED, **off)
    for name in settings.names:
        folder = settings.out / name
        folder.mkdir(parents=True, exist_ok=True)
        # What is trained in a special way is named after its images and that.
        found = measure_shift(name, name.partition("-")[0], plan, directory=folder, resume=True)
        command = f"python benchmarks/release/shift_cards.py {name} --images {settings.images}"
        classifier = Classifier.load(name)
        facts = {**classifier.card.facts, "shift": shift_facts(found, command)}
        replace(classifier.card, facts=facts).write(weights / f"{name}.json")
        Classifier.load(name)
        print(json.dumps({"model": name, **facts["shift"]}))


if __name__ == "__main__":
    main()
