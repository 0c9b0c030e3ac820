"""Labels that are earned: every model of the fault benchmark is trained before it is labelled.

A pair is kept when the healthy model reaches HEALTHY accuracy on unseen data after STEPS steps
and its twin ends at least LOSS below it; otherwise it is drawn again. Every kind of fault is drawn
once a round. Rules may be set on the first rounds, and whatever has been looked at while they were
set belongs there; the rounds after them are measured once.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from fault_data import batches, inputs, load
from fault_models import FAULTS, STEPS, Recipe, build, draw, optimizer_of
from torch import nn

from unmask.flow.repair import Mended

DEVELOPMENT_ROUNDS, MEASURED_ROUNDS = 12, 12
PAIRS = (DEVELOPMENT_ROUNDS + MEASURED_ROUNDS) * len(FAULTS)
HEALTHY, LOSS, ATTEMPTS = 0.80, 0.10, 12
LABELS = Path(__file__).with_name("fault_labels.json")
EPOCHS = 10


@dataclass(frozen=True)
class Case:
    """A labelled model: its recipe, the accuracies it reached, and the half it belongs to."""

    recipe: Recipe
    healthy: bool
    accuracy: float
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]
    development: bool


def train(recipe: Recipe, mended: Mended | None = None) -> tuple[list[float], list[float]]:
    """Train for STEPS steps; return validation accuracy and mean training loss of EPOCHS parts."""
    mended = mended or Mended(())
    split = load(recipe.data)
    model = mended.model(build(recipe, split.shape, split.classes), recipe.seed)
    optimizer = mended.optimizer(optimizer_of(recipe), model)
    torch.manual_seed(recipe.seed)
    accuracies, losses, running = [], [], []
    for step, (x, y) in enumerate(batches(recipe, split, STEPS), 1):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        mended.clip(model)
        optimizer.step()
        running.append(loss.item())
        if step % (STEPS // EPOCHS) == 0:
            model.eval()
            with torch.no_grad():
                said = model(inputs(recipe, split.validation_x)).argmax(1)
            model.train()
            accuracies.append(float((said == split.validation_y).float().mean()))
            losses.append(sum(running) / len(running))
            running = []
    return accuracies, losses


def label(path: Path = LABELS) -> None:
    """Draw, train and label the pairs that follow those in the file, writing after every one."""
    saved = json.loads(path.read_text()) if path.exists() else {"kept": [], "dropped": {}}
    kept, dropped = saved["kept"], Counter(saved["dropped"])
    start = time.perf_counter()
    for pair in range(1 + max((row["pair"] for row in kept), default=-1), PAIRS):
        fault = FAULTS[pair % len(FAULTS)]
        for attempt in range(ATTEMPTS):
            healthy, faulty = draw(pair, attempt)
            good = train(healthy)
            if good[0][-1] < HEALTHY:
                dropped[f"{fault}: the healthy one does not train"] += 1
                continue
            bad = train(faulty)
            if not good[0][-1] - bad[0][-1] >= LOSS:
                dropped[f"{fault}: the fault does no harm"] += 1
                continue
            kept.append({"pair": pair, "attempt": attempt, "healthy": good, "faulty": bad})
            print(
                f"{time.perf_counter() - start:7.1f} s  pair {pair:3d}  {fault:32s} "
                f"attempt {attempt}  {good[0][-1]:.3f} {bad[0][-1]:.3f}",
                file=sys.stderr,
                flush=True,
            )
            break
        path.write_text(json.dumps({"kept": kept, "dropped": dropped}) + "\n")


def read(path: Path = LABELS) -> tuple[list[Case], dict[str, int]]:
    """Return the labelled cases and how many draws were dropped, by reason."""
    saved = json.loads(path.read_text())
    cases = []
    for row in saved["kept"]:
        for recipe, key in zip(
            draw(row["pair"], row["attempt"]), ("healthy", "faulty"), strict=True
        ):
            accuracies, losses = row[key]
            cases.append(
                Case(
                    recipe,
                    key == "healthy",
                    accuracies[-1],
                    tuple(accuracies),
                    tuple(losses),
                    development=row["pair"] < DEVELOPMENT_ROUNDS * len(FAULTS),
                )
            )
    return cases, saved["dropped"]


if __name__ == "__main__":
    label()
