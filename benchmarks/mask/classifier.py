"""What the document's classifier of faces is worth: every seed held out on pictures of its own.

Trains each recipe, in two and three classes, with as many seeds as asked for, one after another,
and goes on where it was stopped: every epoch is kept, and every seed's figures once it is done.
Seeds hold out different tenths of the pictures, so the table's counts by size add up over them. A
table comes first, then one line of JSON.

    python -m benchmarks.mask.classifier FACES --out runs/mask-classifier [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from unmask.data.detection.dataset import AnnotatedImages, load_faces
from unmask.mask.training.classifier import FACE_RECIPES, train_on_faces
from unmask.runtime import environment_stamp, write_atomically
from unmask.stats import wilson
from unmask.train.fit import FitProgress

AIM = 0.975


def trained(
    annotated: AnnotatedImages, name: str, classes: int, seed: int, out: Path, epochs: int | None
) -> dict[str, Any]:
    """Return the figures of one run, from disk where it is done."""
    folder = out / f"{name}-{classes}-{seed}"
    kept = folder / "figures.json"
    if kept.exists():
        done: dict[str, Any] = json.loads(kept.read_bytes())
        return done
    chosen = FACE_RECIPES[name]
    config = replace(chosen.recipe.config, seed=seed)
    if epochs is not None:
        config = replace(config, epochs=epochs)
    chosen = replace(chosen, recipe=replace(chosen.recipe, config=config))
    said = 0

    def tell(p: FitProgress) -> None:
        nonlocal said
        if p.epoch > said:
            said = p.epoch
            print(f"{folder.name}: epoch {p.epoch} of {p.epochs}, {p.seconds:.0f} s", flush=True)

    result = train_on_faces(
        chosen, annotated, out=folder, classes=classes, resume=True, progress=tell
    )
    history = result.trained.history
    figures = {
        **result.as_dict(),
        "epochs": len(history.epochs),
        "ended": history.ended,
        "train_seconds": history.epochs[-1].train_seconds,
    }
    with write_atomically(kept) as file:
        file.write(json.dumps(figures).encode())
    return figures


def together(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean figures of all seeds, and the counts by size of all their faces."""
    accuracies = [run["accuracy"] for run in runs]
    rows = []
    for own in zip(*(run["by_size"] for run in runs), strict=True):
        faces, right = (np.sum([row[part] for row in own], 0) for part in ("faces", "right"))
        count, good = int(faces.sum()), int(right.sum())
        rows.append(
            {
                "name": own[0]["name"],
                "faces": faces.tolist(),
                "right": right.tolist(),
                "accuracy": good / count if count else None,
                "accuracy_interval_95": wilson(good, count),
                "recall_intervals_95": [
                    wilson(int(r), int(n)) for r, n in zip(right, faces, strict=True)
                ],
            }
        )
    return {
        "seeds": len(runs),
        "accuracy": float(np.mean(accuracies)),
        "accuracies": accuracies,
        "accuracy_sd": float(np.std(accuracies, ddof=1)) if len(runs) > 1 else None,
        "macro_f1": float(np.mean([run["macro_f1"] for run in runs])),
        "epochs": [run["epochs"] for run in runs],
        "ended": [run["ended"] for run in runs],
        "train_seconds": [run["train_seconds"] for run in runs],
        "by_size": rows,
    }


def main() -> None:
    """Train what is missing, then tell what it is all worth."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/mask-classifier"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--classes", type=int, nargs="*", default=[2, 3])
    parser.add_argument("--recipes", nargs="*", default=list(FACE_RECIPES))
    parser.add_argument("--epochs", type=int, help="instead of the recipe's own")
    parser.add_argument("--threads", type=int, help="of PyTorch's")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    annotated = load_faces(arguments.faces)
    told: dict[str, Any] = {}
    for name in arguments.recipes:
        for classes in arguments.classes:
            told[f"{name}-{classes}"] = together(
                [
                    trained(annotated, name, classes, seed, arguments.out, arguments.epochs)
                    for seed in range(arguments.seeds)
                ]
            )
    console = Console()
    for key, figures in told.items():
        aim = f", aim {AIM}" if key.endswith("2") else ""
        table = Table(
            title=f"{key}: accuracy {figures['accuracy']:.4f} (mean of {figures['seeds']} seeds"
            f"{aim}), macro-F1 {figures['macro_f1']:.4f}"
        )
        for heading in ("faces", "all", "accuracy", "95 % interval", "with", "without", "improper"):
            table.add_column(heading)
        for row in figures["by_size"]:
            low, high = row["accuracy_interval_95"]
            parts = [f"{r}/{n}" for r, n in zip(row["right"], row["faces"], strict=True)]
            share = "" if row["accuracy"] is None else f"{row['accuracy']:.3f}"
            count = str(sum(row["faces"]))
            table.add_row(row["name"], count, share, f"{low:.3f} to {high:.3f}", *parts)
        console.print(table)
    print(json.dumps({**told, "stamp": environment_stamp(data=annotated.sha256)}))


if __name__ == "__main__":
    main()
