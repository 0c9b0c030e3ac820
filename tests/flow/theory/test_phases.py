"""Fixed points, phases and critical points against closed forms, the literature and iteration."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, special

from unmask.errors import UserError
from unmask.flow.theory import (
    chi,
    correlation_map,
    critical_sigma_w2,
    gradient_ratio,
    nonlinearity,
    phase,
    variance_map,
)


def plain_lecun(v):
    return 1.7159 * torch.tanh(2 * v / 3)


def centred_sigmoid(v):
    return v.sigmoid() - 0.5


# Independent of the package: adaptive quadrature and Brent's method agree to every digit shown.
CRITICAL = [
    ("tanh", (1, 1.424, 1.761, 1.986)),
    ("erf", (0.785, 1.114, 1.376, 1.552)),
    (plain_lecun, (0.764, 1.007, 1.196, 1.321)),
    ("lecun", (0.751, 0.989, 1.175, 1.297)),
    ("sigmoid", (103.008, 103.032, 103.128, 103.249)),
]
RATIOS = [
    ("relu", 1 / 3, ("1e-02", "2e-08", "3e-16")),
    ("relu", 1, ("2e-01", "1e-03", "1e-06")),
    ("relu", 2, ("1e+00", "1e+00", "1e+00")),
    ("tanh", 1 / 3, ("5e-02", "1e-05", "2e-10")),
    ("tanh", 1, ("3.7e-01", "1.9e-01", "1.3e-01")),
    ("tanh", 2, ("8.6e-01", "1.8e+00", "4.9e+00")),
    ("sigmoid", 1 / 3, ("5e-05", "1e-17", "1e-34")),
    ("sigmoid", 1, ("7e-04", "3e-13", "7e-26")),
    ("sigmoid", 2, ("3e-03", "9e-11", "1e-20")),
    (plain_lecun, 1 / 3, ("1.0e-01", "2.1e-04", "5.1e-08")),
    (plain_lecun, 1, ("7.6e-01", "8.1e-01", "9.8e-01")),
    (plain_lecun, 2, ("1.6e+00", "6.0e+00", "3.4e+01")),
    ("lecun", 1 / 3, ("1.1e-01", "2.4e-04", "7.3e-08")),
    ("lecun", 1, ("7.9e-01", "8.6e-01", "1.1e+00")),
    ("lecun", 2, ("1.7e+00", "6.3e+00", "3.7e+01")),
]


@pytest.mark.parametrize(("phi", "expected"), CRITICAL)
def test_critical_sigma_w2(phi, expected):
    found = [critical_sigma_w2(phi, sigma_b2) for sigma_b2 in (0, 0.01, 0.05, 0.1)]
    assert found == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("sigma_b2", [0.0, 0.05])
def test_critical_sigmoid_by_adaptive_quadrature(sigma_b2):
    def mean(f, q):
        def integrand(z):
            s = 1 / (1 + math.exp(-math.sqrt(q) * z))
            return f(s) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

        return 2 * integrate.quad(lambda z: (integrand(z) + integrand(-z)) / 2, 0, 12, limit=200)[0]

    def sigma_w2(q):
        return 1 / mean(lambda s: (s * (1 - s)) ** 2, q)

    q = optimize.brentq(lambda q: q - sigma_w2(q) * mean(lambda s: s * s, q) - sigma_b2, 20, 80)
    assert critical_sigma_w2("sigmoid", sigma_b2) == pytest.approx(sigma_w2(q), rel=1e-9)


def test_critical_points_in_closed_form():
    assert critical_sigma_w2("relu") == pytest.approx(2, rel=1e-12)
    assert critical_sigma_w2("leaky_relu") == pytest.approx(2 / (1 + 0.01**2), rel=1e-12)
    assert critical_sigma_w2("linear") == pytest.approx(1, rel=1e-12)
    assert critical_sigma_w2("erf") == pytest.approx(math.pi / 4, rel=1e-9)
    assert critical_sigma_w2(centred_sigmoid) == pytest.approx(16, rel=1e-9)
    assert critical_sigma_w2(torch.nn.Hardtanh()) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("phi", ["relu", "leaky_relu", "linear", "softplus"])
def test_there_is_no_critical_point_with_biases(phi):
    assert critical_sigma_w2(phi, 0.05) is None


def gelu(x: float) -> tuple[float, float]:
    normal, density = special.ndtr(x), math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return x * normal, normal + x * density


def silu(x: float) -> tuple[float, float]:
    s = special.expit(x)
    return x * s, s * (1 + x * (1 - s))


@pytest.mark.parametrize(
    ("name", "phi", "published"),
    [("gelu", gelu, (0.173, 1.983)), ("silu", silu, (0.555, 1.988))],
)
def test_where_the_critical_line_begins(name, phi, published):
    """Adaptive quadrature and Brent's method against ours, and against docs/flow.md.

    With chi_1 = 1 the fixed point is stable from where the variance map's slope falls to 1.
    """

    def mean(f, q):
        def integrand(z):
            value, slope = phi(math.sqrt(q) * z)
            return f(value, slope, math.sqrt(q) * z) * math.exp(-z * z / 2)

        options = {"limit": 400, "epsabs": 1e-13, "epsrel": 1e-12}
        return integrate.quad(integrand, -12, 12, **options)[0] / math.sqrt(2 * math.pi)

    def sigma_w2(q):
        return 1 / mean(lambda value, slope, x: slope * slope, q)

    def map_slope(q):
        return sigma_w2(q) * mean(lambda value, slope, x: value * slope * x, q) / q

    q = optimize.brentq(lambda q: map_slope(q) - 1, 1, 100)
    sigma_b2 = q - sigma_w2(q) * mean(lambda value, slope, x: value * value, q)
    assert (sigma_b2, sigma_w2(q)) == pytest.approx(published, abs=6e-4)
    assert critical_sigma_w2(name, 0.999 * sigma_b2) is None
    assert critical_sigma_w2(name, sigma_b2 + 1e-5) == pytest.approx(sigma_w2(q), abs=1e-3)
    further = q * 1.5
    assert critical_sigma_w2(
        name, further - sigma_w2(further) * mean(lambda value, slope, x: value * value, further)
    ) == pytest.approx(sigma_w2(further), rel=1e-9)


@given(
    st.sampled_from(["tanh", "erf", "lecun", "sigmoid", "elu", "selu"]),
    st.floats(0.001, 0.5),
)
@settings(max_examples=30, deadline=None)
def test_at_the_critical_point_chi_is_one(phi, sigma_b2):
    found = phase(phi, critical_sigma_w2(phi, sigma_b2), sigma_b2)
    assert found.chi_1 == pytest.approx(1, abs=1e-7)
    assert found.name == "critical"
    assert found.c_star == 1
    assert found.trainable_depth > 1e5


@pytest.mark.parametrize(("phi", "sigma_w2", "ratios"), RATIOS)
def test_gradient_ratio_from_unit_variance(phi, sigma_w2, ratios):
    digits = len(ratios[0].partition("e")[0].partition(".")[2])
    phi = nonlinearity(phi)
    found = [gradient_ratio(phi, depth, sigma_w2) for depth in (5, 20, 40)]
    assert tuple(f"{ratio:.{digits}e}" for ratio in found) == ratios


def test_gradient_ratio_of_extreme_depths():
    assert gradient_ratio("relu", 1000, 3.0) == pytest.approx(1.5**500)
    assert gradient_ratio("relu", 6000, 3.0) == math.inf
    assert gradient_ratio("sigmoid", 1000, 0.1) == 0
    assert gradient_ratio("tanh", 3, 0.0) == 0


@given(st.floats(0.01, 1.99), st.floats(0, 2))
@settings(max_examples=30)
def test_relu_in_the_ordered_phase(sigma_w2, sigma_b2):
    found = phase("relu", sigma_w2, sigma_b2)
    assert found.q_star == pytest.approx(sigma_b2 / (1 - sigma_w2 / 2), rel=1e-6, abs=1e-15)
    assert found.chi_1 == pytest.approx(sigma_w2 / 2, rel=1e-12)
    assert found.c_star == 1
    assert found.xi_c == pytest.approx(-1 / math.log(sigma_w2 / 2), rel=1e-9)
    assert found.xi_q == pytest.approx(-1 / math.log(sigma_w2 / 2), rel=1e-9)
    assert found.name == "ordered"


def test_relu_at_and_beyond_criticality():
    critical = phase("relu", 2, 0, start=0.3)
    assert (critical.q_star, critical.name) == (0.3, "critical")
    assert critical.trainable_depth == math.inf
    biased = phase("relu", 2, 0.1)
    assert (biased.q_star, biased.name) == (math.inf, "critical")
    growing = phase("relu", 3, 0)
    assert (growing.q_star, growing.c_star, growing.name) == (math.inf, 1, "chaotic")
    assert growing.chi_1 == pytest.approx(1.5)
    assert growing.xi_c == pytest.approx(1 / math.log(1.5))
    assert growing.xi_q == math.inf


@given(st.floats(0.1, 3), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_erf_has_its_closed_chi_at_a_fixed_point(sigma_w2, sigma_b2):
    found = phase("erf", sigma_w2, sigma_b2)
    q = found.q_star
    mapped = sigma_w2 * 2 / math.pi * math.asin(2 * q / (1 + 2 * q)) + sigma_b2
    assert mapped == pytest.approx(q, rel=1e-8, abs=1e-12)
    assert found.chi_1 == pytest.approx(4 * sigma_w2 / (math.pi * math.sqrt(1 + 4 * q)), rel=1e-8)


CASES = [
    ("tanh", 0.7, 0.1),
    ("tanh", 1.3, 0.2),
    ("tanh", 2.5, 0.1),
    ("tanh", 4.0, 0.0),
    ("erf", 3.0, 0.2),
    ("sigmoid", 1.0, 0.0),
    ("sigmoid", 200.0, 0.0),
    ("gelu", 1.5, 0.1),
    ("elu", 1.9, 0.3),
    (torch.nn.Hardtanh(), 3.0, 0.05),
]


@pytest.mark.parametrize(("phi", "sigma_w2", "sigma_b2"), CASES)
def test_fixed_points_are_stable_and_approached_at_their_scales(phi, sigma_w2, sigma_b2):
    phi = nonlinearity(phi)
    found = phase(phi, sigma_w2, sigma_b2)
    q = 1.0
    for _ in range(400):
        q = variance_map(phi, q, sigma_w2, sigma_b2)
    assert found.q_star == pytest.approx(q, rel=1e-7)
    near = found.q_star * (1 + 1e-5)
    response = (variance_map(phi, near, sigma_w2, sigma_b2) - found.q_star) / (near - found.q_star)
    assert found.xi_q == pytest.approx(-1 / math.log(abs(response)), rel=1e-3)

    fixed = np.array([found.c_star])
    mapped = correlation_map(phi, found.q_star, fixed, sigma_w2, sigma_b2)
    np.testing.assert_allclose(mapped, fixed, atol=1e-9)
    step = 1e-5
    at = np.array([found.c_star - step, min(found.c_star + step, 1.0)])
    mapped = correlation_map(phi, found.q_star, at, sigma_w2, sigma_b2)
    slope = (mapped[1] - mapped[0]) / (at[1] - at[0])
    assert slope < 1
    assert found.xi_c == pytest.approx(-1 / math.log(slope), rel=2e-3)
    assert found.chi_1 == pytest.approx(chi(phi, found.q_star, sigma_w2), rel=1e-12)
    assert (found.name == "chaotic") == (found.c_star < 1)


def test_a_variance_that_falls_to_nothing_has_its_limits():
    found = phase("tanh", 0.5)
    assert (found.q_star, found.c_star) == (0, 1)
    assert found.chi_1 == pytest.approx(0.5)
    assert found.xi_q == pytest.approx(1 / math.log(2))
    assert phase("tanh", 0.0).xi_c == 0


def test_several_fixed_points_are_told_apart_by_the_start():
    assert phase("gelu", 2.5, start=0.01).q_star == 0
    assert phase("gelu", 2.5, start=100.0).q_star == math.inf


@pytest.mark.parametrize(("w", "b"), [(-1, 0), (1, -0.1), (math.nan, 0), (1, math.inf)])
def test_what_is_no_variance_is_refused(w, b):
    with pytest.raises(UserError, match="must be a variance"):
        phase("tanh", w, b)
