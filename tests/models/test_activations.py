"""The activation functions against PyTorch's own, autograd and a dense search."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from unmask.errors import UserError
from unmask.models.activations import ACTIVATIONS, activation

NAMES = sorted(ACTIVATIONS)
POINTS = torch.cat(
    [
        torch.linspace(-12, 12, 4801, dtype=torch.float64),
        torch.tensor([-1000.0, -40.0, -1e-9, 0.0, 1e-9, 40.0, 1000.0], dtype=torch.float64),
    ]
)
LIBRARY = {
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "selu": functional.selu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "softplus": lambda x: functional.softplus(x, threshold=50),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "lecun": lambda x: torch.from_numpy(1.7159 * np.tanh(2 * x.numpy() / 3) + 0.01 * x.numpy()),
    "erf": torch.erf,
    "linear": lambda x: x,
}


@pytest.mark.parametrize("name", NAMES)
def test_function_is_the_librarys(name):
    torch.testing.assert_close(
        ACTIVATIONS[name].function(POINTS), LIBRARY[name](POINTS), rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("name", NAMES)
def test_derivative_is_autograds(name):
    x = POINTS.clone().requires_grad_()
    (expected,) = torch.autograd.grad(ACTIVATIONS[name].function(x).sum(), x)
    derivative = ACTIVATIONS[name].derivative(POINTS)
    torch.testing.assert_close(derivative, expected, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_derivative_range_is_what_a_dense_search_finds(name):
    f = ACTIVATIONS[name]
    slopes = f.derivative(torch.linspace(-40, 40, 2_000_001, dtype=torch.float64))
    assert f.derivative_min - 1e-12 <= slopes.min() <= f.derivative_min + 1e-9
    assert f.derivative_max - 1e-9 <= slopes.max() <= f.derivative_max + 1e-12
    assert f.lipschitz == pytest.approx(float(slopes.abs().max()), abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
@given(a=st.floats(-50, 50), b=st.floats(-50, 50))
def test_lipschitz_bounds_every_chord(name, a, b):
    f = ACTIVATIONS[name]
    fa, fb = f.function(torch.tensor([a, b], dtype=torch.float64)).tolist()
    assert abs(fa - fb) <= f.lipschitz * abs(a - b) + 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_keeps_shape_and_precision_and_nan(name, dtype):
    x = torch.tensor([[0.5, math.nan, -0.5]], dtype=dtype)
    y, slope = ACTIVATIONS[name].function(x), ACTIVATIONS[name].derivative(x)
    assert y.shape == slope.shape == x.shape
    assert y.dtype == slope.dtype == dtype
    assert y.isnan().tolist() == [[False, True, False]]


@pytest.mark.parametrize(
    ("given_name", "near"), [("rleu", "relu"), ("TANH", "tanh"), ("sigmoyd", "sigmoid")]
)
def test_unknown_name_is_one_line_with_the_nearest(given_name, near):
    with pytest.raises(UserError) as caught:
        activation(given_name)
    line = str(caught.value)
    assert "\n" not in line
    assert f"got {given_name!r}" in line
    assert f"did you mean '{near}'?" in line
    assert all(name in line for name in NAMES)


def test_known_name_is_found():
    assert activation("lecun").title == "LeCun"
