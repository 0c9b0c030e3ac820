"""Initial parameters against the distributions of their papers."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unmask.sweep.init import epoch_order, initial_parameters
from unmask.sweep.spec import INITS, NetSpec

INPUTS, WIDTH, CLASSES = 600, 200, 50
VARIANCES = {
    "glorot": lambda n_in, n_out: 2 / (n_in + n_out),
    "he": lambda n_in, n_out: 2 / n_in,
    "lecun": lambda n_in, n_out: 1 / n_in,
    "mean_field": lambda n_in, n_out: 1.7 / n_in,
}
SCALED = [init for init in INITS if init != "orthogonal"]


def spec_of(init, **values):
    sigmas = {"sigma_w2": 1.7, "sigma_b2": 0.3} if init == "mean_field" else {}
    return NetSpec(**{"depth": 3, "width": WIDTH, "init": init, "seed": 7, **sigmas, **values})


def parameters_of(init, **values):
    return initial_parameters(spec_of(init, **values), INPUTS, CLASSES)


@pytest.mark.parametrize("init", INITS)
def test_shapes_and_precision(init):
    layers = parameters_of(init)
    sizes = [INPUTS, WIDTH, WIDTH, WIDTH, CLASSES]
    assert [w.shape for w, _ in layers] == list(itertools.pairwise(sizes))
    assert [b.shape for _, b in layers] == [(n,) for n in sizes[1:]]
    assert all(a.dtype == np.float32 and a.flags.c_contiguous for pair in layers for a in pair)


@pytest.mark.parametrize("init", SCALED)
def test_weights_follow_the_papers_distribution(init):
    family = init if init == "mean_field" else init.partition("_")[0]
    for weights, _ in parameters_of(init):
        variance = VARIANCES[family](*weights.shape)
        sample = weights.ravel().astype(np.float64)
        assert np.var(sample) == pytest.approx(variance, rel=0.04)
        assert abs(sample.mean()) < 5 * math.sqrt(variance / sample.size)
        bound = math.sqrt(3 * variance)
        if init.endswith("uniform"):
            assert 0.995 * bound < np.abs(sample).max() <= bound * (1 + 1e-7)
            distribution = stats.uniform(-bound, 2 * bound)
        else:
            distribution = stats.norm(0, math.sqrt(variance))
        assert stats.kstest(sample, distribution.cdf).pvalue > 1e-3


@pytest.mark.parametrize("init", [i for i in INITS if i != "mean_field"])
def test_biases_are_zero(init):
    assert all(not biases.any() for _, biases in parameters_of(init))


def test_mean_field_biases_have_their_variance():
    biases = np.concatenate([b for _, b in parameters_of("mean_field", depth=40)])
    assert np.var(biases) == pytest.approx(0.3, rel=0.05)
    assert stats.kstest(biases, stats.norm(0, math.sqrt(0.3)).cdf).pvalue > 1e-3


def test_mean_field_without_variance_is_zero():
    layers = initial_parameters(spec_of("mean_field", sigma_w2=0.0, sigma_b2=0.0), INPUTS, CLASSES)
    assert not any(a.any() for pair in layers for a in pair)


@pytest.mark.parametrize("width", [1, 3, 32, 200])
def test_orthogonal_keeps_lengths_on_the_smaller_side(width):
    spec = spec_of("orthogonal", width=width)
    for inputs, classes in ((INPUTS, CLASSES), (2, 300)):
        for weights, _ in initial_parameters(spec, inputs, classes):
            w = weights.astype(np.float64)
            gram = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
            np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-6)


def test_orthogonal_has_no_preferred_direction():
    # Without the sign fix the diagonal of Q would be of one sign.
    first = [
        initial_parameters(NetSpec(1, width=4, init="orthogonal", seed=s), 4, 4)[0][0][0, 0]
        for s in range(400)
    ]
    # An entry of a Haar matrix of order 4 has variance 1/4, and its mean then has 1/1600.
    assert abs(np.mean(first)) < 4 * math.sqrt(1 / 1600)
    assert np.var(first) == pytest.approx(1 / 4, rel=0.2)


@pytest.mark.parametrize("init", INITS)
def test_the_seed_alone_decides(init):
    one, same = parameters_of(init), parameters_of(init, learning_rate=3.0, optimizer="adam")
    other = parameters_of(init, seed=8)
    for (w, b), (w_same, b_same), (w_other, _) in zip(one, same, other, strict=True):
        assert np.array_equal(w, w_same)
        assert np.array_equal(b, b_same)
        assert not np.array_equal(w, w_other)


@pytest.mark.parametrize("init", INITS)
def test_layers_are_independent_of_one_another_and_of_the_depth(init):
    layers = [w for w, _ in parameters_of(init, depth=5)]
    deeper = [w for w, _ in parameters_of(init, depth=9)]
    for shallow_layer, deep_layer in zip(layers[:-1], deeper, strict=False):
        assert np.array_equal(shallow_layer, deep_layer)
    flat = np.stack([w.ravel() for w in layers[1:-1]])
    correlations = np.corrcoef(flat)[~np.eye(len(flat), dtype=bool)]
    assert np.abs(correlations).max() < 5 / WIDTH


@given(seed=st.integers(0, (1 << 63) - 1), epoch=st.integers(0, 1000), n=st.integers(0, 300))
def test_epoch_order_is_a_permutation_that_the_seed_decides(seed, epoch, n):
    order = epoch_order(NetSpec(1, seed=seed), epoch, n)
    assert order.dtype == np.uint32
    assert np.array_equal(np.sort(order), np.arange(n))
    assert np.array_equal(order, epoch_order(NetSpec(9, width=3, seed=seed), epoch, n))


def test_epochs_and_seeds_have_their_own_orders():
    orders = [epoch_order(NetSpec(1, seed=s), e, 1000) for s in range(4) for e in range(4)]
    correlations = np.corrcoef(np.stack(orders))[~np.eye(len(orders), dtype=bool)]
    assert np.abs(correlations).max() < 5 / math.sqrt(1000)
