"""Label-only attacks beside ART's HopSkipJump: images a second at equal queries, and the distance.

    python benchmarks/fool/label_only.py --images 100 --art-images 10

The shipped MNIST classifier gives its predicted class and nothing else. ART (package
adversarial-robustness-toolbox, which Unmask doesn't depend on) attacks a few of the images; ours
attacks all of them together, with as many queries an image as ART spent, and again with the least
of a few budgets that comes as near as ART's median. RayS, for Linf, is beside it. Seconds are of
the processor, one thread; distances are medians over the images that both had.
A table comes first, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from unmask import attacks
from unmask.data.mnist import load_mnist
from unmask.models.classifier import Classifier
from unmask.runtime import environment_stamp

# Of the queries that ART spent.
BUDGETS = (0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.33, 0.5, 0.75)


class Counted(nn.Module):
    """The predicted class as a one-hot vector, and how many images were asked about."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.queries = model, 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.queries += len(pixels)
        with torch.no_grad():
            # ART asks in double precision.
            classes = self.model(pixels.float()).argmax(1)
            return nn.functional.one_hot(classes, 10).float()


def art(model: Counted, pixels: Tensor, iterations: int) -> Tensor:
    """Return what ART's HopSkipJump makes of the images, in L2."""
    from art.attacks.evasion import HopSkipJump
    from art.estimators.classification import PyTorchClassifier

    wrapped = PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(pixels.shape[1:]),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    attack = HopSkipJump(wrapped, norm=2, max_iter=iterations, batch_size=256, verbose=False)
    return torch.from_numpy(attack.generate(pixels.numpy())).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--art-images", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=10, help="of ART's attack")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    classifier = Classifier.load("mnist").eval()
    model, test = Counted(classifier), load_mnist()[1][: 2 * asked.images]
    pixels = torch.from_numpy(test.pixels).float() / 255
    labels = torch.from_numpy(test.labels)
    with torch.no_grad():
        right = (classifier(pixels).argmax(1) == labels).nonzero().flatten()[: asked.images]
    pixels, labels = pixels[right], labels[right]
    few = min(asked.art_images, len(pixels))

    def answer(batch: Tensor) -> Tensor:
        return model(batch).argmax(1)

    def row(name: str, count: int, queries: int) -> dict[str, Any]:
        x, y = pixels[:count], labels[:count]
        model.queries, begun = 0, time.process_time()
        if name == "art":
            changed = art(model, x, asked.iterations)
        else:
            changed = getattr(attacks, name)(answer, x, y, queries=queries, classes=10)
        seconds, spent = time.process_time() - begun, model.queries
        with torch.no_grad():
            fooled = classifier(changed).argmax(1) != y
        change = (changed - x).flatten(1)[:few]
        size = change.abs().amax(1) if name == "rays" else change.norm(dim=1)
        return {
            "images": count,
            "norm": "linf" if name == "rays" else "l2",
            "queries_an_image": spent / count,
            "fooled": float(fooled.float().mean()),
            "median_of_the_same_images": float(size.median()),
            "images_a_second": count / seconds,
        }

    np.random.seed(0)  # noqa: NPY002 (ART draws from it)
    theirs = row("art", few, 0)
    queries = round(theirs["queries_an_image"])
    rows = {"ART, HopSkipJump": theirs}
    rows |= {name: row(name, len(pixels), queries) for name in ("hopskipjump", "rays")}
    for part in BUDGETS:
        near = row("hopskipjump", len(pixels), round(part * queries))
        if near["median_of_the_same_images"] <= theirs["median_of_the_same_images"]:
            rows["hopskipjump, as near as ART"] = near
            break
    times = {
        name: found["images_a_second"] / theirs["images_a_second"]
        for name, found in rows.items()
        if name.startswith("hopskipjump")
    }
    table = Table("attack", "images", "queries an image", "fooled", "median", "images a second")
    for name, row in rows.items():
        table.add_row(
            name,
            str(row["images"]),
            f"{row['queries_an_image']:.0f}",
            f"{row['fooled']:.0%}",
            f"{row['median_of_the_same_images']:.3f} {row['norm']}",
            f"{row['images_a_second']:.2f}",
        )
    Console(width=110).print(table)
    print(json.dumps({"attacks": rows, "times_art": times, "stamp": environment_stamp(threads=1)}))


if __name__ == "__main__":
    main()
