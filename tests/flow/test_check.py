"""check_flow: what it finds in networks of every family, and what it refuses."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from unmask.errors import UserError
from unmask.flow import check as module
from unmask.flow.check import check_flow
from unmask.flow.theory import critical_sigma_w2

loss_fn = functional.cross_entropy


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=1e-3)


def deep(phi: type[nn.Module], depth: int, sigma_w2: float, sigma_b2: float = 0.0, width: int = 64):
    layers: list[nn.Module] = []
    for i in range(depth):
        layer = nn.Linear(20 if i == 0 else width, width)
        nn.init.normal_(layer.weight, 0, math.sqrt(sigma_w2 / layer.in_features))
        nn.init.normal_(layer.bias, 0, math.sqrt(sigma_b2))
        layers += [layer, phi()]
    return nn.Sequential(*layers, nn.Linear(width, 4))


def batch(n: int = 128):
    return torch.randn(n, 20), torch.randint(4, (n,))


def images(n: int = 16, side: int = 16):
    return torch.randn(n, 3, side, side), torch.randint(4, (n,))


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
        )

    def forward(self, x):
        return functional.relu(x + self.body(x))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(16, 4)

    def forward(self, tokens):
        return self.head(self.encoder(self.embed(tokens)).mean(1))


def healthy_networks():
    cnn = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 49, 4)
    )
    resnet = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), *(Residual(8) for _ in range(8)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    return {
        "mlp": (deep(nn.ReLU, 3, 2.0), batch()),
        "deep relu": (deep(nn.ReLU, 30, 2.0), batch()),
        "deep tanh": (deep(nn.Tanh, 30, critical_sigma_w2("tanh", 0.05), 0.05), batch()),
        "cnn": (cnn, images()),
        "resnet": (resnet, images()),
        "transformer": (Transformer(), (torch.randint(50, (16, 7)), torch.randint(4, (16,)))),
    }


@pytest.mark.parametrize("name", list(healthy_networks()))
def test_healthy_networks_get_no_error(name):
    model, pair = healthy_networks()[name]
    check = check_flow(model, loss_fn, pair, optimizer=adam)
    assert check.at_least("error") == ()
    assert check.healthy
    assert len(check.history) == 10
    assert check.parameters == sum(p.numel() for p in model.parameters())


def kinds(model, pair, **options) -> dict[str, object]:
    return {v.kind: v for v in check_flow(model, loss_fn, pair, **options).at_least("error")}


def test_vanishing_from_one_batch_with_cause_and_number():
    found = kinds(deep(nn.Tanh, 20, 0.3), batch())["vanishing"]
    assert found.fix == "initialise for tanh with sigma_w2 = 1.76, sigma_b2 = 0.05"
    assert found.cause.startswith("weight factor")
    # chi = sigma_w2 where tanh is linear: sqrt(0.3) a layer, and the interval covers it.
    e = found.evidence
    assert e["low"] < 0.5 * math.log10(0.3) < e["high"]
    assert e["low"] <= e["log10_per_layer"] <= e["high"]
    assert found.step == 0


def test_vanishing_through_the_derivative():
    found = kinds(deep(nn.Sigmoid, 12, 1.0), batch())["vanishing"]
    assert found.cause.startswith("derivative factor 0.2")
    assert "tanh instead of sigmoid" in found.fix


def test_exploding_with_cause():
    found = kinds(deep(nn.ReLU, 20, 8.0), batch())["exploding"]
    # sqrt(8) from the weights, sqrt(1/2) from half of the units being off.
    words = found.cause.split()
    assert words[:2] == ["weight", "factor"]
    assert float(words[2]) == pytest.approx(math.sqrt(8), rel=0.05)
    assert float(words[-1].strip(")")) == pytest.approx(math.sqrt(0.5), rel=0.05)
    assert "sigma_w2 = 2, sigma_b2 = 0" in found.fix


def test_gradients_that_underflow():
    model = deep(nn.Sigmoid, 60, 0.5, width=32)
    found = kinds(model, batch())
    assert "float underflow" in found
    assert found["float underflow"].evidence["zero"] > 0


def test_dead_units():
    model = deep(nn.ReLU, 3, 2.0)
    with torch.no_grad():
        model[2].bias.fill_(-50)
    found = kinds(model, batch())["dead units"]
    assert found.subject == "2"
    assert found.evidence == {"dead": 1.0, "pictures": 128}


def test_a_few_dead_units_are_a_warning_at_most():
    model = deep(nn.ReLU, 3, 2.0)
    with torch.no_grad():
        model[2].bias[:10].fill_(-50)
    assert check_flow(model, loss_fn, batch()).healthy


def test_saturated():
    model = deep(nn.Tanh, 2, 1.0)
    with torch.no_grad():
        model[0].weight.mul_(40)
    found = kinds(model, batch())["saturated"]
    assert found.subject == "0"
    assert found.fix.startswith("divide the weights and biases of 0 by 4")


def test_symmetric_initialisation():
    model = deep(nn.Tanh, 2, 1.0)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.constant_(layer.weight, 0.02)
            nn.init.zeros_(layer.bias)
    assert "symmetric initialisation" in kinds(model, batch())


def test_an_output_layer_at_zero_is_no_fault():
    model = deep(nn.ReLU, 3, 2.0)
    nn.init.zeros_(model[-1].weight)
    nn.init.zeros_(model[-1].bias)
    assert check_flow(model, loss_fn, batch(), optimizer=adam).healthy


def test_constant_outputs():
    model = nn.Sequential(*deep(nn.Tanh, 2, 1.0), nn.ReLU())
    with torch.no_grad():
        model[-2].bias.fill_(-30)
    found = kinds(model, batch())["constant outputs"]
    assert "without an activation" in found.fix


@pytest.mark.parametrize(
    ("x", "cause"),
    [
        (lambda x: 255 * x, "too large"),
        (lambda x: 1e-3 * x, "too small"),
        (lambda x: x + 99, "off"),
    ],
)
def test_inputs_badly_scaled(x, cause):
    inputs, targets = batch()
    found = kinds(deep(nn.ReLU, 2, 2.0), (x(inputs), targets))["inputs badly scaled"]
    assert cause in found.cause
    mean, std = found.evidence["mean"], found.evidence["std"]
    assert mean == pytest.approx(x(inputs).mean().item(), rel=1e-3)
    assert std == pytest.approx(x(inputs).std().item(), rel=1e-2)


@pytest.mark.parametrize(
    ("rate", "kind"), [(1e-9, "learning rate too low"), (3e2, "learning rate too high")]
)
def test_learning_rates(rate, kind):
    model = deep(nn.Tanh, 3, 1.0)
    found = kinds(model, batch(), optimizer=lambda p: torch.optim.SGD(p, lr=rate))
    assert kind in found
    advised = float(found[kind].fix.removeprefix("learning rate "))
    assert (advised > rate) == (kind == "learning rate too low")
    assert not kinds(model, batch(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1))


def test_divergence_names_its_step():
    model = deep(nn.ReLU, 4, 2.0)
    found = kinds(model, batch(), optimizer=lambda p: torch.optim.SGD(p, lr=1e6))
    assert "diverged" in found
    assert 0 <= found["diverged"].step < 10


def test_nan_in_the_inputs():
    x, y = batch()
    x[0, 0] = math.nan
    assert list(kinds(deep(nn.ReLU, 2, 2.0), (x, y))) == ["bad data"]


def test_nothing_of_the_users_is_changed():
    model = deep(nn.ReLU, 3, 2.0)
    model.append(nn.Dropout(0.5))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    weights = copy.deepcopy(model.state_dict())
    generator = torch.get_rng_state()
    pair = batch()
    torch.set_rng_state(generator)
    check_flow(model, loss_fn, pair, optimizer=optimizer)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert not optimizer.state
    assert all(p.grad is None for p in model.parameters())


def test_the_same_seed_gives_the_same_check():
    model = deep(nn.ReLU, 3, 2.0)
    model.insert(1, nn.Dropout(0.5))
    pair = batch()
    first, second = (check_flow(model, loss_fn, pair, optimizer=adam, seed=3) for _ in range(2))
    assert first.history == second.history
    assert first.verdicts == second.verdicts


def test_an_optimiser_and_a_loader_of_the_users():
    model = deep(nn.ReLU, 3, 2.0)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batch()), batch_size=32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    check = check_flow(model, loss_fn, loader, optimizer=optimizer)
    assert check.history[-1].optimizer == "SGD"
    assert check.history[-1].learning_rate == 0.05
    assert check.healthy


def test_forward_arguments_by_name():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(20, 4)

        def forward(self, left, right):
            return self.layer(left + right)

    x, y = batch()
    check = check_flow(Named(), loss_fn, ({"left": x, "right": x}, y))
    assert [layer.name for layer in check.history[0].layers] == ["layer"]


def test_results_are_plain_values():
    check = check_flow(deep(nn.Tanh, 4, 0.01), loss_fn, batch(), optimizer=adam)
    plain = json.loads(json.dumps(check.as_dict()))
    assert plain["verdicts"][0]["severity"] == "error"
    assert len(plain["history"]) == 10


class Awkward(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.layer = nn.Linear(20, 4)
        self.forward = lambda x: forward(self.layer, x)


def frozen():
    return nn.Linear(20, 4).requires_grad_(False)


def overwriting():
    """A network that overwrites what its gradient needs."""

    def forward(layer, x):
        h = layer(x).sigmoid()
        y = h.exp() * h
        h.add_(1)
        return y

    return Awkward(forward)


@pytest.mark.parametrize(
    ("model", "loss", "pair", "words"),
    [
        (lambda: "a string", loss_fn, batch, "no torch.nn.Module"),
        (nn.ReLU, loss_fn, batch, "no parameters"),
        (lambda: nn.Linear(7, 4), loss_fn, batch, "doesn't fit the batch"),
        (lambda: nn.Linear(20, 2), loss_fn, batch, "loss doesn't fit"),
        (lambda: nn.Linear(20, 4), lambda a, b: a.mean(0), batch, "no scalar"),
        (lambda: nn.Linear(20, 4), lambda a, b: 1.0, batch, "no scalar"),
        (lambda: nn.Linear(20, 4), lambda a, b: a.mean().detach(), batch, "no graph"),
        (frozen, loss_fn, batch, "frozen"),
        (lambda: nn.Linear(20, 4).eval(), loss_fn, batch, "evaluation mode"),
        (lambda: nn.Linear(20, 4), loss_fn, lambda: (batch()[0].long(), batch()[1]), "integers"),
        (lambda: nn.Linear(20, 4).to("meta"), loss_fn, batch, "weights have no values"),
        (lambda: nn.Linear(20, 4), loss_fn, lambda: [t.to("meta") for t in batch()], "devices"),
        (overwriting, loss_fn, batch, "gradient can't be computed"),
        (lambda: nn.Linear(20, 4), loss_fn, lambda: batch()[0], "(inputs, targets)"),
        (lambda: nn.Linear(20, 4), loss_fn, list, "no batch"),
        (lambda: nn.Linear(20, 4), loss_fn, lambda: [1, 2, 3], "(inputs, targets)"),
    ],
)
def test_bad_input_gets_one_clear_line(model, loss, pair, words):
    with pytest.raises(UserError) as caught:
        check_flow(model(), loss, pair())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_an_optimiser_of_another_model_is_refused():
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(UserError, match="none of the model's parameters"):
        check_flow(nn.Linear(20, 4), loss_fn, batch(), optimizer=other)


def test_an_optimiser_whose_step_fails_is_named():
    def lbfgs(parameters):
        return torch.optim.LBFGS(parameters)

    with pytest.raises(UserError, match="the step of LBFGS fails"):
        check_flow(nn.Linear(20, 4), loss_fn, batch(), optimizer=lbfgs)


def test_severities():
    check = check_flow(deep(nn.Tanh, 20, 0.3), loss_fn, batch())
    assert len(check.at_least("error")) <= len(check.at_least("warning")) <= len(check.verdicts)
    assert all(v.severity == "error" for v in check.at_least("error"))
    assert check.at_least("note") == check.verdicts
    assert not check.healthy


def test_of_a_large_network_the_loss_after_a_step_is_taken_at_every_second_one(monkeypatch):
    def checked(rate):
        return check_flow(
            nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 4)),
            loss_fn,
            batch(),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=rate),
        )

    monkeypatch.setattr(module, "LARGE", 0)
    known = [s.loss_after is not None for s in checked(0.1).history]
    assert [i for i, there in enumerate(known) if there] == [0, 2, 4, 6, 9]
    assert checked(0.1).healthy
    assert [v.kind for v in checked(100.0).at_least("error")] == ["learning rate too high"]
