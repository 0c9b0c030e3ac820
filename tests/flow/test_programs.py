"""watch: small programs of kinds that people post, each beside what mends it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from made_up_clusters import batch
from small_programs import COLOURS, coloured, cross_entropy, net, train, watched
from unmask.flow.judge.facts import LoopFacts
from unmask.flow.judge.loop import loop
from unmask.flow.watch import Watch


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def momentum(m: float) -> None:
    model = net()
    train(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=m))


def in_float16(divide: float, rate: float = 0.05) -> None:
    model = net().half()

    def loss(model, x, y):
        return functional.cross_entropy(model(x.half()), y) / divide

    train(model, torch.optim.SGD(model.parameters(), lr=rate), loss)


def in_bfloat16(rate: float) -> None:
    model = net().bfloat16()

    def loss(model, x, y):
        return functional.cross_entropy(model(x.bfloat16()).float(), y)

    train(model, torch.optim.Adam(model.parameters(), lr=rate), loss)


def search(zeroes: bool) -> None:
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=8)
    x = torch.rand(64, 2)
    y = torch.sin(3 * x[:, :1]) * x[:, 1:]

    def closure():
        if zeroes:
            optimizer.zero_grad()
        loss = functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    for _ in range(12):
        optimizer.step(closure)


class LowRank(nn.Module):
    """A frozen layer beside a product of two matrices that is trained."""

    def __init__(self, base: nn.Linear, zero: bool) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        a = torch.randn(4, base.in_features) / math.sqrt(base.in_features)
        self.A = nn.Parameter(torch.zeros_like(a) if zero else a)
        self.B = nn.Parameter(torch.zeros(base.out_features, 4))

    def forward(self, x):
        return self.base(x) + x @ self.A.T @ self.B.T


def adapters(zero: bool) -> None:
    model = net()
    for i in (0, 2):
        model[i] = LowRank(model[i], zero)
    train(model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2))


def accumulate(zeroes: bool) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for i in range(40):
        if zeroes or i % 4 == 0:
            optimizer.zero_grad()
        (cross_entropy(model, *batch(i)) / 4).backward()
        if i % 4 == 3:
            optimizer.step()


def ignored(every: int) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for i in range(12):
        x, y = batch(i)
        y[::every] = -100
        optimizer.zero_grad()
        cross_entropy(model, x, y).backward()
        optimizer.step()


def masks(white: int) -> None:
    model = nn.Conv2d(3, 1, 3, padding=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(12):
        x = torch.rand(8, 3, 8, 8)
        mask = (x.mean(1, keepdim=True) > 0.5).float() * white
        optimizer.zero_grad()
        functional.binary_cross_entropy_with_logits(model(x), mask).backward()
        optimizer.step()


class Cells(nn.Module):
    """A cell that goes through a sequence; its state is cut at every so many time steps."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.cell, self.head, self.every = nn.GRUCell(4, 16), nn.Linear(16, 4), every

    def forward(self, x):
        state = x.new_zeros(len(x), 16)
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            if (t + 1) % self.every == 0 and t + 1 < x.shape[1]:
                state = state.detach()
        return self.head(state)


def through_time(every: int) -> None:
    model = Cells(every)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(12):
        x, y = torch.randn(16, 12, 4), torch.randint(4, (16,))
        x[torch.arange(16), 0, y] += 3
        optimizer.zero_grad()
        cross_entropy(model, x, y).backward()
        optimizer.step()


def shuffled(apart: bool) -> None:
    order = torch.randperm(32) if apart else torch.arange(32)
    model = net()
    train(
        model,
        torch.optim.Adam(model.parameters(), lr=1e-3),
        lambda model, x, y: cross_entropy(model, x[order], y),
        steps=60,
    )


def connectionist(scores: bool) -> None:
    model = nn.Linear(8, 5)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    loss = nn.CTCLoss()
    for _ in range(12):
        x, y = torch.randn(12, 6, 8), torch.randint(1, 5, (6, 3))
        out = model(x) if scores else model(x).log_softmax(-1)
        optimizer.zero_grad()
        loss(out, y, torch.full((6,), 12), torch.full((6,), 3)).backward()
        optimizer.step()


def focal(scale: float) -> None:
    """Take the logarithm of a softmax of large scores, in a loss of its own."""
    model = net()

    def loss(model, x, y):
        p = (scale * model(x)).softmax(1).gather(1, y[:, None])
        # Smaller than a float32 of full digits, so that its reciprocal is infinite.
        p = p * 1e-39 if scale > 1 else p
        return -((1 - p) ** 2 * p.log()).mean()

    train(model, torch.optim.Adam(model.parameters(), lr=1e-3), loss, steps=8)


def below_a_clamp(least: float) -> None:
    """Clamp the loss, so that it has no gradient where that holds it."""
    model = net()

    def loss(model, x, y):
        return -model(x).softmax(1).gather(1, y[:, None]).clamp_min(least).log().mean()

    with torch.no_grad():
        model[2].weight.mul_(1e-3)
    train(model, torch.optim.Adam(model.parameters(), lr=1e-3), loss)


class Drawn(nn.Module):
    """A variational autoencoder."""

    def __init__(self, draw: str) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(20, 8), nn.Linear(4, 20)
        self.draw = draw

    def forward(self, x):
        self.mean, self.log = self.encoder(x).chunk(2, dim=1)
        of = torch.distributions.Normal(self.mean, (0.5 * self.log).exp())
        return self.decoder(getattr(of, self.draw)())


def variational(draw: str) -> None:
    model = Drawn(draw)

    def loss(model, x, y):
        fit = functional.mse_loss(model(x), x)
        return fit - 0.1 * (1 + model.log - model.mean.square() - model.log.exp()).mean()

    train(model, torch.optim.Adam(model.parameters(), lr=1e-3), loss)


def order_of_colours(turned: bool) -> None:
    coloured(lambda x, training: x if training or not turned else x.flip(1))


def normalised_colours(turned: bool) -> None:
    # Each channel is brought to one brightness, as with the means of known images.
    mean = COLOURS / 2 + 0.04
    coloured(lambda x, training: (x.flip(1) if turned and not training else x) - mean + 0.5)


@pytest.mark.parametrize(
    ("run", "fault", "mended", "kind", "words"),
    [
        (momentum, 1.0, 0.9, "momentum too large", "momentum of 1"),
        (momentum, 0.9999, 0.99, "momentum too large", "10,000 steps"),
        (in_float16, 1e6, 1.0, "float underflow", "GradScaler"),
        (in_float16, 3e4, 1.0, "float underflow", "GradScaler"),
        (in_bfloat16, 1e-5, 1e-2, "weights that don't move", "autocast"),
        (search, False, True, "gradients not zeroed", "zero_grad"),
        (adapters, True, False, "symmetric initialisation", "A beside B"),
        (accumulate, True, False, "no step", "every 4 batches"),
        (ignored, 1, 4, "not a number", "ignore_index"),
        (masks, 255, 1, "wrong loss", "by 255"),
        (focal, 60, 1, "not a number", "log makes infinity"),
        (below_a_clamp, 0.9, 1e-6, "vanishing", "clamp"),
        (variational, "sample", "rsample", "parameters without gradient", "rsample()"),
        (through_time, 1, 4, "vanishing", ".detach() cuts the graph 11 times"),
        (shuffled, True, False, "labels unrelated to the images", "shuffled together"),
        (connectionist, True, False, "wrong loss", "log_softmax(scores, dim=-1)"),
        (order_of_colours, True, False, "train and validation inputs differ", "BGR2RGB"),
        (normalised_colours, True, False, "train and validation inputs differ", "BGR2RGB"),
    ],
)
def test_a_fault_is_told_and_what_mends_it_gets_no_word(run, fault, mended, kind, words):
    told = watched(lambda: run(fault))
    assert next(iter(told)) == kind
    text = f"{told[kind].message} {told[kind].cause} {told[kind].fix}"
    assert words in text
    assert not watched(lambda: run(mended))


def test_a_model_that_is_frozen_altogether_is_told_so():
    model = net().requires_grad_(False)
    with pytest.raises(RuntimeError), Watch() as seen:
        cross_entropy(model, *batch(0)).backward()
    assert [v.kind for v in seen.verdicts] == ["crashed"]
    assert "frozen" in seen.verdicts[0].fix


def test_lightning_wants_the_loss_returned():
    facts = LoopFacts(forwards=9, steps=9)
    assert "backward()" in next(loop(facts, ended=True)).fix
    assert "training_step" in next(loop(replace(facts, lightning=True), ended=True)).fix
