"""What the default audit leaves standing beside what AutoAttack's standard set leaves: never more.

    python benchmarks/fool/reference.py mnist-hardened --images 1000 --reference
    python benchmarks/fool/reference.py mnist-hardened --rows 940 1740 1880 6460

--reference runs AutoAttack's standard set (the package pyautoattack, which Unmask doesn't depend
on) on the same images, one part after the other. MNIST, Linf 0.3, one thread. Parts are appended to
--out as they are done, and the same command goes on from there; --minutes ends it between parts.
The last line adds up all parts, with the seconds of both.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.data.images import Images
from unmask.data.mnist import load_mnist
from unmask.fool.audit.plan import AuditPlan
from unmask.fool.audit.shard import as_tensors, attack_shard
from unmask.fool.source import load_victim
from unmask.fool.victim import Victim
from unmask.stats import wilson

EPS, PART = 0.3, 50


def ours(
    victim: Victim, images: Images, rows: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Return the rows that stand under the default audit at EPS, and how many each attack broke."""
    shard = attack_shard(victim.fresh(10), images, rows, AuditPlan(eps=(EPS,), seed=seed), 0)
    broken = {f"{i}: {r.name}": r.fooled for i, r in enumerate(shard.records)}
    return rows[shard.worst.size > EPS + 1e-5], broken


def theirs(victim: Victim, images: Images, rows: NDArray[np.int64], seed: int) -> Any:
    """Return the rows that stand under AutoAttack's standard set at EPS."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(victim.module, norm="Linf", eps=EPS, version="standard", seed=seed)
    pixels, labels = as_tensors(images, rows, victim)
    changed, _ = attack.run_standard_evaluation(pixels, labels, batch_size=len(rows))
    return rows[(victim.logits(changed).argmax(1) == labels).numpy()]


def added(parts: list[dict[str, Any]], model: str) -> dict[str, Any]:
    """Return what all parts come to."""
    count = sum(p["images"] for p in parts)
    standing = [row for p in parts for row in p["standing"]]
    told: dict[str, Any] = {
        "model": model,
        "images": count,
        "standing": len(standing),
        "interval_95": wilson(len(standing), count),
        "seconds": sum(p["seconds"] for p in parts),
    }
    compared = [p for p in parts if "autoattack_standing" in p]
    if compared:
        mine = {row for p in compared for row in p["standing"]}
        other = {row for p in compared for row in p["autoattack_standing"]}
        told |= {
            "compared": sum(p["images"] for p in compared),
            "standing_of_compared": len(mine),
            "autoattack_standing": len(other),
            "left_by_us_alone": sorted(mine - other),
            "left_by_autoattack_alone": sorted(other - mine),
            "seconds_of_compared": sum(p["seconds"] for p in compared),
            "autoattack_seconds": sum(p["autoattack_seconds"] for p in compared),
        }
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--images", type=int, default=1000, help="spread over the 10,000")
    parser.add_argument("--rows", type=int, nargs="+", help="these test images instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reference", action="store_true")
    parser.add_argument("--minutes", type=float, default=1e9, help="ends between parts")
    parser.add_argument("--out", type=Path, default=Path("runs/reference.jsonl"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    begun, test = time.perf_counter(), load_mnist()[1]
    rows = np.array(asked.rows or np.arange(asked.images) * len(test) // asked.images)
    victim = load_victim(asked.model)
    assert victim.module is not None
    victim.module.requires_grad_(False)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    lines = asked.out.read_text().splitlines() if asked.out.exists() else []
    parts = [json.loads(line) for line in lines]
    done = {row for p in parts for row in p["rows"]}
    rows = np.array([row for row in rows if row not in done], dtype=np.int64)
    # Spread over all images, so that any number of parts is a fair sample.
    count = max(-(-len(rows) // PART), 1)
    for first in range(count):
        chosen = rows[first::count]
        spent = (time.perf_counter() - begun) / 60
        if not len(chosen) or spent * (first + 1) / max(first, 1) > asked.minutes:
            break
        start = time.perf_counter()
        standing, broken = ours(victim, test, chosen, asked.seed)
        part: dict[str, Any] = {
            "rows": chosen.tolist(),
            "images": len(chosen),
            "standing": standing.tolist(),
            "broken": broken,
            "seconds": time.perf_counter() - start,
        }
        if asked.reference:
            start = time.perf_counter()
            part["autoattack_standing"] = theirs(victim, test, chosen, asked.seed).tolist()
            part["autoattack_seconds"] = time.perf_counter() - start
        parts.append(part)
        with asked.out.open("a") as file:
            file.write(json.dumps(part) + "\n")
        print(json.dumps({k: v for k, v in part.items() if k != "rows"}), flush=True)
    print(json.dumps(added(parts, asked.model)))


if __name__ == "__main__":
    main()
