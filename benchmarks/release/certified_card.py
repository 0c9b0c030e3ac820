"""Prove all test images of a classifier that unmask fool harden --certified made, into its card.

    unmask fool harden mnist --certified --threshold 0.5 --epochs 24 --margin 1.0 --half
    python benchmarks/release/certified_card.py runs/harden-mnist/model.safetensors

The certificate is of the half-precision weights as they are loaded. OUT then holds
mnist-certified.safetensors and its card, to be copied to where the models that ship are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from unmask.data.mnist import load_mnist
from unmask.fool.certify.result import CertifyPlan
from unmask.fool.certify.run import CertifyProgress, certify_victim
from unmask.fool.source import load_victim
from unmask.models.classifier import Classifier
from unmask.runtime import environment_stamp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/certified"))
    asked = parser.parse_args()
    _, test = load_mnist()
    model = Classifier.load(asked.model)
    asked.out.mkdir(parents=True, exist_ok=True)
    path = asked.out / "mnist-certified.safetensors"
    model.save(path, half=True)

    def told(p: CertifyProgress) -> None:
        if p.done == p.total or p.done % 500 == 0:
            print(f"{p.doing} {p.done}/{p.total}: {p.proved} {p.attacked} {p.open}", flush=True)

    plan = CertifyPlan(eps=0.3, minutes=asked.minutes, images=len(test))
    found = certify_victim(
        load_victim(str(path)), test, plan, out=asked.out, resume=asked.resume, progress=told
    )
    print(found)
    for verdict in found.verdicts():
        print(verdict)
    counts = found.as_dict()
    model.card.facts["figures"] |= {
        "test_accuracy": found.figures()["clean"],
        "test_pictures": len(test),
    }
    model.card.facts["certificate"] = {
        "norm": "linf",
        "eps": plan.eps,
        "pictures": len(test),
        **{k: counts[k] for k in ("counts", "intervals", "figures", "stages")},
        "seconds": round(found.seconds, 1),
        "command": "unmask fool certify mnist-certified mnist --eps 0.3 --images 10000",
        "made_with": environment_stamp(threads=torch.get_num_threads()),
    }
    model.save(path, half=True)


if __name__ == "__main__":
    main()
