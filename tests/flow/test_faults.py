"""Faults that people post, each in its smallest form, and healthy neighbours, which get no word."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from made_up_clusters import CLASSES, Net
from unmask.errors import UserError
from unmask.flow.check import check_flow
from unmask.verdict import Verdict

Loss = Callable[..., torch.Tensor]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def batches(n: int = 6, size: int = 48) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(1)
    centres = 1.5 * torch.randn(CLASSES, 20, generator=g)
    pairs = []
    for _ in range(n):
        y = torch.randint(CLASSES, (size,), generator=g)
        pairs.append((centres[y] + torch.randn(size, 20, generator=g), y))
    return pairs


def adam(parameters):
    return torch.optim.Adam(parameters, lr=1e-3)


def mlp(*after: nn.Module, outputs: int = CLASSES) -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, outputs), *after)


def found(model, loss=functional.cross_entropy, pairs=None, optimizer=adam) -> dict[str, Verdict]:
    check = check_flow(model, loss, pairs or batches(), optimizer=optimizer, steps=5)
    return {v.kind: v for v in check.verdicts if v.severity != "note"}


def plain(net, x):
    return net.head(net.trunk(x).relu())


def without_gradient(net, x):
    with torch.no_grad():
        features = net.trunk(x).relu()
    return net.head(features)


def one_hot(loss):
    return lambda o, y: loss(o, functional.one_hot(y, CLASSES).float())


def minus_dice(p, t):
    return -2 * (p * t).sum() / (p.sum() + t.sum())


def minus_correlation(a, b):
    a, b = a - a.mean(), b - b.mean()
    return -(a * b).sum() / (a.norm() * b.norm() + 1e-8)


BEFORE = "activation before the loss"


@pytest.mark.parametrize(
    ("model", "loss", "kind"),
    [
        (lambda: mlp(nn.Softmax(1)), functional.cross_entropy, BEFORE),
        (lambda: mlp(nn.LogSoftmax(0)), functional.nll_loss, BEFORE),
        (lambda: mlp(nn.Sigmoid()), functional.cross_entropy, BEFORE),
        (lambda: mlp(nn.Tanh()), functional.cross_entropy, BEFORE),
        (lambda: mlp(nn.ReLU()), functional.cross_entropy, BEFORE),
        (lambda: mlp(nn.Softmax(1)), nn.CrossEntropyLoss(), BEFORE),
        (lambda: mlp(nn.Sigmoid()), one_hot(functional.binary_cross_entropy_with_logits), BEFORE),
        (mlp, functional.nll_loss, "wrong loss"),
        (lambda: mlp(nn.Softmax(1)), functional.nll_loss, "wrong loss"),
        (lambda: mlp(outputs=1), lambda o, y: functional.cross_entropy(o, y * 0), "wrong loss"),
        (
            lambda: mlp(outputs=1),
            lambda o, y: functional.binary_cross_entropy_with_logits(o, y.float()[:, None]),
            "wrong loss",
        ),
        (
            lambda: mlp(outputs=1),
            lambda o, y: functional.mse_loss(o[:, 0], y.float()),
            "wrong loss",
        ),
        (
            lambda: mlp(outputs=1),
            lambda o, y: functional.mse_loss(o, y.float() + 0.5),
            "shapes broadcast",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_what_the_loss_is_fed(model, loss, kind):
    verdict = found(model(), loss)[kind]
    assert verdict.severity == "error"
    assert verdict.fix


def test_the_line_of_the_loss_is_named():
    def loss(output, targets):
        return functional.cross_entropy(output, targets)

    line = loss.__code__.co_firstlineno + 1
    verdict = found(mlp(nn.Softmax(1)), loss)[BEFORE]
    assert verdict.location.endswith(f"test_faults.py:{line}")


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (mlp, functional.cross_entropy),
        # Taken twice it stays the same.
        (lambda: mlp(nn.LogSoftmax(1)), functional.cross_entropy),
        (lambda: mlp(nn.LogSoftmax(1)), functional.nll_loss),
        (lambda: mlp(nn.Sigmoid()), one_hot(functional.binary_cross_entropy)),
        (mlp, one_hot(functional.binary_cross_entropy_with_logits)),
        (mlp, one_hot(functional.cross_entropy)),
        (lambda: mlp(nn.Softmax(1)), one_hot(functional.mse_loss)),
        # A scale after the bound, as in cosine classifiers.
        (lambda: Net(lambda net, x: 10 * plain(net, x).tanh()), functional.cross_entropy),
        (mlp, lambda o, y: functional.cross_entropy(o, y) - 3),
        (mlp, lambda o, y: -(o.softmax(1)[torch.arange(len(y)), y]).mean()),
        (mlp, lambda o, y: functional.cross_entropy(o, y, reduction="sum")),
        (mlp, lambda o, y: functional.cross_entropy(o, y, label_smoothing=0.1)),
        (mlp, lambda o, y: minus_dice(o.softmax(1), functional.one_hot(y, CLASSES).float())),
        (mlp, lambda o, y: minus_correlation(o[:, 0], y.float())),
    ],
)
def test_healthy_losses_are_silent(model, loss):
    assert found(model(), loss) == {}


GRADIENT = "parameters without gradient"


@pytest.mark.parametrize(
    ("forward", "operation"),
    [
        (lambda net, x: net.head(net.trunk(x).relu().detach()), ".detach()"),
        (lambda net, x: net.head(net.trunk(x).relu().data), ".data"),
        (lambda net, x: net.head(torch.tensor(net.trunk(x).detach().numpy())), ".detach()"),
        (lambda net, x: net.head(net.trunk(x).round()), None),
        (without_gradient, "torch.no_grad()"),
    ],
)
def test_a_graph_that_is_cut(forward, operation):
    verdicts = found(Net(forward))
    if operation is None:
        # Rounding passes a gradient of zeros: nothing is cut, and nothing comes through.
        assert "vanishing" in verdicts
        return
    verdict = verdicts[GRADIENT]
    assert verdict.severity == "error"
    assert verdict.subject == "trunk"
    assert operation in verdict.cause
    assert "test_faults.py:" in verdict.location


def test_a_loss_without_a_path_to_the_model():
    def loss(output, targets):
        return functional.mse_loss(output.argmax(1).float().requires_grad_(), targets.float())

    verdicts = found(mlp(), loss)
    assert list(verdicts) == ["no graph"]
    verdict = verdicts["no graph"]
    assert verdict.severity == "error"
    assert "argmax" in verdict.cause
    assert verdict.location.endswith(f"test_faults.py:{loss.__code__.co_firstlineno + 1}")


def test_a_stop_of_the_gradient_that_is_meant():
    def simsiam(net, x):
        a, b = net.trunk(x), net.trunk(x + 0.1)
        return net.head(a.relu()) + 0 * (a * b.detach()).sum()

    assert found(Net(simsiam)) == {}
    assert found(Net(without_gradient, trunk=nn.Linear(20, 32).requires_grad_(False))) == {}


def test_a_layer_that_is_never_called():
    verdict = found(Net(plain, b=nn.Linear(3, 3)))[GRADIENT]
    assert (verdict.severity, verdict.subject) == ("warning", "b")
    assert "no part" in verdict.message


def test_layers_in_a_plain_list():
    hidden = [nn.Linear(32, 32), nn.Linear(32, 32)]

    def forward(net, x):
        x = net.trunk(x).relu()
        for layer in net.hidden:
            x = layer(x).relu()
        return net.head(x)

    verdict = found(Net(forward, hidden=hidden))["layers not registered"]
    assert (verdict.severity, verdict.subject) == ("error", "hidden")
    net = Net(plain)
    net.both = [net.trunk, net.head]
    assert found(net) == {}


def test_an_optimiser_that_lacks_parameters():
    held = Net(plain)
    verdict = found(held, optimizer=torch.optim.Adam(held.trunk.parameters()))
    verdict = verdict["parameters in no optimiser"]
    assert verdict.severity == "error"
    assert "lacks 2 of 4 trainable tensors: head.weight, head.bias" in verdict.message
    # The head alone may be trained on purpose.
    verdict = found(held, optimizer=torch.optim.Adam(held.head.parameters()))
    assert verdict["parameters in no optimiser"].severity == "warning"


def test_a_parameter_in_two_groups_and_one_that_does_not_move():
    net = mlp()
    still = torch.optim.SGD(net.parameters(), lr=0.0)
    verdict = found(net, optimizer=still)["weights that don't move"]
    assert verdict.cause == "the learning rate is 0"
    assert "learning rate too low" not in found(net, optimizer=still)


def test_weight_decay_that_drowns_the_gradient():
    def decaying(parameters):
        return torch.optim.SGD(parameters, lr=1e-3, weight_decay=50.0)

    assert "weight decay too large" in found(mlp(), optimizer=decaying)
    assert found(mlp(), optimizer=lambda p: torch.optim.AdamW(p, weight_decay=0.1)) == {}


def test_weight_decay_is_not_blamed_where_the_gradient_is_lost():
    layers = [layer for _ in range(16) for layer in (nn.Linear(32, 32), nn.Sigmoid())]
    net = nn.Sequential(nn.Linear(20, 32), nn.Sigmoid(), *layers, nn.Linear(32, CLASSES))
    verdicts = found(net, optimizer=lambda p: torch.optim.Adam(p, 1e-3, weight_decay=0.1))
    assert verdicts["vanishing"].severity == "error"
    assert "weight decay too large" not in verdicts


@pytest.mark.parametrize(
    ("width", "rate", "severity"),
    [(32, 0.95, "error"), (32, 1.0, "error"), (2048, 0.9, "warning"), (32, 0.5, None)],
)
def test_dropout_that_leaves_hardly_a_unit(width, rate, severity):
    net = nn.Sequential(
        nn.Linear(20, width), nn.ReLU(), nn.Dropout(rate), nn.Linear(width, CLASSES)
    )
    verdicts = found(net)
    if severity is None:
        assert verdicts == {}
        return
    verdict = verdicts["dropout too strong"]
    assert (verdict.severity, verdict.subject) == (severity, "2")
    assert not {"vanishing", "constant outputs", "learning rate too high"} & set(verdicts)


def test_normalisation_that_shrinks_the_signal_is_named_in_the_fix():
    layers = [
        layer
        for _ in range(20)
        for layer in (nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8), nn.SiLU())
    ]
    net = nn.Sequential(
        nn.Unflatten(1, (5, 2, 2)),
        nn.Conv2d(5, 8, 1),
        nn.BatchNorm2d(8),
        *layers,
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    )
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.01)
    worst = next(iter(found(net).values()))
    assert worst.severity == "error"
    assert "normalisation layers with 1: their RMS is 0.0" in worst.fix


@pytest.mark.parametrize(
    ("forward", "operation"),
    [
        (lambda net, x: net.head((net.trunk(x) * 0).sqrt()), "sqrt"),
        (lambda net, x: net.head(net.trunk(x) * 0).log(), "log"),
        (lambda net, x: net.head((z := net.trunk(x) * 0) / z.norm(dim=1, keepdim=True)), "div"),
        (
            lambda net, x: net.head(
                net.trunk(x).masked_fill(x.new_ones(1).bool(), -math.inf).softmax(1)
            ),
            "softmax",
        ),
        (lambda net, x: net.head((200 + net.trunk(x)).exp()), "exp"),
        (
            lambda net, x: net.head((net.trunk(x) * 0).norm(dim=1, keepdim=True) + net.trunk(x)),
            None,
        ),
    ],
)
def test_the_operation_that_makes_nan(forward, operation):
    verdicts = found(Net(forward))
    if operation is None:
        assert "not a number" not in verdicts
        return
    verdict = verdicts["not a number"]
    assert operation in verdict.message
    assert "test_faults.py:" in verdict.location
    assert not {"diverged", "learning rate too high"} & set(verdicts)


def test_nan_in_the_data_is_the_datas():
    x, y = batches(1)[0]
    x[0, 0] = math.nan
    assert list(found(mlp(), pairs=[(x, y)])) == ["bad data"]
    (verdict,) = found(mlp(), pairs=[(x.fill_(math.inf), y)]).values()
    assert verdict.kind == "bad data"
    assert "NaN or infinity" in verdict.message


def test_two_codes_that_are_the_same_by_chance_are_no_bad_data():
    first, *rest = [(x[:2], y[:2]) for x, y in batches(8)]
    x, y = first
    same = (x[:1].repeat(2, 1), y)
    once = check_flow(mlp(), functional.cross_entropy, [same], optimizer=adam, steps=1)
    assert "bad data" not in {v.kind for v in once.verdicts}
    assert "bad data" not in found(mlp(), pairs=[same, *rest])
    assert "all images" in found(mlp(), pairs=[same] * 8)["bad data"].message


def test_labels():
    pairs = batches(8)
    assert "labels constant" in found(mlp(), pairs=[(x, y * 0 + 2) for x, y in pairs])
    rare = [(x, (y == 0).long() * (torch.arange(len(y)) < 6)) for x, y in pairs]
    assert "always predicting" in found(mlp(), pairs=rare)["labels imbalanced"].message
    ordered = sorted(
        zip(*map(torch.cat, zip(*pairs, strict=True)), strict=True), key=lambda p: p[1]
    )
    blocks = [ordered[i : i + 48] for i in range(0, len(ordered), 48)]
    by_class = [(torch.stack([x for x, _ in b]), torch.stack([y for _, y in b])) for b in blocks]
    assert "batches sorted by class" in found(mlp(), pairs=by_class)
    shuffled = [(x, y[torch.randperm(len(y))]) for x, y in pairs]
    assert found(mlp(), pairs=shuffled)["labels unrelated to the images"].severity == "warning"
    assert found(mlp(), pairs=pairs) == {}


def test_labels_of_which_most_are_the_same_may_look_unrelated():
    """Where two of three are the same, a fit to a few hundred rows hardly beats that."""
    g = torch.Generator().manual_seed(0)
    pairs = []
    for _ in range(10):
        x = torch.randn(64, 20, generator=g)
        noise = torch.randn(64, generator=g)
        pairs.append((x, (x[:, :4].sum(1) + 6 * noise > 3.4).long()))
    assert "labels unrelated to the images" not in found(mlp(), pairs=pairs)


def test_images_that_are_mixed():
    class Rows(nn.Module):
        def __init__(self, batch_first: bool) -> None:
            super().__init__()
            self.lstm = nn.LSTM(5, 16, batch_first=batch_first)
            self.head = nn.Linear(16, CLASSES)

        def forward(self, x):
            return self.head(self.lstm(x.unflatten(1, (4, 5)))[0][:, -1])

    assert "images mixed" in found(Rows(batch_first=False))
    assert found(Rows(batch_first=True)) == {}
    normed = nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, CLASSES))
    assert found(normed) == {}


def test_healthy_models_that_look_odd():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.gate = nn.Linear(20, 20), nn.Linear(20, 1)
            self.head = nn.Linear(20, CLASSES)

        def forward(self, x):
            h = self.body(x).relu()
            return self.head(h * torch.sigmoid(self.gate(h)))

    class Cell(nn.Module):
        """Reads a black row before the others."""

        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.RNNCell(5, 32), nn.Linear(32, CLASSES)

        def forward(self, x):
            state = None
            for row in (torch.zeros(len(x), 5), *x.unflatten(1, (4, 5)).unbind(1)):
                state = self.cell(row, state)
            return self.head(state)

    assert found(Gated()) == {}
    assert found(Cell()) == {}
    # The last batch of an epoch may hold one image.
    assert found(mlp(), pairs=[*batches(4), *batches(1, 1)]) == {}


@pytest.mark.parametrize(
    ("model", "loss", "kind"),
    [
        # Each was told as a signal or as a rate once.
        (mlp, functional.nll_loss, "wrong loss"),
        (mlp, lambda o, y: -functional.cross_entropy(o, y), "wrong loss"),
        (lambda: mlp(outputs=1), lambda o, y: functional.cross_entropy(o, y * 0), "wrong loss"),
        (
            lambda: mlp(nn.Softmax(1), outputs=1),
            lambda o, y: functional.binary_cross_entropy(o, (y > 2).float()[:, None]),
            BEFORE,
        ),
    ],
)
def test_the_cause_is_told_before_what_it_brings_about(model, loss, kind):
    verdicts = found(model(), loss)
    assert next(iter(verdicts)) == kind
    assert not {"exploding", "vanishing"} & set(verdicts)
    assert not {"learning rate too high", "learning rate too low"} & set(verdicts)


def test_a_sum_with_the_rate_of_a_mean():
    def loss(output, targets):
        return functional.cross_entropy(output, targets, reduction="sum")

    verdict = found(mlp(), loss, optimizer=lambda p: torch.optim.SGD(p, 0.1))
    (verdict,) = verdict.values()
    assert "sums over 48 images" in verdict.cause
    assert "mean" in verdict.fix


@pytest.mark.parametrize(
    ("model", "change", "do"),
    [
        (mlp, lambda x, y: (x, y.float()), "y.long()"),
        (mlp, lambda x, y: (x, y + 1), "subtract 1"),
        (mlp, lambda x, y: (x, y[:, None]), "y.squeeze(1)"),
        (mlp, lambda x, y: (x.numpy(), y.numpy()), "torch.from_numpy"),
        (
            lambda: nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.Linear(32, CLASSES)),
            lambda x, y: (x[:1], y[:1]),
            "drop_last=True",
        ),
    ],
)
def test_what_torch_refuses_is_told_with_what_to_do(model, change, do):
    with pytest.raises(UserError) as caught:
        found(model(), pairs=[change(*batches(1)[0])])
    assert do in str(caught.value)
    assert "\n" not in str(caught.value)


def test_side_branches_that_are_small_by_design():
    class Branched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(20, 32)
            self.blocks = nn.ModuleList(nn.Linear(32, 32) for _ in range(6))
            self.scales = nn.Parameter(1e-6 * torch.ones(6, 32))
            self.gate = nn.Linear(32, 1)
            self.table = nn.Parameter(torch.zeros(9, 9))
            self.head = nn.Linear(32, CLASSES)

        def forward(self, x):
            x = self.stem(x)
            for scale, block in zip(self.scales, self.blocks, strict=True):
                x = x + scale * block(x).relu() + self.table.mean()
            x = x * self.gate(x).sigmoid()
            return self.head(x)

    assert found(Branched()) == {}


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_regions_are_measured_around(reentrant):
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(20, 32)
            self.block = nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 32))
            self.head = nn.Linear(32, CLASSES)

        def forward(self, x):
            x = self.stem(x).relu()
            return self.head(checkpoint(self.block, x, use_reentrant=reentrant))

    assert {k for k, v in found(Checkpointed()).items() if v.severity == "error"} == set()


def test_outputs_that_are_no_tensor_are_unwrapped():
    class Output(dict):
        pass

    for wrap in (
        lambda z: {"logits": z},
        lambda z: (z, None),
        lambda z: Output(loss=None, logits=z),
    ):
        assert found(Net(lambda net, x, wrap=wrap: wrap(plain(net, x)))) == {}


class Answer:
    """An output that is no tensor."""

    def __init__(self, name: str, scores: Tensor) -> None:
        setattr(self, name, scores)


@pytest.mark.parametrize(
    ("name", "shift", "words"),
    [("logits", 1, "subtract 1"), ("scores", 0, "forward returns Answer")],
)
def test_an_output_that_the_loss_does_not_take(name, shift, words):
    model = Net(lambda net, x: Answer(name, net.head(net.trunk(x))))
    pairs = [(x, y + shift) for x, y in batches()]
    with pytest.raises(UserError, match=words):
        check_flow(model, functional.cross_entropy, pairs)


def test_what_was_not_tested_is_said():
    check = check_flow(mlp(), functional.cross_entropy, batches(1)[0])
    assert any("no optimiser" in words for words in check.untested)
    assert any("labels" in words for words in check.untested)


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(40, 16, padding_idx=0), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.words(x)).movedim(-1, 1)


class Translator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.source, self.words = nn.Embedding(40, 16), nn.Embedding(40, 16)
        self.head = nn.Linear(16, 40)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        source, words = x.chunk(2, dim=1)
        both = self.words(words) + self.source(source).mean(1, keepdim=True)
        return self.head(both).movedim(-1, 1)


@pytest.mark.parametrize("ignored", [0, -100])
def test_a_class_that_is_left_out_as_padding(ignored: int) -> None:
    x = torch.randint(1, 40, (32, 9))
    loss = nn.CrossEntropyLoss(ignore_index=ignored)
    kinds = {v.kind for v in check_flow(Tagger(), loss, (x, x % 3)).verdicts}
    assert ("wrong loss" in kinds) == (ignored == 0)


@pytest.mark.parametrize("later", [0, 1])
def test_a_decoder_is_given_its_targets(later: int) -> None:
    words = torch.randint(1, 40, (32, 8))
    x = torch.cat([torch.randint(1, 40, (32, 7)), words[:, 1 - later : 8 - later]], 1)
    loss = nn.CrossEntropyLoss()
    kinds = {v.kind for v in check_flow(Translator(), loss, (x, words[:, 1:])).verdicts}
    assert ("target leakage" in kinds) == (later == 0)


@pytest.mark.parametrize(("several", "told"), [(True, True), (False, False)])
def test_softmax_where_an_image_has_several_classes(several: bool, told: bool) -> None:
    x = torch.rand(32, 20)
    labels = torch.arange(32) % 10
    y = functional.one_hot(labels, 10).float()
    y += several * functional.one_hot((labels + 3) % 10, 10)
    model = nn.Sequential(nn.Linear(20, 10), nn.Softmax(1))
    kinds = {v.kind for v in check_flow(model, functional.binary_cross_entropy, (x, y)).verdicts}
    assert (BEFORE in kinds) == told


@pytest.mark.parametrize(
    "loss",
    [
        functional.binary_cross_entropy,
        functional.binary_cross_entropy_with_logits,
        functional.cross_entropy,
    ],
)
@pytest.mark.parametrize("swapped", [True, False])
def test_outputs_and_targets_change_places(
    loss: Callable[..., torch.Tensor], swapped: bool
) -> None:
    x, y = torch.rand(32, 20), functional.one_hot(torch.arange(32) % 10, 10).float()
    last = nn.Sigmoid() if loss is functional.binary_cross_entropy else nn.Identity()
    model = nn.Sequential(nn.Linear(20, 10), last)
    called = (lambda output, target: loss(target, output)) if swapped else loss
    verdicts = check_flow(model, called, (x, y)).verdicts
    assert any("targets first" in v.message for v in verdicts) == swapped


@pytest.mark.parametrize(
    ("ones", "weight", "severity"),
    [
        (0.5, None, None),
        (0.25, None, None),
        (0.05, None, "warning"),
        (0.05, 19.0, None),
        (0.2, 0.2, "error"),
        (0.8, 5.0, "error"),
        (0.8, 0.25, None),
    ],
)
def test_two_classes_of_which_one_is_rare(
    ones: float, weight: float | None, severity: str | None
) -> None:
    n = 400
    x, y = torch.rand(n, 20), (torch.arange(n) < ones * n).float()[torch.randperm(n), None]
    heavier = None if weight is None else torch.tensor([weight])
    loss = nn.BCEWithLogitsLoss(pos_weight=heavier)
    verdicts = check_flow(nn.Linear(20, 1), loss, (x, y)).verdicts
    found = next((v for v in verdicts if v.kind == "labels imbalanced"), None)
    assert (found.severity if found else None) == severity
