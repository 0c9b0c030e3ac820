"""The audit: broken models and their warnings, robust accuracy, and what an audit costs.

Six models broken on purpose, each of which is due its own warning, and whole ones, which are due
none; then the untargeted ensemble audit of the MNIST model and of the hardened one. A table comes
first, then one line of JSON.

    python benchmarks/fool/audits.py [--images N] [--queries N] [--model FILE DATA]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from unmask.data.mnist import load_mnist
from unmask.data.sources import load_source
from unmask.fool.audit.plan import AuditPlan
from unmask.fool.audit.result import Audit
from unmask.fool.audit.run import run_audit
from unmask.fool.source import load_victim
from unmask.fool.victim import Victim
from unmask.models.classifier import Classifier
from unmask.runtime import environment_stamp

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "fool"))

from broken import BROKEN

COSTS = ("forwards", "backwards")
SMALL = AuditPlan(images=60, pairs=0, steps=30, queries=100)


def warnings(subject: Victim, data: str) -> list[str]:
    """Return what a small audit of the model warns of."""
    images = load_source(data, shape=subject.input_shape).test
    assert images is not None
    grey = images.pixels.shape[1] == 1
    plan = SMALL if grey else replace(SMALL, eps=(8 / 255,))
    found = run_audit(subject, images, plan)
    return [f.kind for f in found.verdicts if f.severity != "note"]


def measured(name: str, pictures: int, queries: int) -> tuple[Audit, float]:
    """Return the audit of a shipped model at Linf 0.3, and its seconds."""
    plan = AuditPlan(images=pictures, pairs=0, queries=queries)
    began = time.perf_counter()
    found = run_audit(load_victim(name), load_mnist()[1], plan)
    return found, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--model", nargs=2, action="append", default=[], metavar=("FILE", "DATA"))
    asked = parser.parse_args()
    console = Console(width=110)
    good = Classifier.load("mnist")
    found: dict[str, Any] = {"broken": {}, "whole": {}, "audits": {}}
    table = Table("model", "warnings", "as due")
    for due, broken in BROKEN.items():
        kinds = warnings(Victim.of(broken(good), due), "mnist")
        found["broken"][due] = kinds
        table.add_row(f"broken: {due}", ", ".join(kinds), "yes" if due in kinds else "NO")
    whole = [("mnist", "mnist"), ("mnist-hardened", "mnist"), *map(tuple, asked.model)]
    for source, data in whole:
        kinds = warnings(load_victim(source), data)
        found["whole"][source] = kinds
        table.add_row(source, ", ".join(kinds) or "none", "NO" if kinds else "yes")
    console.print(table)
    table = Table("model", "clean", "right at Linf 0.3", "median", "forwards", "backwards", "s")
    for name in ("mnist", "mnist-hardened"):
        result, seconds = measured(name, asked.images, asked.queries)
        forwards, backwards = (sum(getattr(r, k) for r in result.records) for k in COSTS)
        robust = result.robust(0.3)
        found["audits"][name] = {**result.as_dict(), "seconds": seconds}
        low, high = robust.interval
        table.add_row(
            name,
            f"{result.clean.value:.4f}",
            f"{robust.value:.4f} ({low:.4f} to {high:.4f})",
            f"{result.smallest['median']:.3f}" if result.smallest["median"] else "none found",
            f"{forwards:,}",
            f"{backwards:,}",
            f"{seconds:.0f}",
        )
    console.print(table)
    console.print(f"{asked.images:,} pictures, {torch.get_num_threads()} threads")
    found["stamp"] = environment_stamp(threads=torch.get_num_threads())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
