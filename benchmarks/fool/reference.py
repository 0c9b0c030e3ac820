"""What the default audit leaves standing beside what AutoAttack's standard set leaves: never more.

    python benchmarks/fool/reference.py mnist-hardened --images 1000 --reference
    python benchmarks/fool/reference.py mnist-hardened --rows 940 1740 1880 6460
    python benchmarks/fool/reference.py mnist-hardened --images 1000 --only autoattack

--reference runs AutoAttack's standard set (the package pyautoattack, which Unmask doesn't depend
on) on the same images. MNIST, Linf 0.3, one thread, in parts of 250 images that both attack
together. Parts are appended to --out as they are done, and the same command goes on from there;
--minutes ends it between parts. The last line adds up all parts, with the seconds of both.
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

from unmask.data.images import Images
from unmask.data.mnist import load_mnist
from unmask.fool.audit.plan import AuditPlan
from unmask.fool.audit.shard import as_tensors, attack_shard
from unmask.fool.source import load_victim
from unmask.fool.victim import Victim
from unmask.runtime import environment_stamp
from unmask.stats import wilson

EPS, PART = 0.3, 250
Rows = NDArray[np.int64]
Standing = tuple[Rows, dict[str, Any]]


def ours(victim: Victim, images: Images, rows: Rows, seed: int) -> Standing:
    """Return the rows that stand under the default audit at EPS, and what each attack broke."""
    victim = victim.fresh(10)
    victim.look(as_tensors(images, rows, victim)[0])
    shard = attack_shard(victim, images, rows, AuditPlan(eps=(EPS,), seed=seed), 0)
    told = {
        "attacks": [
            {
                "name": r.name,
                "tried": r.tried,
                "broken": r.fooled,
                "forwards": r.forwards,
                "backwards": r.backwards,
            }
            for r in shard.records
        ]
    }
    return rows[shard.worst.size > EPS + 1e-5], told


def theirs(victim: Victim, images: Images, rows: Rows, seed: int) -> Standing:
    """Return the rows that stand under AutoAttack's standard set at EPS."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(victim.module, norm="Linf", eps=EPS, version="standard", seed=seed)
    pixels, labels = as_tensors(images, rows, victim)
    changed, _ = attack.run_standard_evaluation(pixels, labels, batch_size=len(rows))
    return rows[(victim.logits(changed).argmax(1) == labels).numpy()], {}


CONTENDERS: dict[str, Callable[[Victim, Images, Rows, int], Standing]] = {
    "unmask": ours,
    "autoattack": theirs,
}


def added(parts: list[dict[str, Any]], model: str) -> dict[str, Any]:
    """Return the sum of all parts; what both have attacked is compared image by image."""
    told: dict[str, Any] = {"model": model}
    seen: dict[str, set[int]] = {}
    standing: dict[str, set[int]] = {}
    for who in CONTENDERS:
        mine = [p for p in parts if p["who"] == who]
        if not mine:
            continue
        seen[who] = {row for p in mine for row in p["rows"]}
        standing[who] = {row for p in mine for row in p["standing"]}
        told[who] = {
            "images": len(seen[who]),
            "standing": len(standing[who]),
            "interval_95": wilson(len(standing[who]), len(seen[who])),
            "seconds": sum(p["seconds"] for p in mine),
        }
    if len(seen) == len(CONTENDERS):
        both = set.intersection(*seen.values())
        left, other = (standing[who] & both for who in CONTENDERS)
        told["compared"] = {
            "images": len(both),
            "unmask_standing": len(left),
            "autoattack_standing": len(other),
            "left_by_unmask_alone": sorted(left - other),
            "left_by_autoattack_alone": sorted(other - left),
        }
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--images", type=int, default=1000, help="spread over the 10,000")
    parser.add_argument("--rows", type=int, nargs="+", help="these test images instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reference", action="store_true", help="AutoAttack beside ours")
    parser.add_argument("--only", choices=tuple(CONTENDERS), help="one of the two alone")
    parser.add_argument("--part", type=int, default=PART, help="images attacked together")
    parser.add_argument("--minutes", type=float, default=1e9, help="ends between parts")
    parser.add_argument("--out", type=Path, default=Path("runs/reference.jsonl"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    begun, test = time.perf_counter(), load_mnist()[1]
    wanted = np.array(asked.rows or np.arange(asked.images) * len(test) // asked.images)
    who = [asked.only] if asked.only else list(CONTENDERS)[: 1 + asked.reference]
    victim = load_victim(asked.model)
    assert victim.module is not None
    victim.module.requires_grad_(False)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    lines = asked.out.read_text().splitlines() if asked.out.exists() else []
    parts = [json.loads(line) for line in lines]
    # Spread over all images, so that any number of parts is a fair sample.
    count = max(-(-len(wanted) // asked.part), 1)
    todo = [(name, wanted[first::count]) for first in range(count) for name in who]
    done = {(p["who"], row) for p in parts for row in p["rows"]}
    todo = [(name, rows) for name, rows in todo if (name, int(rows[0])) not in done]
    for place, (name, rows) in enumerate(todo):
        spent = (time.perf_counter() - begun) / 60
        if spent * (place + 1) / max(place, 1) > asked.minutes:
            break
        start = time.process_time()
        standing, told = CONTENDERS[name](victim, test, rows, asked.seed)
        part: dict[str, Any] = {
            "who": name,
            "rows": rows.tolist(),
            "standing": standing.tolist(),
            # Of the processor, so that other work beside it doesn't count.
            "seconds": time.process_time() - start,
            **told,
        }
        parts.append(part)
        with asked.out.open("a") as file:
            file.write(json.dumps(part) + "\n")
        brief = {k: v for k, v in part.items() if k not in ("rows", "standing")}
        print(json.dumps({**brief, "images": len(rows), "standing": len(standing)}), flush=True)
    print(json.dumps({**added(parts, asked.model), "stamp": environment_stamp(threads=1)}))


if __name__ == "__main__":
    main()
