"""Check whether each classifier that ships would train from its start, and write it on its card.

The card's network is made anew and checked on training images: MNIST's are at
hand, CIFAR-10's lie where UNMASK_DATA says. The weights' checksum doesn't cover the card's facts.

    python benchmarks/release/flow_cards.py mnist mnist-hardened
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from unmask.data.sources import load_source
from unmask.flow.check import check_flow
from unmask.models.card import ModelCard
from unmask.models.classifier import Classifier
from unmask.train.recipes import prepared, recipe

BATCH, SEED = 64, 0


def flow_facts(card: ModelCard, data: str) -> dict[str, Any]:
    """What the check says of one batch at the start, in plain values."""
    train = load_source(data).train
    network = replace(
        recipe(data, "fast", len(train)), architecture=card.architecture, settings=card.settings
    )
    model = prepared(network, train, seed=SEED)
    pixels = torch.from_numpy(train.pixels[:BATCH]).float() / 255
    batch = (pixels, torch.from_numpy(train.labels[:BATCH]))
    found = check_flow(model.train(), torch.nn.functional.cross_entropy, batch, seed=SEED)
    return {
        "healthy": found.healthy,
        "verdicts": [
            {"severity": v.severity, "kind": v.kind, "message": v.message} for v in found.verdicts
        ],
        "pictures": BATCH,
        "seed": SEED,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="+", help="models that ship")
    weights = Path(str(resources.files("unmask.models") / "weights"))
    for name in parser.parse_args().names:
        classifier = Classifier.load(name)
        # What is trained in a special way is named after its images and that.
        flow = flow_facts(classifier.card, name.partition("-")[0])
        card = replace(classifier.card, facts={**classifier.card.facts, "flow": flow})
        card.write(weights / f"{name}.json")
        Classifier.load(name)
        print(json.dumps({"model": name, **flow}))


if __name__ == "__main__":
    main()
