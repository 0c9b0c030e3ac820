"""Make the mnist-certified model and its card from what train_certified.py wrote.

The certificate is of the half-precision weights that ship: unmask fool certify is run on the model
as it is loaded, on all test images, and its figures go into the card.

    python benchmarks/release/certified_card.py NPZ [--minutes N] [--out DIR]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from unmask.data.cards import CARDS
from unmask.data.mnist import load_mnist
from unmask.fool.certify.result import CertifyPlan
from unmask.fool.certify.run import CertifyProgress, certify_victim
from unmask.fool.source import load_victim
from unmask.models.card import ModelCard
from unmask.models.classifier import Classifier
from unmask.models.cnn import build
from unmask.runtime import environment_stamp


def model_of(archive: Path, train_sha256: str) -> Classifier:
    """Return the classifier of a training's archive, its card without test figures."""
    with np.load(archive, allow_pickle=False) as stored:
        figures = json.loads(str(stored["figures"]))
        state = {k: torch.from_numpy(stored[k]).float() for k in stored if k != "figures"}
    network = build(figures["architecture"], figures["settings"], (1, 28, 28), 10)
    network.load_state_dict(state)
    card = ModelCard(
        architecture=figures["architecture"],
        settings=figures["settings"],
        input_shape=(1, 28, 28),
        mean=(0.0,),
        std=(1.0,),
        class_names=tuple("0123456789"),
        facts={
            "data": {
                "name": "MNIST train",
                "sha256": train_sha256,
                "pictures": 60_000 - figures["held_out"],
                "validation_pictures": figures["held_out"],
                "licence": CARDS["mnist"].licence,
            },
            "recipe": {"name": "certified", **figures["plan"], "epochs": figures["epochs"]},
            "seed": figures["plan"]["seed"],
            "figures": {
                "train_seconds": round(figures["seconds"], 1),
                "validation_accuracy": figures["held_out_clean"],
                "validation_proved_by_intervals": figures["held_out_proved"],
            },
            "licence": "Apache-2.0",
            "command": "python benchmarks/release/train_certified.py --device cuda",
            "made_with": {"torch": figures["torch"], "device": figures["device"]},
        },
    )
    return Classifier(network, card).eval()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("archive", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/certified"))
    asked = parser.parse_args()
    train, test = load_mnist()
    path = asked.out / "mnist-certified.safetensors"
    model = model_of(asked.archive, train.sha256)
    model.save(path, half=True)
    victim = load_victim(str(path))

    def told(p: CertifyProgress) -> None:
        if p.done == p.total or p.done % 500 == 0:
            print(f"{p.doing} {p.done}/{p.total}: {p.proved} {p.attacked} {p.open}", flush=True)

    plan = CertifyPlan(eps=0.3, minutes=asked.minutes, images=len(test))
    found = certify_victim(victim, test, plan, out=asked.out, resume=asked.resume, progress=told)
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
