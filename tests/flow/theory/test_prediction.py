"""Predicted profiles against nets measured over seeds, and against what must hold exactly."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from unmask.data.mnist import load_mnist
from unmask.flow.theory import (
    WeightLayer,
    critical_sigma_w2,
    gradient_ratio,
    phase,
    predict,
    weight_layers,
)
from unmask.sweep.init import initial_parameters
from unmask.sweep.reference import ReferenceNet
from unmask.sweep.spec import INITS, NetSpec


@pytest.fixture(scope="module")
def images():
    train, _ = load_mnist()
    return train.pixels.reshape(len(train), -1), train.labels


def measured(spec, pixels, labels, seeds):
    """log10 of the gradients' and the outputs' RMS, by seed and layer."""
    gradients, outputs = [], []
    for seed in range(seeds):
        seeded = replace(spec, seed=seed)
        start = initial_parameters(seeded, pixels.shape[1], 10)
        net = ReferenceNet(seeded, start, pixels, labels, 10)
        found = net.probe(pixels, labels, pixels[:1])
        gradients.append(np.log10(found["gradient_rms"]))
        outputs.append(np.log10(found["activation_rms"]))
    return np.array(gradients), np.array(outputs)


def predicted(spec, pixels, labels):
    layers = weight_layers(spec, pixels.shape[1], 10)
    return predict(spec.activation, layers, pixels / 255, labels, loss=spec.loss)


def critical(activation, sigma_b2, **rest):
    sigma_w2 = critical_sigma_w2(activation, sigma_b2)
    return NetSpec(
        activation=activation, init="mean_field", sigma_w2=sigma_w2, sigma_b2=sigma_b2, **rest
    )


DEEP = {"depth": 40, "width": 256}
TORCH_DEFAULT = {"init": "mean_field", "sigma_w2": 1 / 3, "sigma_b2": 0.0}
DEEP_NETS = [
    *(
        NetSpec(activation=a, **start, **DEEP)
        for a in ("tanh", "relu", "sigmoid", "lecun")
        for start in (TORCH_DEFAULT, {"init": "glorot_uniform"}, {"init": "he_normal"})
    ),
    *(NetSpec(activation=a, **TORCH_DEFAULT, **DEEP) for a in ("erf", "gelu")),
    *(critical(a, 0.05, **DEEP) for a in ("tanh", "sigmoid", "lecun", "erf")),
    critical("tanh", 0.0, **DEEP),
    NetSpec(activation="selu", init="lecun_normal", **DEEP),
    NetSpec(activation="tanh", init="orthogonal", **DEEP),
    NetSpec(activation="relu", init="he_uniform", loss="half_squared", **DEEP),
]


@pytest.mark.slow
@pytest.mark.parametrize("spec", DEEP_NETS, ids=lambda s: f"{s.activation}-{s.init}-{s.sigma_w2}")
def test_forty_layers_on_mnist_are_as_predicted(spec, images):
    pixels, labels = images[0][:32], images[1][:32]
    gradients, outputs = measured(spec, pixels, labels, seeds=8)
    profile = predicted(spec, pixels, labels)
    assert np.abs(gradients.mean(0) - np.log10(profile.gradient_rms)).max() <= 0.15
    assert np.abs(outputs.mean(0) - np.log10(profile.activation_rms)).max() <= 0.15
    low, high = profile.gradient_band(3)
    assert ((low <= 10**gradients) & (10**gradients <= high)).mean() > 0.9


@pytest.mark.parametrize("init", INITS)
def test_every_initialisation_by_its_first_middle_and_last_layers(init, images):
    pixels, labels = images[0][:16], images[1][:16]
    values = {"sigma_w2": 1.5, "sigma_b2": 0.1} if init == "mean_field" else {}
    spec = NetSpec(depth=4, width=200, init=init, **values)
    layers = weight_layers(spec, 784, 10)
    start = initial_parameters(spec, 784, 10)
    for layer, (weights, biases) in zip(layers, start, strict=True):
        assert weights.shape == (layer.fan_in, layer.fan_out)
        assert weights.var() * layer.fan_in == pytest.approx(layer.sigma_w2, rel=0.1)
        assert biases.var() == pytest.approx(layer.sigma_b2, rel=0.5, abs=1e-12)
    gradients, outputs = measured(spec, pixels, labels, seeds=6)
    profile = predicted(spec, pixels, labels)
    assert np.abs(gradients.mean(0) - np.log10(profile.gradient_rms)).max() <= 0.05
    assert np.abs(outputs.mean(0) - np.log10(profile.activation_rms)).max() <= 0.03


def test_the_spread_over_seeds_is_as_predicted(images):
    pixels, labels = images[0][:1], images[1][:1]
    spec = NetSpec(depth=20, width=128, activation="relu", init="he_normal")
    gradients, outputs = measured(spec, pixels, labels, seeds=60)
    profile = predicted(spec, pixels, labels)
    np.testing.assert_allclose(gradients.std(0, ddof=1), profile.gradient_spread, rtol=0.3)
    np.testing.assert_allclose(
        outputs.std(0, ddof=1)[4:-1], profile.activation_spread[4:-1], rtol=0.3
    )


def test_the_profile_of_one_picture_falls_by_the_gradient_ratio():
    """ReLU without biases: outputs fall as errors grow, so dE/dW is the same throughout."""
    layers = [WeightLayer(100, 100, 1.0)] * 31
    profile = predict("relu", layers, np.ones((1, 100)), np.array([0]))
    wide = profile.gradient_rms * 10 ** (np.log(10) * profile.gradient_spread**2)
    np.testing.assert_allclose(wide[:-1], wide[0], rtol=1e-6)
    outputs = profile.activation_rms[:-1] * 10 ** (np.log(10) * profile.activation_spread[:-1] ** 2)
    np.testing.assert_allclose(outputs, [gradient_ratio("relu", k, 1.0) for k in range(1, 31)])


def test_a_callable_is_predicted_as_the_activation_it_is(images):
    pixels, labels = images[0][:5], images[1][:5]
    spec = NetSpec(depth=6, width=64)
    layers = weight_layers(spec, 784, 10)
    by_callable = predict(torch.tanh, layers, pixels / 255, labels)
    by_name = predict("tanh", layers, pixels / 255, labels)
    np.testing.assert_allclose(by_callable.gradient_rms, by_name.gradient_rms, rtol=1e-9)


def test_a_callable_that_jumps_away_from_zero(images):
    pixels, labels = images[0][:4], images[1][:4]
    layers = [WeightLayer(784, 128, 3.0, 0.1), *[WeightLayer(128, 128, 3.0, 0.1)] * 3]
    layers.append(WeightLayer(128, 10, 1.0))
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(20):
        y = torch.from_numpy(pixels / 255)
        weights = []
        for layer in layers:
            shape = (layer.fan_in, layer.fan_out)
            w = torch.randn(shape, generator=generator, dtype=torch.float64)
            w = (w * (layer.sigma_w2 / layer.fan_in) ** 0.5).requires_grad_()
            b = torch.randn(layer.fan_out, generator=generator, dtype=torch.float64)
            weights.append(w)
            v = y @ w + b * layer.sigma_b2**0.5
            y = torch.nn.functional.hardtanh(v)
        loss = torch.nn.functional.cross_entropy(v, torch.from_numpy(labels))
        gradients = torch.autograd.grad(loss, weights)
        found.append([g.square().mean().sqrt().log10().item() for g in gradients])
    profile = predict(torch.nn.Hardtanh(), layers, pixels / 255, labels)
    assert np.abs(np.mean(found, 0) - np.log10(profile.gradient_rms)).max() < 0.05


def test_given_output_gradients_scale_the_profile(images):
    pixels, labels = images[0][:8], images[1][:8]
    layers = weight_layers(NetSpec(depth=10, width=64), 784, 10)
    errors = np.random.default_rng(0).normal(size=(8, 10))
    once = predict("tanh", layers, pixels / 255, labels, output_gradients=errors)
    twice = predict("tanh", layers, pixels / 255, labels, output_gradients=2 * errors)
    np.testing.assert_allclose(twice.gradient_rms, 2 * once.gradient_rms, rtol=1e-9)
    np.testing.assert_allclose(twice.gradient_spread, once.gradient_spread)


def test_squares_beyond_the_range_of_floats_lose_no_precision():
    layers = [WeightLayer(1000, 1000, 1.0)] * 400
    profile = predict("sigmoid", layers, np.ones((1, 1000)), np.array([0]))
    logarithms = np.log10(profile.gradient_rms)
    assert -320 < logarithms[0] < -240
    growth = -0.5 * np.log10(phase("sigmoid", 1.0).chi_1)
    np.testing.assert_allclose(np.diff(logarithms[5:390]), growth, atol=5e-4)


def test_silent_nets_have_silent_gradients():
    layers = [WeightLayer(10, 20, 0.0), WeightLayer(20, 20, 0.0), WeightLayer(20, 3, 1.0)]
    profile = predict("tanh", layers, np.ones((2, 10)), np.array([0, 1]))
    assert (profile.activation_rms[:2] < 1e-100).all()
    assert (profile.gradient_rms[:2] < 1e-100).all()
    assert profile.activation_rms[2] == pytest.approx(1 / 3)
