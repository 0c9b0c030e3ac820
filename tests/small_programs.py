"""What small training programs have in common: a network, a loop, and the watch of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from made_up_clusters import batch
from unmask.flow.watch import Watch
from unmask.verdict import Verdict


def watched(run: Callable[[], None]) -> dict[str, Verdict]:
    with Watch() as seen:
        run()
    return {v.kind: v for v in seen.verdicts if v.severity != "note"}


def net(outputs: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, outputs))


def train(model, optimizer, loss=None, steps: int = 24) -> None:
    for i in range(steps):
        x, y = batch(i)
        optimizer.zero_grad()
        (loss or cross_entropy)(model, x, y).backward()
        optimizer.step()


def cross_entropy(model, x, y):
    return functional.cross_entropy(model(x), y)


COLOURS = torch.tensor([0.9, 0.5, 0.2])[:, None, None]


def coloured(change: Callable[[torch.Tensor, bool], torch.Tensor]) -> None:
    """Train on coloured images and validate on others, each after a change of its own."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for training in (True, False):
        model.train(training)
        for _ in range(8):
            x, y = COLOURS * torch.rand(16, 3, 8, 8), torch.randint(3, (16,))
            x[torch.arange(16), :, y] += 0.3
            x = change(x, training) - 0.5
            with torch.set_grad_enabled(training):
                loss = cross_entropy(model, x, y)
            if training:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
