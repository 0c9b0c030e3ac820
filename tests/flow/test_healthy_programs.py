"""watch: small healthy programs that look like faulty ones, which get no word."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from made_up_clusters import Net, batch
from small_programs import coloured, net, train, watched
from unmask.flow.watch import Watch


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


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


def far_from_zero() -> None:
    """Fit a line whose slope is a hundred times what weights begin with."""
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.randn(100, 1)
    y = 80 * x + 20 * torch.randn(100, 1)
    for _ in range(60):
        optimizer.zero_grad()
        functional.mse_loss(model(x), y).backward()
        optimizer.step()


def four_at_a_time() -> None:
    """Momentum makes the steps of a low rate ten times as large as the first ones."""
    model = nn.Sequential(nn.Linear(20, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU())
    model.append(nn.Linear(84, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=3e-4, momentum=0.9)
    for i in range(60):
        x, y = batch(i, 4)
        optimizer.zero_grad()
        functional.cross_entropy(model(x / 3), y).backward()
        optimizer.step()


def many_words() -> None:
    """Predict words among so many that only the graph shows over which of them they compete."""
    model = nn.Sequential(nn.Embedding(9000, 16), nn.Linear(16, 9000))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(12):
        x = torch.randint(40, (7, 20))
        optimizer.zero_grad()
        logs = functional.log_softmax(model(x), dim=-1).view(-1, 9000)
        functional.nll_loss(logs, (x + 1).view(-1)).backward()
        optimizer.step()


def words_long_ago() -> None:
    """Read rows of words, of whose table a batch asks for a few and long sequences fade."""
    model = nn.Sequential(nn.Embedding(2000, 8), nn.Conv1d(30, 4, 1), nn.Flatten())
    model.append(nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(12):
        x = torch.randint(2000, (8, 30))
        # The last words alone have gradients, and those of the first are next to nothing.
        x[:, :25] = torch.randint(400, (8, 25))
        optimizer.zero_grad()
        functional.cross_entropy(model(x), x[:, 0] % 2).backward()
        model[0].weight.grad[:60] *= 1e-40
        optimizer.step()


def one_state_again() -> None:
    """Learn a value of six states, of which at the end one alone is met."""
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 6))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for i in range(230):
        state = torch.randint(6, (32,)) if i < 60 else torch.zeros(32, dtype=torch.int64)
        optimizer.zero_grad()
        if i > 80:
            # An agent first looks what to do in the state that it is in.
            model(functional.one_hot(state[:1], 6).float())
        target = 0.5 * functional.one_hot((state + 1) % 6, 6).float()
        functional.mse_loss(model(functional.one_hot(state, 6).float()), target).backward()
        optimizer.step()


def one_series() -> None:
    """Predict a series' next value: its time is the first dimension, its batch is 1."""
    reads = nn.LSTM(2, 8)
    model = Net(lambda net, x: net.head(net.reads(x)[0]), reads=reads)
    model.trunk, model.head = None, nn.Linear(8, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    series = torch.sin(0.2 * torch.arange(101.0))
    x, y = torch.stack([series[:99], series[1:100]], 1)[:, None], series[2:, None, None]
    for _ in range(30):
        optimizer.zero_grad()
        functional.mse_loss(model(x), y).backward()
        optimizer.step()


def episodes() -> None:
    """Balance something: each episode begins close to rest, and goes on state by state."""
    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(12):
        state, chosen, rewards = 0.02 * torch.randn(4), [], []
        for _ in range(20):
            policy = torch.distributions.Categorical(logits=model(state))
            action = policy.sample()
            chosen.append(policy.log_prob(action))
            push = 0.2 * (2.0 * action - 1)
            state = state + torch.stack([0.1 * state[1], push, 0.1 * state[3], 0.5 * state[2]])
            rewards.append(1.0 - float(state.abs().sum()))
        optimizer.zero_grad()
        ahead = torch.tensor(rewards).flip(0).cumsum(0).flip(0)
        ahead = (ahead - ahead.mean()) / (ahead.std() + 1e-6)
        (-torch.stack(chosen) * ahead).sum().backward()
        optimizer.step()


class Damped(nn.Module):
    """A motion whose damping is learnt, as the output of a layer for a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.damping, self.shape = nn.Linear(1, 1), nn.Linear(1, 1)

    def forward(self, t):
        return torch.exp(-self.damping(torch.ones_like(t)) * t) * self.shape(t).cos()


def learnt_constant() -> None:
    model = Damped()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(24):
        t = 3 * torch.rand(32, 1)
        optimizer.zero_grad()
        functional.mse_loss(model(t), (-0.5 * t).exp() * (2 * t).cos()).backward()
        optimizer.step()


def flow_of_couplings() -> None:
    """Shift and scale one of two numbers by the other, in parts that are the identity at first."""
    parts = [nn.Sequential(nn.Linear(1, 4), nn.LeakyReLU(), nn.Linear(4, 2)) for _ in range(4)]
    weights = [p for m in parts for p in m.parameters()]
    for m in parts:
        nn.init.zeros_(m[2].weight)
        nn.init.zeros_(m[2].bias)
    optimizer = torch.optim.Adam(weights, lr=1e-3, weight_decay=1e-5)
    for _ in range(24):
        a, b = torch.randn(2, 64, 1)
        z, logs = [a, b + a.square()], 0.0
        for i, m in enumerate(parts):
            scale, shift = m(z[i % 2]).split(1, 1)
            z[1 - i % 2] = z[1 - i % 2] * scale.exp() + shift
            logs = logs + scale
        optimizer.zero_grad()
        (0.5 * (z[0].square() + z[1].square()) - logs).mean().backward()
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


def first_of_many() -> None:
    """Tell an image's other view, which stands first, from a queue of other images."""
    encoder, queue = nn.Linear(20, 16), functional.normalize(torch.randn(40, 16), dim=1)

    class Contrast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, x, other):
            a, b = (functional.normalize(self.encoder(view)) for view in (x, other))
            return torch.cat([(a * b).sum(1, keepdim=True), a @ queue.T], 1) / 0.1

    def loss(model, x, y):
        logits = model(x, x + torch.randn_like(x))
        return functional.cross_entropy(logits, torch.zeros(len(x), dtype=torch.long))

    model = Contrast()
    train(model, torch.optim.SGD(model.parameters(), lr=0.03), loss)


def words_in_a_row() -> None:
    """Flatten the log-probabilities of every place of a sequence."""
    model = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 6), nn.LogSoftmax(-1))

    def loss(model, x, y):
        labels = (y[:, None] + torch.arange(4)) % 6
        return functional.nll_loss(model(x.unflatten(1, (4, 5))).view(-1, 6), labels.flatten())

    train(model, torch.optim.Adam(model.parameters(), lr=1e-3), loss)


class Nearest(nn.Module):
    """An encoder that is drawn to the nearest entry of a table, by losses of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(20, 4)
        self.table = nn.Parameter(torch.cat([torch.ones(1, 4), 5 + torch.rand(7, 4)]))

    def forward(self, x):
        z = self.encoder(0.1 * x)
        chosen = self.table[torch.cdist(z, self.table).argmin(1)]
        self.loss = functional.mse_loss(chosen, z.detach())
        self.loss = self.loss + 0.25 * functional.mse_loss(chosen.detach(), z)
        return z + (chosen - z).detach()


def drawn_to_a_table() -> None:
    """Learn a table of which all images choose one entry at first."""
    model, decoder = Nearest(), nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 20))
    optimizer = torch.optim.Adam([*model.parameters(), *decoder.parameters()], lr=1e-3)
    for i in range(12):
        x, _ = batch(i)
        optimizer.zero_grad()
        (functional.mse_loss(decoder(model(x)), x) + model.loss).backward()
        optimizer.step()


class Residual(nn.Module):
    """Blocks and an output layer that start at 0, as those of diffusion models do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(20, 32), nn.Linear(32, 5)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 32))
            for _ in range(3)
        )
        for layer in (self.last, *(b[3] for b in self.blocks)):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


def blocks_at_zero() -> None:
    model = Residual()
    train(model, torch.optim.Adam(model.parameters(), lr=1e-3))


def white_and_black() -> None:
    """Predict pixels that are 0 or 1, at which a sigmoid's outputs end."""
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 40), nn.Sigmoid())

    def loss(model, x, y):
        pixels = (torch.arange(40) % 5 < y[:, None]).float()
        return functional.binary_cross_entropy(model(x), pixels)

    train(model, torch.optim.Adam(model.parameters(), lr=1e-2), loss, steps=210)


def far_below() -> None:
    """Start far below all targets, where absolute errors add up to the same in any order."""
    model = net(outputs=1)

    def loss(model, x, y):
        return functional.l1_loss(model(x).squeeze(1), 5 * x[:, 0] + 300)

    train(model, torch.optim.Adam(model.parameters(), lr=0.03), loss)


def tuned() -> None:
    """Give a trunk that was trained before, and is frozen, other labels."""
    model = net()
    with torch.no_grad():
        model[2].weight.mul_(150)
    model[0].requires_grad_(False)
    train(model, torch.optim.Adam(model[2].parameters(), lr=0.3))


def policy() -> None:
    """Score drawn actions, which are fed to nothing."""
    model = net(outputs=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for i in range(12):
        x, _ = batch(i)
        of = torch.distributions.Normal(model(x), 1.0)
        actions = of.sample()
        gain = -(actions - x[:, :2]).square().sum(1)
        optimizer.zero_grad()
        (-of.log_prob(actions).sum(1) * (gain - gain.mean()) / gain.std()).mean().backward()
        optimizer.step()


def codes() -> None:
    model = Codes()
    train(
        model,
        torch.optim.Adam(model.parameters(), lr=1e-3),
        lambda model, x, y: functional.mse_loss(model(x), x),
    )


class Waking(nn.Module):
    """Say the mean for 150 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.mean, self.passes = net(20), nn.Linear(20, 20), 0

    def forward(self, x):
        self.passes += self.training
        mean = self.mean(torch.ones_like(x))
        return mean + self.inside(x) * (self.passes > 150 or 1e-5)


def test_what_says_the_mean_for_a_hundred_steps_may_still_wake():
    told, model = [], Waking()
    with Watch(tell=told.append):
        train(
            model,
            torch.optim.Adam(model.parameters(), lr=1e-3),
            lambda model, x, y: functional.mse_loss(model(x), x + 1),
            260,
        )
    assert [v for v in told if v.severity == "error"] == []


class Featureless(nn.Module):
    """Frozen features that hardly differ, and a layer on them."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Linear(20, 32).requires_grad_(False), nn.Linear(32, 5)

    def forward(self, x):
        return self.head(1 + 1e-5 * self.features(x))


def test_outputs_that_stay_constant_are_told_while_the_training_goes_on():
    told, model = [], Featureless()
    with Watch(tell=told.append):
        train(model, torch.optim.SGD(model.parameters(), lr=0.01), steps=260)
        assert [v.kind for v in told] == ["constant outputs"]
    assert told[0].step == 200


def test_a_training_that_ends_after_a_step_shows_no_error_of_its_signals():
    layers = [m for _ in range(8) for m in (nn.Linear(20, 20), nn.Tanh())]
    model = nn.Sequential(*layers, nn.Linear(20, 5))
    for p in model.parameters():
        p.data.mul_(0.6)
    severities = []
    for steps in (1, 12):
        with Watch(tell=lambda v: None) as seen:
            train(model, torch.optim.SGD(model.parameters(), lr=1e-3), steps=steps)
        severities += [v.severity for v in seen.verdicts if v.kind == "vanishing"]
    assert severities == ["warning", "error"]


def test_sigmoids_may_begin_on_a_plateau():
    told, losses = [], []
    centres = torch.rand(10, 144)
    layers = nn.Linear(144, 48), nn.Sigmoid(), nn.Linear(48, 48), nn.Sigmoid(), nn.Linear(48, 10)
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.5)
    with Watch(tell=told.append) as seen:
        for _ in range(300):
            y = torch.randint(10, (64,))
            x = (centres[y] + 0.1 * torch.randn(64, 144)).clamp(0, 1)
            loss = functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]
    assert "constant outputs" not in {v.kind for v in (*told, *seen.verdicts)}


@pytest.mark.parametrize("run", [codes, drawn_to_a_table])
def test_one_code_for_all_images_is_no_error(run):
    with Watch() as seen:
        run()
    assert [(v.kind, v.severity) for v in seen.verdicts if v.kind == "constant outputs"] == [
        ("constant outputs", "warning")
    ]


@pytest.mark.parametrize(
    "run",
    [
        policy,
        first_of_many,
        words_in_a_row,
        blocks_at_zero,
        white_and_black,
        tuned,
        far_below,
        small_targets,
        actor_and_critic,
        views,
        episodes,
        flow_of_couplings,
        learnt_constant,
        few_objects,
        search_that_ends,
        critic_through_generator,
        paler_in_training,
        far_from_zero,
        four_at_a_time,
        many_words,
        one_series,
        words_long_ago,
        one_state_again,
    ],
)
def test_healthy_programs_get_no_word(run):
    assert not watched(run)
