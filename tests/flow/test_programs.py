"""watch: small programs of kinds that people post, each beside what mends it, and healthy ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from made_up_clusters import batch
from unmask.flow.judge.loop import LoopFacts, loop
from unmask.flow.watch import Watch
from unmask.verdict import Verdict


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


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


def views() -> None:
    """Tell two views of an image from other images, which is easy from the start."""
    model = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 16))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(12):
        x = torch.randn(32, 40)
        a, b = (functional.normalize(model(x + 0.05 * torch.randn_like(x))) for _ in range(2))
        optimizer.zero_grad()
        functional.cross_entropy(a @ b.T / 0.05, torch.arange(32)).backward()
        optimizer.step()


def few_objects() -> None:
    """Expect few objects at the start: the head's bias is log(1 / 99)."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 1, 1))
    nn.init.constant_(model[2].bias, -math.log(99))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(12):
        x = 0.5 + 0.1 * torch.rand(8, 3, 12, 12)
        there = functional.one_hot(torch.randint(36, (8,)), 36).reshape(8, 1, 6, 6).float()
        x += 0.3 * functional.interpolate(there, scale_factor=2)
        optimizer.zero_grad()
        functional.binary_cross_entropy_with_logits(model(x), there).backward()
        optimizer.step()


def search_that_ends() -> None:
    """Fit so well that the search's steps end."""
    model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=10, tolerance_change=1e-4, line_search_fn="strong_wolfe"
    )
    x = torch.linspace(0, 1, 32)[:, None]

    def closure():
        optimizer.zero_grad()
        loss = functional.mse_loss(model(x), 2 * x)
        loss.backward()
        return loss

    for _ in range(12):
        optimizer.step(closure)


def critic_through_generator() -> None:
    """Let the critic's backward pass reach the generator, whose gradients are then zeroed."""
    g, d = nn.Linear(4, 20), nn.Sequential(nn.Linear(20, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    og, od = (torch.optim.Adam(m.parameters(), lr=1e-3) for m in (g, d))
    bce = functional.binary_cross_entropy_with_logits
    for i in range(30):
        od.zero_grad()
        fake = g(torch.randn(16, 4))
        (bce(d(batch(i)[0][:16]), torch.ones(16, 1)) + bce(d(fake), torch.zeros(16, 1))).backward()
        od.step()
        og.zero_grad()
        bce(d(g(torch.randn(16, 4))), torch.ones(16, 1)).backward()
        og.step()


def paler_in_training() -> None:
    """Make every second training image grey, as augmentation does."""

    def change(x, training):
        if training:
            x[::2] = x[::2].mean(1, keepdim=True)
        return x

    coloured(change)


def small_targets() -> None:
    """Predict numbers of small spread, beside which the first loss is small too."""
    model = nn.Sequential(nn.Linear(768, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(24):
        x = 0.5 + torch.randn(32, 768)
        optimizer.zero_grad()
        functional.mse_loss(model(x).squeeze(1), 0.5 * x[:, :8].mean(1) - 0.25).backward()
        optimizer.step()


def actor_and_critic() -> None:
    """Train a trunk with two heads outside it, clipped together."""
    trunk, heads = nn.Sequential(nn.Linear(4, 16), nn.Tanh()), nn.ModuleList()
    heads.extend([nn.Linear(16, 2), nn.Linear(16, 1)])
    parameters = [*trunk.parameters(), *heads.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-4)
    for _ in range(12):
        x = torch.randn(32, 4)
        features = trunk(x)
        actor = functional.mse_loss(heads[0](features), x[:, :2])
        critic = functional.mse_loss(heads[1](features).squeeze(1), 30 - x.square().sum(1))
        optimizer.zero_grad()
        (actor + critic).backward()
        nn.utils.clip_grad_norm_(parameters, 0.01)
        optimizer.step()


class Codes(nn.Module):
    """An autoencoder by the nearest entries of a table; the gradient goes past the choice."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(20, 16), nn.Linear(16, 20)
        self.table = nn.Parameter(torch.cat([torch.zeros(1, 4), 3 + torch.rand(7, 4)]))

    def forward(self, x):
        z = self.encoder(0.1 * x).reshape(-1, 4)
        chosen = self.table[torch.cdist(z, self.table).argmin(1)]
        return self.decoder((z + (chosen - z).detach()).reshape(len(x), 16))


def codes() -> None:
    model = Codes()
    train(
        model,
        torch.optim.Adam(model.parameters(), lr=1e-3),
        lambda model, x, y: functional.mse_loss(model(x), x),
    )


def test_one_code_for_all_images_is_no_error():
    found = watched(codes)
    assert found["constant outputs"].severity == "warning"


@pytest.mark.parametrize(
    "run",
    [
        small_targets,
        actor_and_critic,
        views,
        few_objects,
        search_that_ends,
        critic_through_generator,
        paler_in_training,
    ],
)
def test_healthy_programs_get_no_word(run):
    assert not watched(run)


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
