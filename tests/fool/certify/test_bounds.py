"""Bounds against sampling, exact enumeration, mixed-integer programs and closed forms."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import branched, minimum_by_milp, minimum_by_patterns, mlp, within
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.fool.certify.bounds import (
    crown,
    differences,
    interval_differences,
    intervals,
    lower_bounds,
)
from unmask.fool.certify.network import Network
from unmask.fool.certify.region import Region
from unmask.fool.certify.relaxation import CURVATURES, piecewise, smooth
from unmask.fool.certify.slopes import optimised
from unmask.models.cnn import build

ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.GELU, nn.SELU)


def images(seed: int, shape: tuple[int, ...], count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *shape, generator=generator, dtype=torch.float64)


def all_bounds(net: nn.Module, region: Region) -> tuple[list[Tensor], Tensor]:
    """IBP's, CROWN's with IBP's boxes, CROWN's and alpha-CROWN's; and sampled differences."""
    network = Network.of(net, tuple(region.images.shape[1:]))
    labels = torch.zeros(len(region), dtype=torch.int64)
    c = differences(labels, network.classes, region.images)
    boxes, better = intervals(network, region), crown(network, region)
    found = [interval_differences(boxes, c), lower_bounds(boxes, c), lower_bounds(better, c)]
    found.append(optimised(better, c, steps=6)[0])
    exact = net.double()
    with torch.no_grad():
        logits = torch.stack([exact(x) for x in within(region, 60)])
    sampled = (c[None] @ logits[..., None]).squeeze(-1)
    inside = (logits >= better.output.lower).all() and (logits <= better.output.upper).all()
    assert inside
    return found, sampled.amin(0)


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(
    act=st.sampled_from(ACTIVATIONS),
    norm=st.sampled_from(["linf", "l2"]),
    seed=st.integers(0, 10_000),
    eps=st.sampled_from([0.003, 0.05, 0.3]),
)
def test_no_image_of_the_region_is_below_a_bound(
    act: type[nn.Module], norm: str, seed: int, eps: float
) -> None:
    net = branched(seed, act) if seed % 2 else mlp(seed, act=act)
    shape = (2, 5, 5) if seed % 2 else (1, 2, 2)
    found, sampled = all_bounds(net, Region(images(seed, shape), eps, norm))
    for bound in found:
        assert (bound <= sampled).all()
    ibp, _, full, alpha = found
    assert (full >= ibp - 1e-6 * (1 + ibp.abs())).all()
    assert (alpha >= full).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["document_mnist", "document_masks", "block_cnn", "stepped_cnn"])
def test_our_own_networks_have_bounds(name: str) -> None:
    torch.manual_seed(3)
    settings = {"widths": [3, 4]} | ({"dropout": [0.1, 0.1]} if name == "document_masks" else {})
    if name == "stepped_cnn":
        settings = {"steps": [[3, 4, 2], [4, 4, 2]], "normalised": True}
    if name != "block_cnn":
        settings["hidden"] = 6
    net = build(name, settings, (1, 8, 8), 2).eval()
    found, sampled = all_bounds(net, Region(images(0, (1, 8, 8)), 0.02))
    for bound in found:
        assert (bound <= sampled).all()
    # The bounds are close where the region is small.
    assert (sampled - found[-1] < 0.05 + 0.5 * sampled.abs()).all()


def test_bounds_meet_the_network_as_the_region_shrinks() -> None:
    net = branched(1, nn.SiLU)
    x = images(4, (2, 5, 5))
    found, _ = all_bounds(net, Region(x, 1e-9))
    with torch.no_grad():
        logits = net(x)
    for bound in found:
        np.testing.assert_allclose(bound, logits[:, :1] - logits[:, 1:], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_bounds_are_below_the_exact_minimum(seed: int) -> None:
    net = mlp(seed, (4, 4, 3, 3))
    region = Region(images(seed, (1, 2, 2), 1), 0.2)
    found, _ = all_bounds(net, region)
    low, high = (v.flatten().numpy() for v in (region.box.lower, region.box.upper))
    for i, c in enumerate(([1.0, -1.0, 0.0], [1.0, 0.0, -1.0])):
        exact = minimum_by_patterns(net, low, high, np.array(c))
        assert minimum_by_milp(net, low, high, np.array(c)) == pytest.approx(exact, abs=1e-6)
        for bound in found:
            assert bound[0, i] <= exact + 1e-9


def test_a_linear_model_in_l2_has_a_closed_form() -> None:
    net = mlp(0, (6, 3))
    x = torch.full((1, 1, 2, 3), 0.5, dtype=torch.float64)
    found, _ = all_bounds(net, Region(x, 0.3, "l2"))
    weight = net[1].weight.detach()
    with torch.no_grad():
        logits = net(x)[0]
    for i in (1, 2):
        known = logits[0] - logits[i] - 0.3 * (weight[0] - weight[i]).norm()
        assert found[2][0, i - 1] == pytest.approx(float(known), abs=1e-5)


def test_in_l2_pixels_stay_in_range() -> None:
    # Half of the ball lies outside [0, 1]: the minimum over ball and box is known.
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False)).double().eval()
    net[1].weight.data = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    x = torch.tensor([[[[0.0, 0.5]]]], dtype=torch.float64)
    found, _ = all_bounds(net, Region(x, 0.3, "l2"))
    assert found[2][0, 0] == pytest.approx(0.2, abs=1e-5)
    assert found[2][0, 0] <= 0.2


def test_boxes_hold_the_exact_interval_in_rational_arithmetic() -> None:
    net = mlp(7, (4, 6, 3))
    region = Region(images(7, (1, 2, 2), 1), 0.1)
    relaxed = intervals(Network.of(net, (1, 2, 2)), region)
    lower = [Fraction(v) for v in region.box.lower.flatten().tolist()]
    upper = [Fraction(v) for v in region.box.upper.flatten().tolist()]
    layers = [m for m in net.modules() if isinstance(m, nn.Linear)]
    for i, layer in enumerate(layers):
        low, high = [], []
        for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True):
            w = [Fraction(v) for v in row]
            ends = [(a * l, a * u) for a, l, u in zip(w, lower, upper, strict=True)]
            low.append(Fraction(bias) + sum(min(e) for e in ends))
            high.append(Fraction(bias) + sum(max(e) for e in ends))
        zero = Fraction(0)
        last = i == len(layers) - 1
        lower = low if last else [max(v, zero) for v in low]
        upper = high if last else [max(v, zero) for v in high]
    box = relaxed.output
    for l, u, mine, above in zip(
        lower, upper, box.lower[0].tolist(), box.upper[0].tolist(), strict=True
    ):
        assert Fraction(mine) <= l
        assert u <= Fraction(above)
        assert float(l) == pytest.approx(mine, abs=1e-6)


@given(
    name=st.sampled_from([*sorted(CURVATURES), "relu", "leaky"]),
    ends=st.tuples(st.floats(-8, 8), st.floats(-8, 8)),
    tilt=st.floats(-1.5, 1.5),
)
def test_lines_are_sound(name: str, ends: tuple[float, float], tilt: float) -> None:
    curve = (
        piecewise({"relu": 0.0, "leaky": 0.3}[name], 1.0)
        if name in ("relu", "leaky")
        else smooth(name)
    )
    low, high = (torch.tensor([v], dtype=torch.float64) for v in sorted(ends))
    x = torch.linspace(float(low), float(high), 801, dtype=torch.float64)
    values = curve.activation.function(x)
    lines = curve.lines(low, high)
    assert (lines.lower_slope * x + lines.lower_offset <= values + 1e-12).all()
    assert (lines.upper_slope * x + lines.upper_offset >= values - 1e-12).all()
    slope = torch.full_like(low, tilt)
    for above in (False, True):
        line = slope * x + curve.offset(slope, low, high, above=above)
        assert ((line >= values - 1e-12) if above else (line <= values + 1e-12)).all()
    least, most = curve.image(low, high)
    assert (least <= values + 1e-12).all()
    assert (most >= values - 1e-12).all()


class Odd(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.odd = layer
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.odd(x))
        return logits


class Divided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x / (1 + x)).flatten(1)


class Mixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + x.flip(0)).flatten(1)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Odd(nn.LayerNorm(2)), "odd, LayerNorm"),
        (Odd(nn.Softplus(threshold=1)), "odd, Softplus.*threshold=1"),
        (Odd(nn.Upsample(scale_factor=1, mode="bicubic")), "odd, Upsample.*bicubic"),
        (Odd(nn.Sequential(nn.Identity(), nn.GroupNorm(1, 1))), "odd.1, GroupNorm"),
        (torch.jit.script(nn.Flatten()), "TorchScript"),
        (Divided(), "operation truediv: two tensors"),
        (Mixed(), "operation flip: it mixes the images"),
        (Branching(), "can't be traced"),
        (nn.Conv2d(1, 1, 1), "one logit a class"),
        (nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), "doesn't run on images"),
    ],
)
def test_what_has_no_bounds_is_named(net: nn.Module, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Network.of(net.eval(), (1, 2, 2))


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(UserError, match=r"training mode.*model\.eval"):
        Network.of(branched(0).train(), (2, 5, 5))


def test_bounds_whose_time_is_over_are_those_of_intervals() -> None:
    region = Region(images(3, (2, 5, 5)), 0.1, "linf")
    network = Network.of(branched(0).double(), (2, 5, 5))
    c = differences(torch.zeros(2, dtype=torch.int64), network.classes, region.images)
    plain, late = intervals(network, region), crown(network, region, until=0.0)
    whole = crown(network, region)
    for place, box in plain.inputs.items():
        torch.testing.assert_close(late.inputs[place].lower, box.lower)
        torch.testing.assert_close(late.inputs[place].upper, box.upper)
        assert (whole.inputs[place].lower >= box.lower - 1e-5).all()
    found, _ = optimised(late, c, steps=50, until=0.0)
    torch.testing.assert_close(found, lower_bounds(late, c))
