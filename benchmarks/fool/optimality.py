"""How near the smallest changes of the default ensemble come to the best that any attack finds.

    python benchmarks/fool/optimality.py mnist linf l2
    python benchmarks/fool/optimality.py cifar10 linf l2 --images 20 --propagations 1000

The optimality of AttackBench (Cina et al., 2025): the area between an attack's curve of robust
accuracy over eps and 1, over that of the smallest change that any of the attacks found, up to the
eps where none stands. The others are adversarial-library's (package adv-lib, which Unmask doesn't
depend on), each with at most --propagations forwards and backwards an image, 2,000 as AttackBench
has it. One thread. What each attack found is appended to --out as it is done, and the same command
goes on from there; a table comes first, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unmask.data.sources import load_source
from unmask.fool.attacks import ATTACKS
from unmask.fool.audit.plan import AuditPlan
from unmask.fool.goal import Goal
from unmask.fool.norms import Threat
from unmask.fool.outcome import Adversarials, judge
from unmask.fool.source import load_victim
from unmask.fool.victim import Victim
from unmask.runtime import environment_stamp

Sizes = NDArray[np.float64]
Attack = Callable[[Tensor, Tensor], Tensor]
OURS, ALL_OURS = "Unmask: ", "Unmask: the default ensemble"


def ours(victim: Victim, norm: str, more: list[str]) -> dict[str, Attack]:
    """Return the ensemble's attacks that seek the smallest change, and more of them, by name.

    They are to be run in this order: each may be told how small the changes before it were.
    """
    plan, threat = AuditPlan(norm=norm), Threat.of(norm)
    known: list[Tensor] = []

    def attack(name: str) -> Attack:
        spec = ATTACKS[name]

        def run(pixels: Tensor, labels: Tensor) -> Tensor:
            generator = torch.Generator().manual_seed(0)
            settings: dict[str, Any] = dict(plan.settings(spec))
            if "below" in spec.hints and known:
                settings["below"] = torch.stack(known).amin(0)
            goal = Goal(labels)
            found: Tensor = spec.function(
                victim, pixels, goal, threat, generator=generator, **settings
            ).pixels
            size = threat.norm.size(found - pixels)
            reached = goal.reached(victim.logits(found))
            known.append(torch.where(reached, size, torch.inf))
            return found

        return run

    names = [s.name for s in plan.specs(victim) if s.minimal]
    return {OURS + name: attack(name) for name in [*names, *more]}


def theirs(model: torch.nn.Module, norm: str, steps: int) -> dict[str, Attack]:
    """Return adversarial-library's attacks by name, each of so many steps."""
    from adv_lib import attacks
    from adv_lib.attacks.auto_pgd import minimal_apgd

    order = {"linf": float("inf"), "l2": 2}[norm]
    largest = {"linf": 1.0, "l2": 10.0}[norm]
    found: dict[str, Attack] = {
        f"APGD by bisection, 10 x {steps // 10}": lambda x, y: minimal_apgd(
            model, x, y, norm=order, max_eps=largest, binary_search_steps=10, n_iter=steps // 10
        ),
        f"FMN, {steps}": lambda x, y: attacks.fmn(model, x, y, norm=order, steps=steps),
    }
    if norm == "linf":
        found[f"PDPGD, {steps}"] = lambda x, y: attacks.pdpgd(
            model, x, y, norm=order, num_steps=steps
        )
    else:
        found[f"DDN without quantisation, {steps}"] = lambda x, y: attacks.ddn(
            model, x, y, steps=steps, levels=None
        )
        found[f"PDGD, {steps}"] = lambda x, y: attacks.pdgd(model, x, y, num_steps=steps)
    return found


def optimality(sizes: Sizes, best: Sizes) -> float:
    """Return the ratio of areas; sizes and best are of the images that are classified right."""
    end = float(best.max())
    return float((end - np.minimum(sizes, end).mean()) / (end - best.mean()))


def right_images(victim: Victim, data: str, source: Path | None, count: int) -> tuple[Tensor, ...]:
    """Return the first count test images that are classified right, and their labels."""
    test = load_source(data, source=source).test
    assert test is not None
    first = test[: 2 * count]
    pixels = torch.from_numpy(first.pixels).float() / 255
    labels = torch.from_numpy(first.labels)
    right = (victim.logits(pixels).argmax(1) == labels).nonzero().flatten()[:count]
    return pixels[right], labels[right]


def measured(
    victim: Victim, attack: Attack, pixels: Tensor, labels: Tensor, norm: str
) -> dict[str, Any]:
    """Return the smallest change of each image (None for none) and what the attack cost."""
    before, begun = victim.cost, time.process_time()
    changed = attack(pixels, labels).detach()
    seconds, spent = time.process_time() - begun, victim.cost - before
    goal, threat = Goal(labels), Threat.of(norm)
    steps = torch.zeros(len(changed), dtype=torch.int64)
    outcome = judge(victim, pixels, Adversarials(changed, steps), goal, threat)
    size = outcome.l2 if norm == "l2" else outcome.linf
    return {
        "sizes": [float(s) if r else None for s, r in zip(size, outcome.reached, strict=True)],
        "seconds": seconds,
        "propagations": (spent.forwards + spent.backwards) / len(labels),
    }


def table_of(parts: dict[str, dict[str, Any]], more: list[str]) -> dict[str, dict[str, Any]]:
    """Return optimality, median and cost of each attack; parts by name, as measured gives them."""
    sizes = {
        name: np.array([np.inf if s is None else s for s in p["sizes"]])
        for name, p in parts.items()
    }
    mine = [n for n in sizes if n.startswith(OURS) and n.removeprefix(OURS) not in more]
    sizes[ALL_OURS] = np.min([sizes[n] for n in mine], axis=0)
    parts = {**parts, ALL_OURS: {}}
    for cost in ("seconds", "propagations"):
        parts[ALL_OURS][cost] = sum(parts[n][cost] for n in mine)
    best = np.min([*sizes.values()], axis=0)
    return {
        name: {
            "optimality": optimality(found, best),
            "median": float(np.median(found)),
            "reached": float(np.isfinite(found).mean()),
            "propagations": parts[name]["propagations"],
            "ms_an_image": 1000 * parts[name]["seconds"] / len(best),
        }
        for name, found in sorted(sizes.items(), key=lambda item: -optimality(item[1], best))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("norms", nargs="+", choices=("linf", "l2"))
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--propagations", type=int, default=2000)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--more", nargs="*", default=[], help="others of our attacks, beside")
    parser.add_argument("--out", type=Path, default=Path("runs/optimality.jsonl"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    victim = load_victim(asked.model)
    module = victim.module
    assert module is not None
    module.requires_grad_(False)
    # The others' passes are counted as ours are: a backward for each forward with gradients.
    counted = {"images": 0, "gradients": 0}

    def count(_: torch.nn.Module, given: tuple[Tensor, ...]) -> None:
        counted["images"] += len(given[0])
        counted["gradients"] += len(given[0]) * given[0].requires_grad

    data = asked.model.partition("-")[0]
    pixels, labels = right_images(victim, data, asked.source, asked.images)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    lines = asked.out.read_text().splitlines() if asked.out.exists() else []
    done = {json.dumps(p["key"]): p for p in map(json.loads, lines)}
    console, told = Console(width=110), {}
    for norm in asked.norms:
        attacks = {
            **ours(victim, norm, asked.more),
            **theirs(module, norm, asked.propagations // 2),
        }
        parts = {}
        for name, attack in attacks.items():
            key = [asked.model, norm, len(labels), name]
            if json.dumps(key) not in done:
                counted.update(images=0, gradients=0)
                hook = module.register_forward_pre_hook(count)
                part = measured(victim, attack, pixels, labels, norm)
                hook.remove()
                # Less the judge's two looks, and that of ours at what it found.
                looks = 3 if name.startswith(OURS) else 2
                passes = counted["images"] - looks * len(labels) + counted["gradients"]
                done[json.dumps(key)] = part = {**part, "key": key}
                part["propagations"] = passes / len(labels)
                with asked.out.open("a") as file:
                    file.write(json.dumps(part) + "\n")
            parts[name] = done[json.dumps(key)]
        told[norm] = table_of(parts, asked.more)
        table = Table(
            f"{asked.model}, {norm}, {len(labels)} images",
            *("optimality", "median", "reached", "propagations", "ms an image"),
        )
        for name, row in told[norm].items():
            table.add_row(
                name,
                f"{row['optimality']:.3f}",
                f"{row['median']:.4f}",
                f"{row['reached']:.0%}",
                f"{row['propagations']:.0f}",
                f"{row['ms_an_image']:.0f}",
            )
        console.print(table)
    stamp = environment_stamp(threads=1)
    print(json.dumps({"model": asked.model, "images": len(labels), "norms": told, "stamp": stamp}))


if __name__ == "__main__":
    main()
