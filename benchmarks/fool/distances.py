"""How small the changes are that the standard attacks find, and what each costs.

On the shipped MNIST model, the first test pictures that it judges rightly, each towards every other
class: success, mean and median L2, gradients and seconds a pair, by what the judge finds in the
pictures given back. Carlini and Wagner's attack with its full search (9 x 1000 steps) is the
yardstick. One core. A table comes first, then one line of JSON.

    python benchmarks/fool/distances.py --pictures 100
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unmask.data.mnist import load_mnist
from unmask.fool.attacks import carlini_wagner, ddn, fmn
from unmask.fool.goal import Goal, every_target
from unmask.fool.norms import Threat
from unmask.fool.outcome import Adversarials, judge
from unmask.fool.victim import Victim
from unmask.models.classifier import Classifier
from unmask.runtime import environment_stamp

WITHIN, SHARE = 0.05, 1 / 20

Attack = Callable[..., Adversarials]
CONTENDERS: dict[str, tuple[str, Attack]] = {
    "C&W, 9 x 1000": ("l2", carlini_wagner),
    "DDN-300": ("l2", partial(ddn, steps=300)),
    "FMN-300": ("l2", partial(fmn, steps=300)),
    "FMN-300, Linf": ("linf", partial(fmn, steps=300)),
}


def judged_rightly(model: Classifier, count: int) -> tuple[Tensor, Tensor]:
    """The first test pictures that the model judges rightly, and their classes."""
    _, test = load_mnist()
    first = 2 * count
    pixels = torch.from_numpy(test.pixels[:first]).float() / 255
    labels = torch.from_numpy(test.labels[:first])
    right = Victim(model, classes=len(model.class_names)).logits(pixels).argmax(1) == labels
    return pixels[right][:count], labels[right][:count]


def figures(
    attack: Attack, model: Classifier, pixels: Tensor, goal: Goal, threat: Threat
) -> dict[str, float]:
    """What an attack achieves and costs, a pair."""
    victim = Victim(model, classes=len(model.class_names))
    begun = time.perf_counter()
    found = attack(victim, pixels, goal, threat, generator=torch.Generator().manual_seed(0))
    seconds, cost = time.perf_counter() - begun, victim.cost
    outcome = judge(victim, pixels, found, goal, threat)
    sizes = outcome.l2 if threat.norm.name == "l2" else outcome.linf
    return {
        "success": float(outcome.reached.mean()),
        "mean": float(sizes[outcome.reached].mean()),
        "median": float(np.median(sizes[outcome.reached])),
        "gradients": cost.backwards / len(pixels),
        "seconds": seconds / len(pixels),
    }


def yardsticks(pictures: int) -> dict[str, dict[str, float]]:
    """The figures of every contender on the same pairs."""
    model = Classifier.load("mnist")
    pixels, labels = judged_rightly(model, pictures)
    rows, goal = every_target(labels, len(model.class_names))
    return {
        name: figures(attack, model, pixels[rows], goal, Threat.parse(norm))
        for name, (norm, attack) in CONTENDERS.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = yardsticks(arguments.pictures)
    table = Table(title=f"{arguments.pictures} MNIST pictures towards each other class")
    for heading in ("attack", "success", "mean", "median", "gradients a pair", "ms a pair"):
        table.add_column(heading, justify="left" if heading == "attack" else "right")
    for name, its in found.items():
        table.add_row(
            name,
            f"{its['success']:.2%}",
            f"{its['mean']:.4f}",
            f"{its['median']:.4f}",
            f"{its['gradients']:.0f}",
            f"{its['seconds'] * 1000:.0f}",
        )
    Console().print(table)
    full, fast = found["C&W, 9 x 1000"], found["DDN-300"]
    reached = {
        f"ddn_within_{WITHIN:.0%}_of_cw": fast["mean"] <= (1 + WITHIN) * full["mean"],
        "ddn_at_a_twentieth_of_cw": fast["gradients"] <= SHARE * full["gradients"],
    }
    stamp = environment_stamp(benchmark="fool", pictures=arguments.pictures, threads=1)
    print(json.dumps({"attacks": found, "reached": reached, "stamp": stamp}))


if __name__ == "__main__":
    main()
