"""Planted duplicates and flipped labels, and MNIST's published label errors: how many are found.

    python benchmarks/shift/label_errors.py
    python benchmarks/shift/label_errors.py --published mnist_mturk.json

The file is mturk/mnist_mturk.json of github.com/cleanlab/label-errors (Northcutt, Athalye &
Mueller, 2021): what five people each thought of 100 images of MNIST's test set that confident
learning doubted. It isn't part of this project. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from unmask.data.audit import audit_data
from unmask.data.audit_duplicates import near_duplicates
from unmask.data.audit_labels import confident_errors
from unmask.data.images import Images
from unmask.data.sources import load_source
from unmask.models.classifier import Classifier
from unmask.shift.corruptions.digital import jpeg_compression
from unmask.shift.corruptions.registry import Draw
from unmask.shift.target import as_target
from unmask.stats import wilson


def rates(found: set[int], wanted: set[int]) -> dict[str, object]:
    """Return precision and recall, each with its 95 % interval."""
    hit = len(found & wanted)
    return {
        "found": len(found),
        "wanted": len(wanted),
        "hit": hit,
        "precision": [hit / max(1, len(found)), *wilson(hit, max(1, len(found)))],
        "recall": [hit / max(1, len(wanted)), *wilson(hit, max(1, len(wanted)))],
    }


def flipped(images: Images, seed: int, how_many: int) -> dict[str, object]:
    """Return what is found of labels flipped at random, by the cross-validated model."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(images), how_many, replace=False)
    labels = images.labels.copy()
    labels[rows] = (labels[rows] + rng.integers(1, 10, how_many)) % 10
    changed = Images(images.pixels, labels, images.class_names, "flipped")
    errors = audit_data(changed, near=False, seed=seed).label_errors["train"]
    return rates(set(errors.rows.tolist()), set(rows.tolist()))


def copied(images: Images, seed: int, how_many: int) -> dict[str, object]:
    """Return what is found of copies that are darker, noisy, or gone through JPEG."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(images), how_many, replace=False)
    x = torch.tensor(images.pixels[rows]).float() / 255
    third = how_many // 3
    x[:third] = x[:third] * 0.8 + 0.05
    x[third : 2 * third] += torch.from_numpy(
        rng.normal(0, 0.02, x[third : 2 * third].shape)
    ).float()
    x[2 * third :] = jpeg_compression(x[2 * third :], (75,), Draw((), x.device))
    copies = (x.clamp(0, 1) * 255).round().byte().numpy()
    pairs = near_duplicates(np.concatenate([images.pixels, copies]))
    wanted = {(int(r), len(images) + i) for i, r in enumerate(rows)}
    found = {(int(a), int(b)) for a, b in pairs}
    coded = {pair: i for i, pair in enumerate(sorted(found | wanted))}
    return rates({coded[p] for p in found}, {coded[p] for p in wanted})


def published(path: Path) -> dict[str, object]:
    """Return how many of the label errors that people agreed on the shipped classifier doubts."""
    test = load_source("mnist").test
    rows = {r["id"]: r["mturk"] for r in json.loads(path.read_text())}
    # Three of five say that the given label isn't the only right one, or isn't right at all.
    agreed = {i for i, votes in rows.items() if votes["given"] < 3}
    target = as_target(Classifier.load("mnist"))
    logits = target.logits(torch.tensor(test.pixels).float() / 255)
    p = logits.double().softmax(1).numpy()
    doubted = confident_errors(p, test.labels).rows.tolist()
    places = np.arange(len(test))
    given = p[places, test.labels]
    p[places, test.labels] = -1
    doubtful = np.argsort(given - p.max(1), kind="stable").tolist()
    contradicted = int((given < p.max(1)).sum())
    own = audit_data(test, near=False).label_errors["train"].rows.tolist()
    return {
        "judged_by_people": len(rows),
        "errors_agreed_on": sorted(agreed),
        "shipped_classifier": rates(set(doubted), agreed),
        "most_doubtful_by_margin": {
            k: rates(set(doubtful[:k]), agreed)["hit"] for k in (15, contradicted, 100)
        },
        "cross_validated_model": rates(set(own), agreed),
    }


def main() -> None:
    """Print what was planted or published, and what is found of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--published", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    settings = parser.parse_args()
    torch.set_num_threads(1)
    train = load_source("mnist").train
    few = train[np.arange(6000)]
    result: dict[str, object] = {
        "flipped": [flipped(few, seed, 300) for seed in settings.seeds],
        "copied": [copied(few, seed, 300) for seed in settings.seeds],
    }
    if settings.published:
        result["published"] = published(settings.published)
    for name, value in result.items():
        for row in value if isinstance(value, list) else [value]:
            print(name, row)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
