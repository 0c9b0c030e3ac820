"""Brackets of robust accuracy: what is proved and what is attacked, of the MNIST models that ship.

Each model at the eps that it was made for, and at a smaller one. A table comes first, then one line
of JSON. A model that doesn't ship is left out and named.

    python benchmarks/fool/certify.py [--images N] [--minutes N] [--models NAME ...]
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from unmask.data.mnist import load_mnist
from unmask.fool.certify.result import CertifyPlan
from unmask.fool.certify.run import certify_victim
from unmask.fool.source import load_victim
from unmask.models.classifier import shipped
from unmask.report.certify import fraction
from unmask.runtime import environment_stamp

SIZES = {
    "mnist": (0.01, 0.05),
    "mnist-hardened": (0.05, 0.1, 0.3),
    "mnist-certified": (0.1, 0.3),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=5.0, help="for each model and eps")
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    asked = parser.parse_args()
    console = Console(width=120)
    test = load_mnist()[1]
    found: dict[str, Any] = {"brackets": []}
    table = Table("model", "Linf", "clean", "proved (95 % interval)", "attacked", "open", "s")
    for name in asked.models:
        if name not in shipped():
            console.print(f"{name} doesn't ship")
            continue
        victim = load_victim(name)
        for eps in SIZES[name]:
            plan = CertifyPlan(eps=eps, minutes=asked.minutes, images=asked.images)
            result = certify_victim(victim, test, plan)
            told = result.as_dict()
            told.pop("each")
            found["brackets"].append(told)
            figures = result.figures()
            table.add_row(
                name,
                f"{eps:g}",
                f"{figures['clean']:.4f}",
                fraction(result, result.count("proved")),
                f"{figures['attacked']:.1%}",
                f"{figures['open']:.1%}",
                f"{result.seconds:.0f}",
            )
    console.print(table)
    console.print(f"{asked.images:,} images, {torch.get_num_threads()} threads")
    found["stamp"] = environment_stamp(threads=torch.get_num_threads())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
