"""Gaussian expectations against closed forms and adaptive quadrature."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from unmask.errors import UserError
from unmask.flow.theory import nonlinearity
from unmask.models.activations import ACTIVATIONS

C = np.unique(np.concatenate([np.linspace(-1, 1, 401), 1 - np.geomspace(1e-9, 0.1, 60)]))
KINKED = {
    "ReLU6": (torch.nn.ReLU6(), (6.0,)),
    "Hardtanh": (torch.nn.Hardtanh(), (-1.0, 1.0)),
    "Hardswish": (torch.nn.Hardswish(), (-3.0, 3.0)),
    "Softshrink": (torch.nn.Softshrink(), (-0.5, 0.5)),
    "Threshold": (torch.nn.Threshold(0.7, -2.0), (0.7,)),
}


def gaussian(f, edges):
    def integrand(z):
        return f(z) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    edges = sorted({-13.0, -3.0, 0.0, 3.0, 13.0, *(e for e in edges if abs(e) < 13)})
    return sum(
        integrate.quad(integrand, a, b, epsabs=1e-13, epsrel=1e-12, limit=400)[0]
        for a, b in itertools.pairwise(edges)
    )


@given(st.floats(-6, 6))
def test_erf_has_its_closed_forms(exponent):
    q = 10**exponent
    samples = nonlinearity("erf").sample(q)
    assert samples.square[0] == pytest.approx(
        2 / math.pi * math.asin(2 * q / (1 + 2 * q)), rel=1e-9
    )
    assert samples.slope_square[0] == pytest.approx(4 / math.pi / math.sqrt(1 + 4 * q), rel=1e-9)
    derivative = 4 / math.pi / (1 + 2 * q) / math.sqrt(1 + 4 * q)
    assert samples.square_derivative[0] == pytest.approx(derivative, rel=1e-8)
    assert samples.elasticity(samples.value**2)[0] == pytest.approx(
        derivative * q / samples.square[0], rel=1e-6
    )


@given(st.floats(-30, 30))
def test_relu_has_its_closed_forms(exponent):
    q = 10**exponent
    samples = nonlinearity("relu").sample(q)
    assert samples.square[0] == pytest.approx(q / 2, rel=1e-12)
    assert samples.slope_square[0] == pytest.approx(1 / 2, rel=1e-12)
    assert samples.square_derivative[0] == pytest.approx(1 / 2, rel=1e-12)


def test_two_relus_follow_the_arc_cosine_kernels():
    values, slopes = nonlinearity("relu").expand(np.array([3.0]))
    angle = np.arccos(C)
    step = (math.pi - angle) / (2 * math.pi)
    ramp = 3.0 * (np.sin(angle) / (2 * math.pi) + C * step)
    np.testing.assert_allclose(values.products(C[None])[0], ramp, atol=1e-7)
    np.testing.assert_allclose(slopes.products(C[None])[0], step, atol=1e-6)


def test_two_erfs_of_different_variance_follow_williams():
    q = np.array([0.3, 2.0, 5.0])
    values, slopes = nonlinearity("erf").expand(q)
    correlation = np.array([[1, 0.4, -0.9], [0.4, 1, 0.99], [-0.9, 0.99, 1]])
    cross = correlation * np.sqrt(np.outer(q, q))
    scale = np.outer(1 + 2 * q, 1 + 2 * q)
    np.testing.assert_allclose(
        values.products(correlation),
        2 / math.pi * np.arcsin(2 * cross / np.sqrt(scale)),
        atol=1e-10,
    )
    np.testing.assert_allclose(
        slopes.products(correlation), 4 / math.pi / np.sqrt(scale - 4 * cross**2), atol=1e-9
    )


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("q", [1e-3, 0.7, 30.0])
def test_every_activation_matches_adaptive_quadrature(name, q):
    f = ACTIVATIONS[name]

    def at(function, z):
        return function(torch.tensor(math.sqrt(q) * z, dtype=torch.float64)).item()

    samples = nonlinearity(name).sample(q)
    assert samples.square[0] == pytest.approx(
        gaussian(lambda z: at(f.function, z) ** 2, []), rel=1e-8
    )
    assert samples.slope_square[0] == pytest.approx(
        gaussian(lambda z: at(f.derivative, z) ** 2, []), rel=1e-8
    )


@pytest.mark.parametrize("name", sorted(KINKED))
@pytest.mark.parametrize("q", [0.2, 4.0])
def test_a_callable_that_jumps_away_from_zero(name, q):
    function, jumps = KINKED[name]
    phi = nonlinearity(function)
    np.testing.assert_allclose(phi.jumps, jumps, atol=1e-9)
    scale = math.sqrt(q)

    def value(z):
        return function(torch.tensor(scale * z, dtype=torch.float64)).item()

    def slope(z):
        v = torch.tensor(scale * z, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(function(v), v)[0].item()

    edges = [j / scale for j in jumps]
    samples = phi.sample(q)
    assert samples.square[0] == pytest.approx(gaussian(lambda z: value(z) ** 2, edges), rel=1e-8)
    assert samples.slope_square[0] == pytest.approx(
        gaussian(lambda z: slope(z) ** 2, edges), rel=1e-8
    )


@pytest.mark.parametrize("name", ["Hardtanh", "Threshold"])
def test_products_of_a_callable_that_jumps_match_quadrature_in_two_dimensions(name):
    function, jumps = KINKED[name]
    q = np.array([0.5, 2.0])
    c = 0.8
    values, _ = nonlinearity(function).expand(q)
    found = values.products(np.array([[1, c], [c, 1]]))

    def value(v):
        return function(torch.tensor(v, dtype=torch.float64)).item()

    def inner(z):
        centre, rest = c * z * math.sqrt(q[1]), math.sqrt(q[1] * (1 - c * c))
        return gaussian(lambda y: value(centre + rest * y), [(j - centre) / rest for j in jumps])

    edges = [j / math.sqrt(q[0]) for j in jumps]
    x, w = np.polynomial.legendre.leggauss(10)
    ends = sorted({*np.arange(-7, 8).tolist(), *edges})
    total = 0.0
    for a, b in itertools.pairwise(ends):
        for node, weight in zip((a + b) / 2 + (b - a) / 2 * x, (b - a) / 2 * w, strict=True):
            density = math.exp(-node * node / 2) / math.sqrt(2 * math.pi)
            total += weight * density * value(math.sqrt(q[0]) * node) * inner(node)
    assert found[0, 1] == pytest.approx(total, abs=1e-7)


def test_a_callable_needs_no_derivative():
    by_name, by_autograd = nonlinearity("tanh").sample(1.3), nonlinearity(torch.tanh).sample(1.3)
    np.testing.assert_allclose(by_autograd.slope, by_name.slope, atol=1e-14)
    given_one = nonlinearity(torch.tanh, lambda v: 1 - torch.tanh(v) ** 2).sample(1.3)
    np.testing.assert_allclose(given_one.slope, by_name.slope, atol=1e-14)


def test_rounding_that_depends_on_the_length_is_no_reason_to_refuse():
    # The vectorised and the scalar part of a loop may differ in the last bit.
    assert nonlinearity(torch.nn.functional.mish).sample(1.0).square[0] > 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda v: v.softmax(0),
        lambda v: v.float(),
        lambda v: v.sum(),
        lambda v: 3.0,
        lambda v: v.detach(),
        lambda v: v[:0],
        torch.nn.Dropout(0.5),
    ],
)
def test_what_is_no_elementwise_function_is_refused_in_one_line(wrong):
    with pytest.raises(UserError, match="deterministic function of each element") as error:
        nonlinearity(wrong)
    assert "\n" not in str(error.value)


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match="did you mean 'tanh'"):
        nonlinearity("tahn")
