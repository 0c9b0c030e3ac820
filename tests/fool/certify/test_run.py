"""What is certified is the model itself: its operations give its logits, on every call."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tests.fool.certify.nets import branched
from torch import Tensor, nn
from torch.nn import functional

import unmask
from unmask.errors import UserError
from unmask.fool.certify.network import Network
from unmask.fool.victim import Preprocessing, Victim

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 1, 4, 4)).astype(np.uint8)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Counts(Small):
    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) + self.calls % 2


class Drops(Small):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(super().forward(x))


class Draws(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + float(np.random.default_rng().random())


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.LeakyReLU])
def test_the_operations_of_a_network_give_its_logits(activation: type[nn.Module]) -> None:
    net = branched(0, activation).double()
    x = torch.rand(5, 2, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(Network.of(net, (2, 6, 6)).logits(x), net(x))


@pytest.mark.parametrize("model", [Counts, Drops, Draws])
def test_a_model_that_is_more_than_its_trace_is_refused(model: type[Small]) -> None:
    data = PIXELS, np.zeros(6, np.int64)
    assert len(unmask.certify(Small().eval(), data, eps=0.01, minutes=0.01)) == 6
    with pytest.raises(UserError, match="not those of its layers and operations alone"):
        unmask.certify(model().eval(), data, eps=0.01, minutes=0.01)


class Answers(Small):
    def __init__(self, answer: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> object:
        return self.answer(super().forward(x))


@pytest.mark.parametrize(
    "answer",
    [
        lambda z: {"logits": z, "features": z[:, :1]},
        lambda z: (z, z.mean()),
        lambda z: z.softmax(1),
        lambda z: functional.log_softmax(z, dim=-1),
    ],
    ids=["dictionary", "tuple", "softmax", "log-softmax"],
)
def test_what_the_logits_are_wrapped_in_changes_no_proof(answer) -> None:
    plain, wrapped = Small().eval(), Answers(answer).eval()
    labels = plain(torch.from_numpy(PIXELS).float() / 255).argmax(1).numpy()
    bounds = [
        unmask.certify(model, (PIXELS, labels), eps=0.002, minutes=0.05).bound
        for model in (plain, wrapped)
    ]
    assert (bounds[0] > 0).any()
    np.testing.assert_allclose(*bounds, rtol=1e-5)


def test_one_logit_is_that_of_the_second_class() -> None:
    class One(Small):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return logits[:, 1:] - logits[:, :1]

    labels = Small()(torch.from_numpy(PIXELS).float() / 255).argmax(1).numpy()
    found = [
        unmask.certify(model.eval(), (PIXELS, labels), eps=0.002, minutes=0.05).bound
        for model in (Small(), One())
    ]
    # The slopes are optimised for one difference of logits here, for a logit there.
    np.testing.assert_allclose(*found, rtol=0.02)


def test_a_parametrised_model_is_left_as_it_is() -> None:
    net = Small().eval()
    torch.nn.utils.parametrizations.weight_norm(net.net[1])
    x = torch.rand(3, 1, 4, 4)
    before = net(x)
    found = Network.of(net, (1, 4, 4)).logits(x.double())
    torch.testing.assert_close(found.float(), before)
    assert torch.equal(net(x), before)
    assert torch.nn.utils.parametrize.is_parametrized(net.net[1], "weight")


def test_the_normalisation_of_pixels_is_part_of_the_proof() -> None:
    mean, std = (0.4,), (0.2,)

    class Inside(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward((x - mean[0]) / std[0])

    labels = Inside()(torch.from_numpy(PIXELS).float() / 255).argmax(1).numpy()
    victim = Victim.of(Small().eval(), preprocessing=Preprocessing(mean, std))
    found = [
        unmask.certify(model, (PIXELS, labels), eps=0.001, minutes=0.05).bound
        for model in (Inside().eval(), victim)
    ]
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_logits_that_are_not_finite_are_told() -> None:
    net = Small().eval()
    net.net[1].weight.data.fill_(torch.nan)
    with pytest.raises(UserError, match="logits are not finite"):
        unmask.certify(net, (PIXELS, np.zeros(6, np.int64)), eps=0.01, minutes=0.01)


def test_further_arguments_keep_their_defaults_and_outputs_of_any_class_are_read() -> None:
    transformers = pytest.importorskip("transformers")
    settings = transformers.ResNetConfig(
        num_channels=1, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic"
    )
    net = transformers.ResNetForImageClassification(settings).eval()
    x = torch.rand(3, 1, 16, 16)
    found = Network.of(net, (1, 16, 16)).logits(x.double())
    torch.testing.assert_close(found.float(), net(x).logits, atol=1e-5, rtol=1e-4)

    class Two(Small):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return super().forward(x) + y

    with pytest.raises(UserError, match="more than one input: got y"):
        Network.of(Two().eval(), (1, 4, 4))
