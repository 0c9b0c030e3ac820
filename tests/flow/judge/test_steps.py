"""steps and head: faults that people post, found in a few steps, and healthy neighbours."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from made_up_clusters import CLASSES, Net
from unmask.errors import UserError
from unmask.flow.check import FlowCheck, check_flow


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def batches(n: int = 4, size: int = 32) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(1)
    centres = 1.5 * torch.randn(CLASSES, 20, generator=g)
    labels = [torch.randint(CLASSES, (size,), generator=g) for _ in range(n)]
    return [(centres[y] + torch.randn(size, 20, generator=g), y) for y in labels]


def checked(model: nn.Module, loss=functional.cross_entropy, pairs=None) -> FlowCheck:
    def adam(parameters):
        return torch.optim.Adam(parameters, lr=1e-3)

    return check_flow(model, loss, pairs or batches(), optimizer=adam, steps=4)


def found(model: nn.Module, loss=functional.cross_entropy):
    return {v.kind: v for v in checked(model, loss).verdicts if v.severity != "note"}


def mlp(*after: nn.Module, outputs: int = CLASSES, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 32), act(), nn.Linear(32, outputs), *after)


def by_hand(net, x):
    e = net.head(net.trunk(x).relu()).exp()
    return e / e.sum(1, keepdim=True)


def over_the_batch(net, x):
    return functional.softmax(net.head(net.trunk(x).relu()), dim=0).log()


def cosines(net, x):
    return functional.normalize(net.trunk(x)) @ functional.normalize(net.head.weight).T


def binary(loss, *clamp: float):
    def of(output, y):
        output = output.clamp(*clamp) if clamp else output
        return loss(output[:, 0], (y > 2).float())

    return of


def aged(output, y):
    return functional.mse_loss(output[:, 0], 20 + 10 * y.float() + 0.5)


def against_normal(output, y, clamp: float = -9.0):
    g = torch.Generator().manual_seed(3)
    return functional.mse_loss(output, torch.randn(output.shape, generator=g).clamp(clamp))


def divergence(output, y):
    targets = 0.9 * functional.one_hot(y, CLASSES) + 0.1 / CLASSES
    return functional.kl_div(output, targets, reduction="batchmean")


def from_scores(output, y):
    g = torch.Generator().manual_seed(3)
    targets = torch.randn(output.shape, generator=g).clamp_min(-0.1)
    return functional.kl_div(output, targets.where(targets > 0, -0.1).detach(), log_target=False)


@pytest.mark.parametrize(
    ("model", "loss", "kind", "words"),
    [
        (
            lambda: Net(by_hand),
            functional.cross_entropy,
            "activation before the loss",
            "softmax",
        ),
        (
            lambda: Net(over_the_batch),
            functional.nll_loss,
            "activation before the loss",
            "images",
        ),
        (
            lambda: Net(cosines),
            functional.cross_entropy,
            "activation before the loss",
            "cosines",
        ),
        (
            lambda: mlp(nn.Softmax(1), outputs=1),
            binary(functional.binary_cross_entropy),
            "activation before the loss",
            "always 1",
        ),
        (
            lambda: mlp(outputs=1),
            binary(functional.binary_cross_entropy, 1e-6, 1 - 1e-6),
            "wrong loss",
            "scores",
        ),
        (lambda: mlp(nn.GELU()), functional.cross_entropy, "activation before the loss", "gelu"),
        (lambda: mlp(nn.Sigmoid(), outputs=1), aged, "activation before the loss", "100%"),
        (
            lambda: mlp(nn.ReLU(), outputs=20),
            against_normal,
            "activation before the loss",
            "outside",
        ),
        (lambda: mlp(nn.Softmax(1)), divergence, "wrong loss", "log-probabilities"),
        (lambda: mlp(nn.LogSoftmax(1)), from_scores, "wrong loss", "probabilities as targets"),
    ],
)
def test_what_the_loss_is_fed(model, loss, kind, words):
    assert words in found(model(), loss)[kind].message


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (lambda: mlp(nn.LogSoftmax(1)), functional.nll_loss),
        (lambda: mlp(nn.Sigmoid(), outputs=1), binary(functional.binary_cross_entropy, 1e-6, 1.0)),
        (lambda: Net(lambda net, x: 10 * cosines(net, x)), functional.cross_entropy),
        (lambda: mlp(nn.LogSoftmax(1)), divergence),
        (lambda: mlp(nn.ReLU(), outputs=20), lambda o, y: against_normal(o, y, clamp=0.0)),
    ],
)
def test_what_the_loss_may_be_fed(model, loss):
    assert not found(model(), loss).keys() & {"activation before the loss", "wrong loss"}


OUTSIDE = nn.Linear(32, 32)


def anew(net, x):
    return net.head(nn.Linear(20, 32)(x).relu())


@pytest.mark.parametrize(
    ("net", "subject"),
    [
        (
            lambda: Net(
                lambda net, x: net.head(net.more[0][0](net.trunk(x).relu()).relu()),
                more=([nn.Linear(32, 32)],),
            ),
            "more",
        ),
        (
            lambda: Net(
                lambda net, x: net.head((net.trunk(x) * net.gain).relu()),
                gain=torch.ones(32, requires_grad=True),
            ),
            "gain",
        ),
        (lambda: Net(anew), "Linear"),
        (lambda: Net(lambda net, x: net.head(OUTSIDE(net.trunk(x).relu()).relu())), "Linear"),
    ],
)
def test_weights_that_the_model_does_not_hold(net, subject):
    assert found(net())["layers not registered"].subject == subject


def keeps(net, x):
    net.kept = x.requires_grad_()
    return net.head(net.trunk(x).relu())


def frozen() -> nn.Module:
    return nn.Linear(32, 32).requires_grad_(False)


@pytest.mark.parametrize(
    "net",
    [
        lambda: Net(keeps),
        lambda: Net(lambda net, x: net.head(net.other[0](net.trunk(x).relu())), other=[frozen()]),
        # One of several trunks was chosen, and is a part of the model by another name.
        lambda: Net(lambda net, x: net.head(net.trunk(x).relu()), trunks={"b": nn.Linear(20, 32)}),
    ],
)
def test_what_a_pass_keeps_what_is_frozen_and_what_is_unused_may_be_plain(net):
    assert "layers not registered" not in found(net())


def test_a_tensor_that_was_computed_is_named():
    net = Net(lambda net, x: net.head((x @ net.w).relu()), w=torch.ones(20, 32) * OUTSIDE.bias)
    with pytest.raises(UserError, match=r"self.w is a tensor that was computed.*nn.Parameter"):
        checked(net)


def test_frozen_weights_are_no_low_learning_rate():
    net = mlp().requires_grad_(False)
    net[2].bias.requires_grad_(True)
    assert found(net).keys() == {"weights that don't move"}
    net[2].requires_grad_(True)
    assert not found(net)


def test_a_linear_network_needs_an_activation():
    assert "no activation" in found(mlp(act=nn.Identity))
    assert not found(nn.Linear(20, CLASSES))
    assert not found(mlp())


def test_what_hardly_sees_the_images_is_not_called_linear():
    # Rows of which few are not black, and a sequence that forgets its start.
    x = torch.zeros(16, 12, 5)
    x[3, -1] = 1
    y = torch.arange(16) % CLASSES
    x_early = torch.zeros(16, 12, 5)
    x_early[:, 0] = torch.randn(16, 5)
    for images in (x, x_early):
        net = nn.GRU(5, 8, batch_first=True)
        head = nn.Linear(8, CLASSES)
        rows = Net(lambda n, x: n.top(n.rows(x)[0][:, -1]), rows=net, top=head)
        rows.trunk, rows.head = nn.Identity(), nn.Identity()
        kinds = {v.kind for v in checked(rows, pairs=[(images, y)]).verdicts}
        assert "no activation" not in kinds


def test_running_statistics():
    def normed(momentum):
        norm = nn.BatchNorm1d(32, momentum=momentum)
        return nn.Sequential(nn.Linear(20, 32), norm, nn.ReLU(), nn.Linear(32, CLASSES))

    assert found(normed(0.0))["running statistics"].severity == "error"
    assert found(normed(1.0))["running statistics"].severity == "warning"
    measured = normed(0.0)
    measured[1].running_mean += 1
    untracked = normed(0.1)
    untracked[1] = nn.BatchNorm1d(32, track_running_stats=False)
    for healthy in (normed(0.1), normed(None), measured, untracked):
        assert not found(healthy)


@pytest.mark.parametrize("act", [nn.ReLU6, nn.Hardtanh])
def test_clipped_activations_of_unit_inputs_are_not_saturated(act):
    norm = nn.BatchNorm1d(32, affine=False)
    net = nn.Sequential(nn.Linear(20, 32), norm, act(), nn.Linear(32, CLASSES))
    assert not found(net)
    wide = nn.Sequential(nn.Linear(20, 32), norm, Times(20.0), act(), nn.Linear(32, CLASSES))
    assert "saturated" in found(wide)


class Times(nn.Module):
    """Multiplies by a number."""

    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, x):
        return x * self.by


def test_a_cut_graph_is_no_checkpoint():
    check = checked(mlp(), lambda o, y: functional.mse_loss(o.argmax(1) + 0.0 * o.sum(), y.float()))
    assert not any("checkpoint" in words for words in check.untested)


@pytest.mark.parametrize(
    ("loss", "advice"),
    [
        (lambda o, y: functional.cross_entropy(o, functional.one_hot(y, CLASSES)), "argmax"),
        (lambda o, y: functional.cross_entropy(y.float(), o), "output first"),
        (lambda o, y: functional.cross_entropy(o, y.int()), "int64"),
        (lambda o, y: functional.binary_cross_entropy(9 * o[:, 0], (y > 2).float()), "sigmoid"),
    ],
)
def test_a_loss_that_raises_is_explained(loss, advice):
    with pytest.raises(UserError, match=advice):
        checked(mlp(), loss)


def test_dropout_that_is_on_in_evaluation_mode():
    def dropped(training):
        return lambda net, x: net.head(functional.dropout(net.trunk(x).relu(), 0.5, training(net)))

    assert "outputs that differ" in found(Net(dropped(lambda net: True)))["wrong mode"].message
    assert not found(Net(dropped(lambda net: net.training)))


def test_a_reentrant_checkpoint_without_gradients_is_named():
    def forward(net, x):
        return net.head(checkpoint(lambda z: net.trunk(z).relu(), x, use_reentrant=True))

    verdict = found(Net(forward))["parameters without gradient"]
    assert "use_reentrant=False" in verdict.fix


def test_a_critic_whose_loss_starts_near_zero_has_no_high_rate():
    net, calls = mlp(outputs=1), itertools.count()
    first = float(net(batches()[0][0]).mean().detach())

    def critic(output, y):
        # Its adversary learns too, so it rises a little with every call.
        return output.mean() - first + 1e-6 + 0.01 * next(calls)

    def slow(parameters):
        return torch.optim.SGD(parameters, lr=1e-5)

    kinds = {v.kind for v in check_flow(net, critic, batches(), optimizer=slow, steps=4).verdicts}
    assert "learning rate too high" not in kinds


def test_a_loss_that_is_summed_by_hand():
    def summed(output, y):
        return 9 * functional.cross_entropy(output, y, reduction="none").sum() / 9

    def fast(parameters):
        return torch.optim.SGD(parameters, lr=0.3)

    check = check_flow(mlp(), summed, batches(), optimizer=fast, steps=6)
    assert "sums over 32 images" in check.verdicts[0].cause
