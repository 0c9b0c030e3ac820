"""Ranges of f, f' and gradients against dense searches, autograd and random networks."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.coursework.bounds.calculus import CALCULUS, calculus
from unmask.coursework.bounds.gradients import (
    REPORT,
    BoundedNet,
    LayerBox,
    activation_bounds,
    bounds_table,
    error_range,
    gradient_bounds,
    last_layer_range,
    uniform_layers,
)
from unmask.coursework.bounds.intervals import Box, Interval
from unmask.errors import UserError
from unmask.models.activations import ACTIVATIONS, SELU_ALPHA, SELU_SCALE
from unmask.sweep.spec import LOSSES

NAMES = sorted(ACTIVATIONS)
DENSE = torch.linspace(-30, 30, 600_001, dtype=torch.float64)

EXPRESSION_NAMES = {
    "exp": math.exp,
    "log": math.log,
    "tanh": math.tanh,
    "erf": math.erf,
    "sqrt": math.sqrt,
    "abs": abs,
    "pi": math.pi,
    "inf": math.inf,
    "Phi": lambda x: 0.5 * math.erfc(-x / math.sqrt(2)),
    "phi": lambda x: math.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    "sigma": lambda x: 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x)),
    "lam": SELU_SCALE,
    "alpha": SELU_ALPHA,
}


def value_of(expression, x):
    return eval(expression, {"__builtins__": {}}, {**EXPRESSION_NAMES, "x": x})


def test_every_activation_is_known():
    assert set(CALCULUS) == set(ACTIVATIONS)
    with pytest.raises(UserError, match="did you mean 'relu'"):
        calculus("relo")


@pytest.mark.parametrize("name", NAMES)
def test_formulas_are_the_functions(name):
    facts, f = CALCULUS[name], ACTIVATIONS[name]
    x = torch.linspace(-9.03, 9.01, 403, dtype=torch.float64, requires_grad=True)
    y = f.function(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    points = x.detach().numpy()
    np.testing.assert_allclose(
        [value_of(facts.formula, float(p)) for p in points], y.detach().numpy(), atol=1e-12
    )
    np.testing.assert_allclose(
        [value_of(facts.slope_formula, float(p)) for p in points], slope.numpy(), atol=1e-12
    )


@pytest.mark.parametrize("name", NAMES)
def test_extrema_hold_in_a_dense_search_and_are_met_where_they_say(name):
    facts, f = CALCULUS[name], ACTIVATIONS[name]
    assert facts.slope_low.value == pytest.approx(f.derivative_min, rel=1e-12, abs=1e-15)
    assert facts.slope_high.value == pytest.approx(f.derivative_max, rel=1e-12)
    assert abs(facts.lipschitz.value) == pytest.approx(f.lipschitz, rel=1e-12)
    for function, low, high in (
        (f.function, facts.low, facts.high),
        (f.derivative, facts.slope_low, facts.slope_high),
    ):
        values = function(DENSE)
        assert values.min() >= low.value - 1e-14
        assert values.max() <= high.value + 1e-14
        for extremum in (low, high):
            assert value_of(extremum.expression, None) == pytest.approx(extremum.value, rel=1e-14)
            near = (
                math.copysign(700.0, extremum.near) if math.isinf(extremum.near) else extremum.near
            )
            found = function(torch.tensor(near, dtype=torch.float64)).item()
            if math.isinf(extremum.value):
                assert found * math.copysign(1, extremum.value) > 5
            else:
                assert found == pytest.approx(extremum.value, abs=1e-7)
            if extremum.attained:
                assert found == pytest.approx(extremum.value, abs=1e-15)


@pytest.mark.parametrize("name", ["elu", "selu", "softplus", "tanh", "sigmoid", "lecun", "erf"])
def test_what_is_only_approached_is_never_met(name):
    facts, f = CALCULUS[name], ACTIVATIONS[name]
    near = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    near = near[near != 0]
    for function, low, high in (
        (f.function, facts.low, facts.high),
        (f.derivative, facts.slope_low, facts.slope_high),
    ):
        values = function(near)
        assert low.attained or values.min() > low.value
        assert high.attained or values.max() < high.value


@pytest.mark.parametrize("name", NAMES)
def test_the_lipschitz_constant_is_the_least(name):
    f, constant = ACTIVATIONS[name], CALCULUS[name].lipschitz.value
    generator = torch.Generator().manual_seed(0)
    a, b = 5 * torch.randn(2, 200_000, generator=generator, dtype=torch.float64)
    quotient = (f.function(a) - f.function(b)).abs() / (a - b).abs()
    assert quotient.max() <= constant * (1 + 1e-9)
    near = CALCULUS[name].lipschitz.near
    # Both points on the near side of SELU's kink, of which f' comes nearest to its supremum.
    near = -2e-6 if name == "selu" else near
    centre = torch.tensor(30.0 if math.isinf(near) else near, dtype=torch.float64)
    step = 1e-6
    steepest = (f.function(centre + step) - f.function(centre - step)) / (2 * step)
    assert steepest.abs() == pytest.approx(constant, rel=5e-6)


@pytest.mark.parametrize("name", NAMES)
def test_turns_are_where_the_slope_changes_sign(name):
    facts, f = CALCULUS[name], ACTIVATIONS[name]
    grid = DENSE[(DENSE.abs() < 8)]
    for function, turns in ((f.function, facts.turns), (f.derivative, facts.slope_turns)):
        values = function(grid)
        ways = torch.sign(torch.diff(values))
        ways[torch.diff(values).abs() < 1e-13] = 0
        moving = ways.nonzero().ravel()
        changes = moving[1:][ways[moving[1:]] != ways[moving[:-1]]]
        np.testing.assert_allclose(grid[changes].numpy(), sorted(turns), atol=2e-4)


def logits_of(probabilities):
    return torch.log(torch.as_tensor(probabilities, dtype=torch.float64))


def errors(logits, label, loss):
    logits = logits.clone().requires_grad_()
    y = logits.softmax(-1)
    target = torch.zeros_like(y)
    target[..., label] = 1
    energy = (
        -(target * logits.log_softmax(-1)).sum()
        if loss == "cross_entropy"
        else 0.5 * (target - y).square().sum()
    )
    return torch.autograd.grad(energy, logits)[0]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_error_ranges_hold_and_are_tight_in_a_dense_search(loss, classes):
    generator = torch.Generator().manual_seed(1)
    scale = torch.logspace(-2, 2, 100_000, dtype=torch.float64)[:, None]
    logits = scale * torch.randn(100_000, classes, generator=generator, dtype=torch.float64)
    found = errors(logits, 0, loss)
    # The extremes by share: one other class takes all the rest, or the true class has nothing.
    share = torch.linspace(1e-9, 1 - 1e-9, 3001, dtype=torch.float64)
    tiny = torch.full((3001, classes - 2), 1e-14, dtype=torch.float64)
    with_one = errors(logits_of(torch.cat([share[:, None], 1 - share[:, None], tiny], 1)), 0, loss)
    found = torch.cat([found, with_one])
    if classes > 2:
        none = torch.full((3001, 1), 1e-14, dtype=torch.float64)
        parts = [none, share[:, None], 1 - share[:, None], tiny[:, 1:]]
        found = torch.cat([found, errors(logits_of(torch.cat(parts, 1)), 0, loss)])
    for values, true_class in ((found[:, 0], True), (found[:, 1:], False), (found, None)):
        bounds = error_range(loss, classes, true_class=true_class)
        assert values.min() >= bounds.low - 1e-15
        assert values.max() <= bounds.high + 1e-15
        assert values.min() == pytest.approx(bounds.low, abs=1e-6)
        assert values.max() == pytest.approx(bounds.high, abs=1e-6)


def test_two_classes_meet_the_squared_errors_extremes():
    found = errors(logits_of([1 / 3, 2 / 3]), 0, "half_squared")
    np.testing.assert_allclose(found.numpy(), [-8 / 27, 8 / 27], rtol=1e-14)
    bounds = error_range("half_squared", 2)
    assert (bounds.low_closed, bounds.high_closed) == (True, True)
    assert not error_range("half_squared", 3).high_closed


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("inputs", [Interval(0, 1), Interval(-1, 2, False, False)])
def test_the_last_layers_range_is_met_by_gradients(loss, inputs):
    bounds = last_layer_range(inputs, loss, 4)
    generator = torch.Generator().manual_seed(2)
    extremes = []
    for end in (inputs.low, inputs.high):
        for confident in (40.0, math.log(2.0)):
            y = torch.full((3,), end, dtype=torch.float64)
            w = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
            b = torch.tensor([0.0, confident, -40, -40], dtype=torch.float64)
            energy = errors_energy(y @ w + b, loss)
            extremes.append(torch.autograd.grad(energy, w)[0])
    for _ in range(200):
        y = torch.empty(3, dtype=torch.float64).uniform_(
            inputs.low, inputs.high, generator=generator
        )
        w = (4 * torch.randn(3, 4, generator=generator, dtype=torch.float64)).requires_grad_()
        extremes.append(torch.autograd.grad(errors_energy(y @ w, loss), w)[0])
    found = torch.stack(extremes)
    assert found.min() >= bounds.low
    assert found.max() <= bounds.high
    assert max(-found.min() / -bounds.low, found.max() / bounds.high) == pytest.approx(1, abs=1e-6)


def errors_energy(logits, loss):
    y = logits.softmax(-1)
    if loss == "cross_entropy":
        return -logits.log_softmax(-1)[0]
    target = torch.zeros_like(y)
    target[0] = 1
    return 0.5 * (target - y).square().sum()


def test_the_documents_table_beside_the_careful_one():
    found = {name: activation_bounds(name) for name in REPORT}
    assert {name: str(b.one_layer) for name, b in found.items()} == {
        "relu": "(−∞, ∞)",
        "tanh": "(−1, 1)",
        "sigmoid": "(−0.25, 0.25)",
        "lecun": "(−∞, ∞)",
    }
    assert {name: str(b.claim.gradient_range) for name, b in found.items()} == {
        "relu": "[0, ∞)",
        "tanh": "[−1, 1]",
        "sigmoid": "[0, 0.25]",
        "lecun": "(−∞, ∞)",
    }
    assert str(found["lecun"].calculus.slope_range) == "(0.01, 1.1539]"
    assert str(found["sigmoid"].calculus.slope_range) == "(0, 0.25]"
    assert str(found["sigmoid"].last_layer["cross_entropy"]) == "(−1, 1)"
    assert str(found["tanh"].last_layer["half_squared"]) == "(−0.2963, 0.2963)"
    assert all(b.remarks for b in found.values())
    assert activation_bounds("gelu").claim is None


def test_intervals_multiply_with_their_ends():
    closed, opened = Interval(0, 2), Interval(-1, 3, False, False)
    assert closed * opened == Interval(-2, 6, False, False)
    assert Interval(0, 1) * Interval(0, 1, False, False) == Interval(0, 1, True, False)
    assert Interval(0, math.inf, True, False) * Interval(0, 1) == Interval(0, math.inf, True, False)
    assert -1.0 not in opened
    assert 0.0 in closed
    assert 2.0 in closed
    assert 2.1 not in closed
    with pytest.raises(ValueError, match="low <= high"):
        Interval(1, 0)


ENDS = st.tuples(st.floats(-3, 3), st.floats(0, 3), st.booleans(), st.booleans())


@given(ENDS, ENDS, st.floats(0, 1), st.floats(0, 1))
def test_products_lie_in_the_product(first, second, a, b):
    one, other = (
        Interval(low, low + width, left or width == 0, right or width == 0)
        for low, width, left, right in (first, second)
    )
    x, y = (i.low + share * (i.high - i.low) for i, share in ((one, a), (other, b)))
    product = one * other
    if x in one and y in other:
        assert product.low - 1e-12 <= x * y <= product.high + 1e-12
    corner = one.low * other.low
    if one.low_closed and other.low_closed:
        assert corner in product


def autograd_gradients(name, weights, biases, x, label, loss):
    f = ACTIVATIONS[name]
    weights = [w.clone().requires_grad_() for w in weights]
    y = x
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        v = y @ w + b
        y = f.function(v) if i < len(weights) - 1 else v
    target = torch.zeros(len(y), dtype=torch.float64)
    target[label] = 1
    energy = (
        -(target * y.log_softmax(0)).sum()
        if loss == "cross_entropy"
        else 0.5 * (target - y.softmax(0)).square().sum()
    )
    return [g.numpy() for g in torch.autograd.grad(energy, weights)]


@given(
    st.sampled_from(NAMES),
    st.sampled_from(LOSSES),
    st.integers(0, 4),
    st.sampled_from([0.01, 0.3, 2.0, 20.0]),
    st.integers(0, 2**31),
)
@settings(max_examples=150, deadline=None)
def test_random_networks_gradients_lie_in_their_bounds(name, loss, depth, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = [5, *[4] * depth, 3]
    layers = uniform_layers(sizes, scale, scale / 2)
    for label in (None, 1):
        bounds = gradient_bounds(name, layers, Box.full(5, -0.5, 1.0), loss=loss, label=label)
        for corners in (False, True):

            def draw(shape, size, corners=corners):
                u = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
                return size * (u.sign() if corners else u)

            weights = [draw(box.weights.low.shape, scale) for box in layers]
            biases = [draw(box.biases.low.shape, scale / 2) for box in layers]
            x = 0.25 + draw((5,), 0.75)
            found = autograd_gradients(name, weights, biases, x, 1, loss)
            for box, gradient in zip(bounds, found, strict=True):
                assert gradient in box


@given(st.sampled_from(NAMES), st.sampled_from(LOSSES), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_bounds_of_one_known_network_and_input_are_its_gradient(name, loss, seed):
    """Boxes of single points lose nothing but rounding."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(6, 5), (5, 5), (5, 4)]
    weights = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    biases = [torch.randn(s[1], generator=generator, dtype=torch.float64) for s in shapes]
    x = torch.rand(6, generator=generator, dtype=torch.float64)
    layers = [
        LayerBox(Box.points(w.numpy()), Box.points(b.numpy()))
        for w, b in zip(weights, biases, strict=True)
    ]
    bounds = gradient_bounds(name, layers, Box.points(x.numpy()), loss=loss, label=2)
    found = autograd_gradients(name, weights, biases, x, 2, loss)
    for box, gradient in zip(bounds, found, strict=True):
        assert gradient in box
        np.testing.assert_allclose(box.low, gradient, atol=1e-9)
        np.testing.assert_allclose(box.high, gradient, atol=1e-9)


def test_a_layer_without_hidden_ones_is_bounded_exactly():
    layers = uniform_layers([2, 2], 50.0, 50.0)
    (box,) = gradient_bounds("tanh", layers, Box.full(2, 0.0, 1.0))
    exact = last_layer_range(Interval(0, 1), "cross_entropy", 2)
    np.testing.assert_allclose([box.low.min(), box.high.max()], [exact.low, exact.high])


def test_bounds_shrink_with_the_boxes_and_survive_overflow():
    narrow = gradient_bounds("tanh", uniform_layers([8, 8, 8, 3], 0.1), Box.full(8, 0, 1))
    wide = gradient_bounds("tanh", uniform_layers([8, 8, 8, 3], 0.2), Box.full(8, 0, 1))
    for inner, outer in zip(narrow, wide, strict=True):
        assert inner.low in outer
        assert inner.high in outer
    for name in NAMES:
        huge = gradient_bounds(name, uniform_layers([4, 4, 4, 3], 1e200), Box.full(4, 0, 1))
        assert all(not np.isnan(box.low).any() and not np.isnan(box.high).any() for box in huge)


def test_what_has_no_range_is_refused():
    with pytest.raises(UserError, match="unknown loss"):
        error_range("squared", 10)
    with pytest.raises(UserError, match="classes to choose from"):
        error_range("cross_entropy", 1)
    with pytest.raises(ValueError, match="low <= high"):
        Box.full(3, 1.0, 0.0)


def test_the_table_holds_every_layer_and_shrinks_with_the_net():
    names = ("tanh", "sigmoid")
    table = bounds_table(names, BoundedNet(features=20, depth=4, width=8, classes=3))
    assert tuple(b.calculus.name for b in table.activations) == names
    for name in names:
        for loss in LOSSES:
            ranges = table.layers[name][loss]
            assert len(ranges) == 5
            assert all(r.low == pytest.approx(-r.high) for r in ranges[:-1])
    sigmoid, tanh = (table.layers[name]["cross_entropy"][0].high for name in ("sigmoid", "tanh"))
    # Four slopes of at most 1/4 against four of at most 1.
    assert sigmoid <= tanh / 4**4 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": -1}, "hidden layers"),
        ({"depth": 101}, "hidden layers"),
        ({"width": 0}, "units a layer"),
        ({"classes": 1}, "classes"),
        ({"features": 0}, "inputs"),
        ({"weight_bound": -1.0}, "weights need a bound"),
        ({"bias_bound": math.nan}, "biases need a bound"),
        ({"inputs": Interval(0, math.inf)}, "two finite bounds"),
    ],
)
def test_a_net_without_bounds_is_refused_in_one_line(wrong, message):
    with pytest.raises(UserError, match=message) as error:
        BoundedNet(**wrong)
    assert "\n" not in str(error.value)
