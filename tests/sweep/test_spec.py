"""Specs: every bad value is refused in one line that names it."""

import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import unmask.sweep
from unmask.errors import UserError
from unmask.models.activations import ACTIVATIONS
from unmask.sweep.spec import INITS, LOSSES, MAX_DEPTH, MAX_WIDTH, OPTIMIZERS, NetSpec, grid

WHOLE = {
    "depth": ("depth", 1, MAX_DEPTH),
    "width": ("width", 1, MAX_WIDTH),
    "batch_size": ("batch size", 1, 1 << 20),
    "epochs": ("epochs", 0, 1 << 20),
    "seed": ("seed", 0, (1 << 63) - 1),
}
NAMED = {
    "activation": ("activation", tuple(ACTIVATIONS)),
    "init": ("initialisation", INITS),
    "loss": ("loss", LOSSES),
    "optimizer": ("optimiser", OPTIMIZERS),
}
NO_NUMBERS = [math.nan, math.inf, -math.inf, None, "1", True, [1], 1j]


def refusal(**values):
    with pytest.raises(UserError) as caught:
        NetSpec(**{"depth": 2, **values})
    line = str(caught.value)
    assert "\n" not in line
    assert line == line.strip()
    return line


def mean_field(**values):
    return {"init": "mean_field", "sigma_w2": 1.0, "sigma_b2": 0.1, **values}


@pytest.mark.parametrize("name", WHOLE)
@given(data=st.data())
def test_a_whole_number_out_of_range_is_refused(name, data):
    title, low, high = WHOLE[name]
    outside = st.integers(max_value=low - 1) | st.integers(min_value=high + 1)
    value = data.draw(outside)
    start = f"the {title} must be a whole number: got {value}; give {low} to "
    assert refusal(**{name: value}).startswith(start)


@pytest.mark.parametrize("value", [*NO_NUMBERS, 2.0])
@pytest.mark.parametrize("name", WHOLE)
def test_what_is_no_whole_number_is_refused(name, value):
    line = refusal(**{name: value})
    assert line.startswith(f"the {WHOLE[name][0]} must be a whole number")
    assert value is None or str(value) in line.partition("got ")[2]


@pytest.mark.parametrize("name", WHOLE)
def test_the_ends_of_a_range_are_taken(name):
    _, low, high = WHOLE[name]
    for value in (low, high):
        assert getattr(NetSpec(**{"depth": 2, name: value}), name) == value


@pytest.mark.parametrize("name", NAMED)
@given(data=st.data())
def test_an_unknown_name_is_refused_with_those_known(name, data):
    kind, known = NAMED[name]
    value = data.draw(st.text().filter(lambda text: text not in known))
    line = refusal(**{name: value})
    assert line.startswith(f"unknown {kind}: got ")
    assert line.endswith(f"choose from {', '.join(known)}")


@pytest.mark.parametrize("name", NAMED)
def test_a_misspelt_name_is_met_with_the_nearest(name):
    for known in NAMED[name][1]:
        misspelt = known[:-1] if len(known) > 3 else known + known[-1]
        if misspelt not in NAMED[name][1]:
            assert f"got '{misspelt}'; did you mean '" in refusal(**{name: misspelt})


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0, 0.0, -0.01])
def test_a_bad_learning_rate_is_refused(value):
    line = refusal(learning_rate=value)
    assert line.startswith("the learning rate must be a positive number")
    assert value is None or str(value) in line.partition("got ")[2]


@pytest.mark.parametrize("value", [*NO_NUMBERS, -1e-9])
@pytest.mark.parametrize("name", ["sigma_w2", "sigma_b2"])
def test_a_bad_variance_is_refused(name, value):
    line = refusal(**mean_field(**{name: value}))
    assert line.startswith(f"the initialisation 'mean_field' needs {name}, a variance of 0 or more")


@pytest.mark.parametrize("name", ["sigma_w2", "sigma_b2"])
@pytest.mark.parametrize("init", [i for i in INITS if i != "mean_field"])
def test_a_variance_without_mean_field_is_refused(init, name):
    line = refusal(init=init, **{name: 1.0})
    assert f"got init={init!r}; set init='mean_field' or leave both out" in line


@given(sigma_w2=st.floats(0, 1e6), sigma_b2=st.floats(0, 1e6))
def test_mean_field_takes_any_two_variances(sigma_w2, sigma_b2):
    spec = NetSpec(2, **mean_field(sigma_w2=sigma_w2, sigma_b2=sigma_b2))
    assert (spec.sigma_w2, spec.sigma_b2) == (sigma_w2, sigma_b2)


@given(
    depth=st.integers(1, MAX_DEPTH),
    width=st.integers(1, MAX_WIDTH),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    loss=st.sampled_from(LOSSES),
    optimizer=st.sampled_from(OPTIMIZERS),
    learning_rate=st.floats(1e-12, 1e12),
    seed=st.integers(0, (1 << 63) - 1),
)
def test_a_spec_survives_json(**values):
    spec = NetSpec(**values)
    assert NetSpec(**json.loads(json.dumps(spec.as_dict()))) == spec


def test_the_defaults_are_the_documents():
    spec = NetSpec(5)
    assert (spec.width, spec.batch_size, spec.learning_rate, spec.epochs) == (32, 32, 0.01, 40)
    assert (spec.optimizer, spec.loss, spec.init) == ("sgd", "cross_entropy", "glorot_uniform")


def test_grid_is_the_product_with_the_last_name_fastest():
    specs = grid(depth=[5, 20], activation="relu", seed=range(3))
    assert [(s.depth, s.activation, s.seed) for s in specs] == [
        (depth, "relu", seed) for depth, seed in itertools.product([5, 20], range(3))
    ]
    assert grid(depth=5) == [NetSpec(5)]
    assert grid(depth=[]) == []


def test_grid_refuses_an_unknown_setting():
    with pytest.raises(UserError, match="unknown setting of a net: got 'dept'; did you mean 'dep"):
        grid(dept=5)


def test_grid_refuses_a_bad_value_anywhere():
    with pytest.raises(UserError, match="the width must be a whole number: got 0"):
        grid(depth=5, width=[32, 0])


def test_the_sweeps_names_are_those_of_its_rooms() -> None:
    assert {name: getattr(unmask.sweep, name).__name__ for name in unmask.sweep.__all__} == {
        name: name for name in unmask.sweep.__all__
    }
    with pytest.raises(AttributeError, match="no attribute 'nets'"):
        _ = unmask.sweep.nets
