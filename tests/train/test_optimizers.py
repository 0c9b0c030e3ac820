"""Parameter groups, Muon, and fused optimisers against their plain selves."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from unmask.errors import UserError
from unmask.models.cnn import build
from unmask.train.config import OPTIMIZERS, FitConfig
from unmask.train.optimizers import descend, optimizers, orthogonalised


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_trainable_parameter_has_one_place_and_its_own_rate(name: str) -> None:
    network = build("whitened_cnn", {}, (3, 16, 16), 10)
    config = FitConfig(
        epochs=1, optimizer=name, rate=0.1, bias_rate=0.2, head_rate=0.3, weight_decay=0.5
    )
    made = optimizers(network, config)
    placed = [
        (id(p), g["peak"], g.get("weight_decay", 0))
        for o in made
        for g in o.param_groups
        for p in g["params"]
    ]
    decay = 0.0 if name.startswith("muon") else 0.5
    expected = []
    for parameter_name, p in network.named_parameters():
        if p.requires_grad and p.ndim == 1:
            expected.append((id(p), 0.2, 0.0))
        elif p.requires_grad:
            head = parameter_name == "head.weight"
            expected.append((id(p), 0.3 if head else 0.1, 0.5 if head else decay))
    assert sorted(placed) == sorted(expected)


def test_where_nothing_is_linear_the_convolutions_with_a_bias_are_the_head() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 1)
    )
    config = FitConfig(
        epochs=1, optimizer="muon_adamw", rate=0.1, bias_rate=0.2, head_rate=0.3, weight_decay=0.5
    )
    muon, rest = optimizers(network, config)
    assert [p is network[0].weight for g in muon.param_groups for p in g["params"]] == [True]
    assert isinstance(rest, torch.optim.AdamW)
    rates = {id(p): g["peak"] for g in rest.param_groups for p in g["params"]}
    assert rates[id(network[3].weight)] == 0.3
    assert {rates[id(p)] for p in network.parameters() if p.ndim == 1} == {0.2}


@pytest.mark.parametrize(("most", "length"), [(None, 10.0), (20.0, 10.0), (5.0, 5.0)])
def test_a_step_is_no_longer_than_the_most_of_the_gradient(
    most: float | None, length: float
) -> None:
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    sgd = [torch.optim.SGD([{"params": [p], "peak": 0.5}]) for p in parameters]
    # The gradient of both together is (6, 8), of length 10; the rate is 0.5 * 0.25.
    descend(sgd, 6 * parameters[0].sum() + 8 * parameters[1].sum(), 0.25, most_gradient=most)
    expected = -0.125 * length * torch.tensor([0.6, 0.8])
    torch.testing.assert_close(torch.cat([p.detach() for p in parameters]), expected)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_fused_updates_on_channels_last_weights_are_the_plain_ones(name: str) -> None:
    """Fused kernels walk flat memory, so weight, gradient and state must lie there alike."""

    def trained(*, fused: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        network = build("block_cnn", {"widths": [4, 8]}, (3, 8, 8), 3)
        network = network.to(memory_format=torch.channels_last if fused else torch.preserve_format)
        config = FitConfig(epochs=1, optimizer=name, rate=0.01, weight_decay=0.1)
        (optimizer,) = optimizers(network, config)
        for group in optimizer.param_groups:
            group["fused"] = fused
        x, y = torch.rand(16, 3, 8, 8), torch.arange(16) % 3
        for _ in range(5):
            optimizer.zero_grad()
            functional.cross_entropy(network(x), y).backward()
            optimizer.step()
        return network.state_dict()

    fused, plain = trained(fused=True), trained(fused=False)
    for key, value in plain.items():
        torch.testing.assert_close(fused[key], value, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("shape", [(16, 200), (200, 16), (30, 30)])
def test_muons_update_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    got = orthogonalised(matrix, steps=5)
    values = torch.linalg.svdvals(got)
    kept = s / s.norm() > 0.02
    assert values[kept].min() > 0.6
    assert values.max() < 1.3
    # It keeps the singular vectors: in their basis the update is diagonal.
    basis = u.T @ got @ v.T
    assert (basis - basis.diag().diag()).abs().max() < 1e-4


def test_muon_keeps_each_filter_matrix_at_the_norm_of_an_orthogonal_one() -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.Flatten(), nn.Linear(6, 2))
    muon, _ = optimizers(network, FitConfig(epochs=1, optimizer="muon", rate=0.1))
    for group in muon.param_groups:
        group["lr"] = 0.0
    network(torch.rand(4, 3, 3, 3)).sum().backward()
    muon.step()
    assert network[0].weight.norm().item() == pytest.approx(6**0.5, rel=1e-5)


def test_nothing_to_train_is_refused() -> None:
    network = nn.Linear(2, 2).requires_grad_(requires_grad=False)
    with pytest.raises(UserError, match="no parameter to train: got 2 parameters, all frozen"):
        optimizers(network, FitConfig(epochs=1))
