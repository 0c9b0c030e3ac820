"""What the audit leaves standing beside what AutoAttack's standard set leaves: never more.

    python benchmarks/fool/reference.py mnist-hardened --rows 940 1740 1880 6460
    python benchmarks/fool/reference.py mnist-hardened --images 1000 --reference

--reference runs AutoAttack's standard set (the package pyautoattack, which Unmask doesn't depend
on) on the same images. MNIST, Linf 0.3; one line for each attack, then the images on which the two
differ.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
from torch import Tensor

from unmask.data.mnist import load_mnist
from unmask.fool.audit.plan import AuditPlan
from unmask.fool.goal import Goal
from unmask.fool.outcome import judge
from unmask.fool.source import load_victim
from unmask.fool.victim import Victim
from unmask.stats import wilson

EPS = 0.3


def ours(victim: Victim, images: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Return bool[n]: what stands after the attacks of the default plan at EPS."""
    plan = AuditPlan(eps=(EPS,), seed=seed)
    left = victim.logits(images).argmax(1) == labels
    for number, (spec, threat) in enumerate(plan.runs(victim)):
        if threat.eps != EPS:
            continue
        begun, rows = time.perf_counter(), left.nonzero().flatten()
        goal = Goal(labels[rows])
        found = spec.function(
            victim,
            images[rows],
            goal,
            threat,
            generator=torch.Generator().manual_seed(100 * seed + number),
            **plan.settings(spec),
        )
        left[rows[torch.from_numpy(judge(victim, images[rows], found, goal, threat).reached)]] = 0
        spent = time.perf_counter() - begun
        print(f"{spec.name}: {int(left.sum())} of {len(left)} stand, {spent:.0f} s", flush=True)
    return left


def theirs(victim: Victim, images: Tensor, labels: Tensor) -> Tensor:
    """Return bool[n]: what stands after AutoAttack's standard set."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(victim.function, norm="Linf", eps=EPS, version="standard", device="cpu")
    changed = attack.run_standard_evaluation(images, labels, bs=500)
    changed = changed[0] if isinstance(changed, tuple) else changed
    return victim.logits(changed).argmax(1) == labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--images", type=int, default=1000, help="spread over the 10,000")
    parser.add_argument("--rows", type=int, nargs="+", help="these test images instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reference", action="store_true")
    asked = parser.parse_args()
    test = load_mnist()[1]
    rows = np.array(asked.rows or np.arange(asked.images) * len(test) // asked.images)
    images = torch.from_numpy(test.pixels[rows]).float() / 255
    labels = torch.from_numpy(test.labels[rows])
    victim = load_victim(asked.model)
    mine = ours(victim, images, labels, asked.seed)
    told = {
        "model": asked.model,
        "images": len(rows),
        "standing": int(mine.sum()),
        "interval_95": wilson(int(mine.sum()), len(rows)),
        "rows_standing": rows[mine.numpy()].tolist() if asked.rows else None,
    }
    if asked.reference:
        other = theirs(victim, images, labels)
        told["autoattack_standing"] = int(other.sum())
        told["left_by_us_alone"] = rows[(mine & ~other).numpy()].tolist()
        told["left_by_autoattack_alone"] = rows[(other & ~mine).numpy()].tolist()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
