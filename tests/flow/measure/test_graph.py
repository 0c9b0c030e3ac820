"""graph: the last operation before a loss, by torch's own names and by hand."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from unmask.flow.measure.calls import is_users, loss_call
from unmask.flow.measure.graph import broadcast_in, last_operation, scrambled_in

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
W = nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(1)))
LAYER = nn.Linear(4, 3)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: LAYER(X).softmax(-1), ("softmax", 1, 3)),
        (lambda: LAYER(X).softmax(0)[:, :2], ("softmax", 0, 6)),
        (lambda: nn.Linear(4, 1)(X).softmax(1).squeeze(1), ("softmax", 1, 1)),
        (lambda: LAYER(X).log_softmax(1), ("log_softmax", 1, 3)),
        (lambda: LAYER(X).sigmoid().clamp(1e-6, 1 - 1e-6), ("sigmoid", None, None)),
        (lambda: LAYER(X).tanh(), ("tanh", None, None)),
        (lambda: LAYER(X)[:, 0], ("scores", None, None)),
        (lambda: nn.Conv1d(1, 3, 4)(X[:, None]).flatten(1), ("scores", None, None)),
        (lambda: functional.normalize(X * W[:1]) @ functional.normalize(W).T, ("cosine",)),
        (lambda: 10 * functional.normalize(X * W[:1]) @ functional.normalize(W).T, (None,)),
        (lambda: LAYER(X).softmax(1) @ LAYER(X).softmax(1).T, (None,)),
        (lambda: LAYER(X).exp(), (None,)),
        (lambda: X, (None,)),
    ],
)
def test_last_operation(made, expected):
    assert last_operation(made())[: len(expected)] == expected


def test_a_softmax_by_hand_is_known_by_its_sums():
    scores = LAYER(X)
    y = torch.arange(6) % 3
    parts = scores.exp() / scores.exp().sum(1, keepdim=True)

    def normalised(name, output):
        loss = getattr(functional, name)(output, y)
        return loss_call(name, output, y, {}, loss).normalised

    assert normalised("cross_entropy", parts) == 1
    assert normalised("cross_entropy", scores) is None
    assert normalised("nll_loss", parts.log()) == 1
    assert normalised("nll_loss", scores.softmax(0).log()) == 0
    assert normalised("nll_loss", scores) is None


def test_a_broadcast_difference():
    output = nn.Linear(4, 1)(X)
    assert broadcast_in(((output - X[:, 0]) ** 2).mean()) == ((6, 1), (6,))
    assert broadcast_in(((output[:, 0] - X[:, 0]) ** 2).mean()) is None
    # Where both sides carry a gradient, pairs are meant.
    assert broadcast_in((output - output.T).square().mean()) is None


def test_the_scripts_of_installed_commands_are_nobodys_code(tmp_path: Path) -> None:
    command = Path(sysconfig.get_path("scripts")) / "unmask"
    assert not is_users(str(command))
    assert is_users(str(tmp_path / "train.py"))


@pytest.mark.parametrize("places", [(6, 5), (9,)])
@pytest.mark.parametrize("linear", [True, False])
def test_rows_hold_the_classes_of_one_place_or_are_scrambled(places, linear):
    """Scores whose value is their class: a row is in order if it counts up."""
    classes = 3
    kind = nn.Linear if linear else (nn.Conv1d, nn.Conv2d)[len(places) - 1]
    layer = kind(2, classes) if linear else kind(2, classes, 1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.arange(classes))
    if linear:
        scores = layer(torch.zeros(4, *places, 2)).movedim(-1, 1)
    else:
        scores = layer(torch.zeros(4, 2, *places))
    for rows in (
        scores.reshape(-1, classes),
        scores.flatten(2).reshape(-1, classes),
        scores.reshape(-1, classes).log_softmax(1),
        scores.movedim(1, -1).reshape(-1, classes),
        scores.flatten(2).transpose(1, 2).reshape(-1, classes),
        scores.movedim(0, 1).movedim(0, -1).reshape(-1, classes),
        scores.movedim(1, -1).flatten(1, -2).reshape(-1, classes).log_softmax(1),
    ):
        in_order = torch.allclose(rows.diff(dim=1), torch.ones(1))
        assert (scrambled_in(rows) is None) == in_order


def test_a_product_with_weights_of_another_shape():
    output = nn.Linear(4, 1)(X)
    weights = X[:, :1]
    flat = output[:, 0].exp()
    loss = (weights * flat + (1 - weights) * flat.clamp(min=0.5)).mean()
    assert broadcast_in(loss) == ((6,), (6, 1))
    surrogate = torch.min(flat * weights, flat.clamp(0.8, 1.2) * weights)
    assert broadcast_in(-surrogate.mean()) == ((6,), (6, 1))
    assert broadcast_in((flat * weights[:, 0]).mean()) is None
    assert broadcast_in((output * weights).mean()) is None
    # Of pairs both sides carry a gradient, and a table of n x n is one of pairs already.
    assert broadcast_in((output * flat).mean()) is None
    assert broadcast_in((torch.eye(6) * flat).mean()) is None
