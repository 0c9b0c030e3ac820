"""Give what train_hardened.py wrote its card, and put both where the models that ship are.

    python benchmarks/release/hardened_card.py runs/hardened cifar10 \\
        --out src/unmask/models/weights/cifar10-hardened

Figures are those that were measured where it was trained; nothing is measured anew.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from unmask.data.cifar10 import CLASSES
from unmask.models.checkpoint import TensorFile
from unmask.models.classifier import Classifier
from unmask.stats import wilson

SHAPES = {"cifar10": (3, 32, 32), "mnist": (1, 28, 28)}
MEANS = {"cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)), "mnist": ((0.0,), (1.0,))}
LICENCES = {"cifar10": "none stated; for research", "mnist": "CC BY-SA 3.0"}
TRAINED_ON = {"cifar10": 49_000, "mnist": 58_000}


def share(count: int, of: int) -> dict[str, Any]:
    """Return a fraction with its denominator and its 95 % interval."""
    return {"count": count, "of": of, "value": count / of, "interval_95": list(wilson(count, of))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("task", choices=tuple(SHAPES))
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    told = json.loads((asked.folder / f"{asked.task}.json").read_text())
    recipe = told["kept"]
    mean, std = MEANS[asked.task]
    model = Classifier.create(
        recipe["architecture"],
        recipe["settings"],
        class_names=CLASSES if asked.task == "cifar10" else tuple("0123456789"),
        input_shape=SHAPES[asked.task],
        mean=mean,
        std=std,
        seed=0,
    )
    TensorFile(asked.folder / f"{asked.task}.safetensors").load_into(model.network)
    (kept,) = [t for t in told["tried"] if t["recipe"]["name"] == recipe["name"]]
    guard = kept["guard"]
    figures: dict[str, Any] = {
        "train_seconds": round(kept["seconds"], 1),
        "epochs": kept["epochs"],
        "test_accuracy": told["clean"],
        "test_accuracy_interval_95": list(wilson(round(told["clean"] * 10_000), 10_000)),
        "test_pictures": 10_000,
        "held_out_robust_accuracy": share(guard[-1]["standing"], recipe["held_out"]),
        "held_out_attacks": [{k: v for k, v in a.items() if k != "seconds"} for a in guard],
    }
    if "robust" in told:
        figures["test_robust_accuracy"] = share(*told["robust"])
        figures["test_attacks"] = [
            {k: v for k, v in a.items() if k != "seconds"}
            for a in told["attacks"]
            if a["standing"] is not None
        ]
    model.card.facts.update(
        data={
            "name": f"{asked.task.upper().replace('CIFAR10', 'CIFAR-10')} train",
            "pictures": TRAINED_ON[asked.task],
            "licence": LICENCES[asked.task],
        },
        recipe=recipe,
        seed=told["seed"],
        adversary={
            "norm": "linf",
            "eps": recipe["eps"],
            "margin": recipe["margin"],
            "steps": recipe["steps"],
            "guard_pictures": recipe["held_out"],
        },
        figures=figures,
        licence="Apache-2.0",
        command=f"python benchmarks/release/train_hardened.py {asked.task} --device cuda",
        made_with={"libraries": {"torch": told["torch"]}, "device": told["device"]},
    )
    card = model.save(asked.out, half=True)
    print(json.dumps(card.facts["figures"], indent=1))


if __name__ == "__main__":
    main()
