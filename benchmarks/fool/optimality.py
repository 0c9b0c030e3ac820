"""How near the smallest changes of the default ensemble come to the best that any attack finds.

    python benchmarks/fool/optimality.py mnist linf --images 50
    python benchmarks/fool/optimality.py cifar10 l2 --images 50 --source FOLDER

The optimality of AttackBench (Cina et al., 2025): the area between an attack's curve of robust
accuracy over eps and 1, over that of the smallest change that any of the attacks found, up to the
eps where none stands. The others are adversarial-library's (package adv-lib, which Unmask doesn't
depend on), each with at most 1,000 forwards and as many backwards an image. One thread; a line of
JSON for each attack as it is done, then all of them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.data.sources import load_source
from unmask.fool.attacks import ATTACKS
from unmask.fool.audit.plan import AuditPlan
from unmask.fool.goal import Goal
from unmask.fool.norms import Threat
from unmask.fool.outcome import Adversarials, judge
from unmask.fool.source import load_victim
from unmask.fool.victim import Victim

Sizes = NDArray[np.float64]


def ours(victim: Victim, pixels: Tensor, labels: Tensor, norm: str) -> dict[str, Tensor]:
    """Return what each attack of the ensemble that seeks the smallest change gives back."""
    plan, goal, threat = AuditPlan(norm=norm), Goal(labels), Threat.of(norm)
    return {
        spec.name: spec.function(
            victim,
            pixels,
            goal,
            threat,
            generator=torch.Generator().manual_seed(0),
            **plan.settings(spec),
        ).pixels
        for spec in (ATTACKS[s.name] for s in plan.specs(victim) if s.minimal)
    }


def theirs(model: torch.nn.Module, norm: str) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Return adversarial-library's attacks by name."""
    from adv_lib import attacks
    from adv_lib.attacks.auto_pgd import minimal_apgd

    order = {"linf": float("inf"), "l2": 2}[norm]
    largest = {"linf": 1.0, "l2": 10.0}[norm]
    found: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "APGD by bisection, 10 x 100": lambda x, y: minimal_apgd(
            model, x, y, norm=order, max_eps=largest, binary_search_steps=10, n_iter=100
        ),
        "FMN, 1000": lambda x, y: attacks.fmn(model, x, y, norm=order, steps=1000),
    }
    if norm == "linf":
        found["PDPGD, 1000"] = lambda x, y: attacks.pdpgd(model, x, y, norm=order, num_steps=1000)
    else:
        found["DDN without quantisation, 1000"] = lambda x, y: attacks.ddn(
            model, x, y, steps=1000, levels=None
        )
        found["PDGD, 1000"] = lambda x, y: attacks.pdgd(model, x, y, num_steps=1000)
        found["ALMA, 1000"] = lambda x, y: attacks.alma(model, x, y, num_steps=1000)
    return found


def optimality(sizes: Sizes, best: Sizes) -> float:
    """Return the ratio of areas; sizes and best are of the images that are classified right."""
    end = float(best.max())
    return float((end - np.minimum(sizes, end).mean()) / (end - best.mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("norm", choices=("linf", "l2"))
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--source", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    test = load_source(asked.model.partition("-")[0], source=asked.source).test
    assert test is not None
    victim = load_victim(asked.model)
    assert victim.module is not None
    victim.module.requires_grad_(False)
    first = test[: 2 * asked.images]
    pixels = torch.from_numpy(first.pixels).float() / 255
    labels = torch.from_numpy(first.labels)
    right = (victim.logits(pixels).argmax(1) == labels).nonzero().flatten()[: asked.images]
    pixels, labels = pixels[right], labels[right]
    goal, threat = Goal(labels), Threat.of(asked.norm)

    def sizes_of(changed: Tensor) -> Sizes:
        steps = torch.zeros(len(changed), dtype=torch.int64)
        outcome = judge(victim, pixels, Adversarials(changed, steps), goal, threat)
        size = outcome.l2 if asked.norm == "l2" else outcome.linf
        return np.where(outcome.reached, size, np.inf)

    found: dict[str, Sizes] = {}
    seconds, begun, before = {}, time.perf_counter(), victim.cost
    each = {name: sizes_of(x) for name, x in ours(victim, pixels, labels, asked.norm).items()}
    spent = victim.cost - before
    seconds["the default ensemble"] = time.perf_counter() - begun
    found["the default ensemble"] = np.min(list(each.values()), axis=0)
    for name, attack in theirs(victim.module, asked.norm).items():
        begun = time.perf_counter()
        found[name] = sizes_of(attack(pixels, labels).detach())
        seconds[name] = time.perf_counter() - begun
        print(json.dumps({name: float(np.median(found[name])), "s": seconds[name]}), flush=True)
    best = np.min([*found.values()], axis=0)
    table = {
        name: {
            "optimality": optimality(sizes, best),
            "median": float(np.median(sizes)),
            "reached": float(np.isfinite(sizes).mean()),
            "seconds_an_image": seconds[name] / len(labels) if name in seconds else None,
        }
        for name, sizes in {**found, **{f"of it: {k}": v for k, v in each.items()}}.items()
    }
    print(
        json.dumps(
            {
                "model": asked.model,
                "norm": asked.norm,
                "images": len(labels),
                "backwards_an_image": spent.backwards / len(labels),
                "attacks": table,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
