"""Does it pay to train many small convolutional nets stacked, as one, instead of one by one?

Each net is conv 3x3, ReLU, max-pool 2, conv 3x3, ReLU, max-pool 2, a hidden layer, ten classes.
Alone, a net takes a plain step of PyTorch's. Stacked, n nets of different weights are one: the
first convolution has the filters of all, the second is grouped, the linear layers are batched
matrix products. Both run on one thread: a sweep has as many processes as cores. Processor time a
step and net, the least of some rounds taken in turn; a table, then one line of JSON.

    python benchmarks/sweep/convolutions.py
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from unmask.runtime import environment_stamp

ROUNDS, ALONE, STACKS, CLASSES = 5, 8, (8, 32), 10
Step = Callable[[], None]


@dataclass(frozen=True)
class Shape:
    """Images of channels x side x side, filters of both convolutions, hidden width, batch size."""

    name: str
    channels: int
    side: int
    first: int
    second: int
    hidden: int
    batch: int

    def data(self) -> tuple[Tensor, Tensor]:
        pixels = torch.rand(self.batch, self.channels, self.side, self.side)
        return pixels, torch.randint(CLASSES, (self.batch,))

    @property
    def features(self) -> int:
        return self.second * (self.side // 4) ** 2


SHAPES = (
    Shape("16 px, as small as it gets", 1, 16, 4, 8, 16, 16),
    Shape("MNIST, small", 1, 28, 8, 16, 32, 32),
    Shape("MNIST, the course report's size", 1, 28, 32, 64, 128, 128),
    Shape("CIFAR-10, small", 3, 32, 16, 32, 64, 64),
)


def alone(shape: Shape) -> Step:
    net = nn.Sequential(
        nn.Conv2d(shape.channels, shape.first, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(shape.first, shape.second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(shape.features, shape.hidden),
        nn.ReLU(),
        nn.Linear(shape.hidden, CLASSES),
    )
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    pixels, labels = shape.data()

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(net(pixels), labels).backward()
        optimizer.step()

    return step


def stacked(shape: Shape, nets: int) -> Step:
    def drawn(*size: int) -> Tensor:
        return (0.05 * torch.randn(*size)).requires_grad_()

    filters = drawn(nets * shape.first, shape.channels, 3, 3), drawn(nets * shape.first)
    grouped = drawn(nets * shape.second, shape.first, 3, 3), drawn(nets * shape.second)
    hidden = drawn(nets, shape.features, shape.hidden), drawn(nets, 1, shape.hidden)
    last = drawn(nets, shape.hidden, CLASSES), drawn(nets, 1, CLASSES)
    optimizer = torch.optim.SGD([*filters, *grouped, *hidden, *last], 0.01)
    pixels, labels = shape.data()

    def step() -> None:
        optimizer.zero_grad()
        x = functional.conv2d(pixels, *filters, padding=1)
        x = functional.max_pool2d(functional.relu(x), 2)
        x = functional.conv2d(x, *grouped, padding=1, groups=nets)
        x = functional.max_pool2d(functional.relu(x), 2)
        x = x.view(shape.batch, nets, -1).transpose(0, 1)
        x = functional.relu(torch.baddbmm(hidden[1], x, hidden[0]))
        logits = torch.baddbmm(last[1], x, last[0]).reshape(nets * shape.batch, CLASSES)
        loss = functional.cross_entropy(logits, labels.repeat(nets), reduction="sum")
        (loss / shape.batch).backward()
        optimizer.step()

    return step


def seconds(step: Step, repeats: int) -> float:
    began = time.process_time()
    for _ in range(repeats):
        step()
    return (time.process_time() - began) / repeats


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    console, table = Console(), Table(title="Processor time a step and net, one thread")
    for column in ("net", "alone", *(f"{n} stacked" for n in STACKS)):
        table.add_column(column, justify="left" if column == "net" else "right")
    rows = []
    for shape in SHAPES:
        contenders = {1: (alone(shape), ALONE)} | {n: (stacked(shape, n), 1) for n in STACKS}
        best = dict.fromkeys(contenders, float("inf"))
        for turn in range(ROUNDS + 1):
            for nets, (step, repeats) in contenders.items():
                taken = seconds(step, repeats) / nets
                if turn:  # The first round is the warm-up.
                    best[nets] = min(best[nets], taken)
        cells = [f"{1e3 * t:.2f} ms ({best[1] / t:.2f}x)" for n, t in best.items() if n > 1]
        table.add_row(shape.name, f"{1e3 * best[1]:.2f} ms", *cells)
        rows.append({**asdict(shape), "seconds": best})
    console.print(table)
    print(json.dumps({"rows": rows, **environment_stamp()}))


if __name__ == "__main__":
    main()
