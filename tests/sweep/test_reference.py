"""The reference net against gradients written out by hand and PyTorch's own optimisers."""

import math

import numpy as np
import pytest
import torch
from oracle import assert_layers_agree, mean_field, pictures, start

from unmask.models.activations import ACTIVATIONS
from unmask.sweep.history import LAYER_STATISTICS
from unmask.sweep.init import initial_parameters
from unmask.sweep.reference import ReferenceNet
from unmask.sweep.spec import LOSSES, OPTIMIZERS, NetSpec

INPUTS, CLASSES = 12, 5


def net_of(spec, n=10, *, parameters=None, dtype=torch.float64):
    data = pictures(n, INPUTS, CLASSES)
    parameters = start(spec, INPUTS, CLASSES) if parameters is None else parameters
    return ReferenceNet(spec, parameters, *data, CLASSES, dtype=dtype), data


def in_float64(parameters):
    return [(w.astype(np.float64), b.astype(np.float64)) for w, b in parameters]


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_of_a_linear_net_is_the_one_by_hand(loss):
    spec = NetSpec(1, width=4, activation="linear", loss=loss)
    parameters = start(spec, INPUTS, CLASSES)
    net, (pixels, labels) = net_of(spec, parameters=parameters)
    (w1, b1), (w2, b2) = in_float64(parameters)
    x, n = pixels / 255, len(pixels)
    v = x @ w1 + b1
    y, t = softmax(v @ w2 + b2), np.eye(CLASSES)[labels]
    miss = y - t
    if loss == "cross_entropy":
        error, value = miss, -np.log(y[np.arange(n), labels]).mean()
    else:  # dE/dz_k = y_k ((y_k - t_k) - sum_j (y_j - t_j) y_j)
        error = y * (miss - (miss * y).sum(1, keepdims=True))
        value = 0.5 * (miss**2).sum(1).mean()
    error /= n
    below = error @ w2.T
    by_hand = [(x.T @ below, below.sum(0)), (v.T @ error, error.sum(0))]
    assert_layers_agree(net.gradients(pixels, labels), by_hand, 1e-13)
    assert net.evaluate(pixels, labels) == pytest.approx((value, np.mean(y.argmax(1) == labels)))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_gradient_is_the_slope_of_the_loss(activation, loss):
    spec = NetSpec(3, width=6, activation=activation, loss=loss, init="lecun_normal", seed=3)
    parameters = in_float64(start(spec, INPUTS, CLASSES))
    net, data = net_of(spec, parameters=parameters)
    gradients = net.gradients(*data)
    generator = np.random.default_rng(0)
    h = 1e-6
    for layer in range(4):
        for which in range(2):
            direction = generator.standard_normal(parameters[layer][which].shape)
            losses = []
            for sign in (h, -h):
                moved = [list(pair) for pair in parameters]
                moved[layer][which] = moved[layer][which] + sign * direction
                losses.append(net_of(spec, parameters=moved)[0].evaluate(*data)[0])
            slope = (losses[0] - losses[1]) / (2 * h)
            assert (gradients[layer][which] * direction).sum() == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 10, 64])
def test_epoch_takes_the_mini_batches_in_order_and_the_last_one_short(batch_size):
    spec = NetSpec(2, width=4, batch_size=batch_size, learning_rate=0.5)
    net, (pixels, labels) = net_of(spec)
    order = np.random.default_rng(1).permutation(10).astype(np.uint32)
    parameters, losses, rights = in_float64(net.parameters()), [], []
    for first in range(0, 10, batch_size):
        batch = pixels[order[first : first + batch_size]], labels[order[first : first + batch_size]]
        single, _ = net_of(spec, parameters=parameters)
        loss, accuracy = single.evaluate(*batch)
        losses += [loss] * len(batch[1])
        rights += [accuracy] * len(batch[1])
        parameters = [
            (w - 0.5 * dw, b - 0.5 * db)
            for (w, b), (dw, db) in zip(parameters, single.gradients(*batch), strict=True)
        ]
    loss, accuracy, diverged = net.train(order)
    assert diverged == -1
    assert (loss, accuracy) == pytest.approx((np.mean(losses), np.mean(rights)))
    assert_layers_agree(net.parameters(), parameters, 1e-13)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizer_is_pytorchs(optimizer):
    spec = NetSpec(2, width=4, optimizer=optimizer, learning_rate=0.02, batch_size=3)
    net, (pixels, labels) = net_of(spec)
    layers = [tuple(torch.tensor(a, requires_grad=True) for a in p) for p in net.parameters()]
    flat = [a for pair in layers for a in pair]
    library = {
        "sgd": lambda: torch.optim.SGD(flat, lr=0.02),
        "momentum": lambda: torch.optim.SGD(flat, lr=0.02, momentum=0.9),
        "adam": lambda: torch.optim.Adam(flat, lr=0.02),
    }[optimizer]()
    x, order = torch.tensor(pixels, dtype=torch.float64) / 255, np.arange(10, dtype=np.uint32)
    for _ in range(20):
        net.train(order)
        for batch in torch.arange(10).split(3):
            y = x[batch]
            for w, b in layers[:-1]:
                y = torch.tanh(y @ w + b)
            logits = y @ layers[-1][0] + layers[-1][1]
            library.zero_grad()
            torch.nn.functional.cross_entropy(logits, torch.tensor(labels)[batch]).backward()
            library.step()
    expected = [(w.detach().numpy(), b.detach().numpy()) for w, b in layers]
    assert_layers_agree(net.parameters(), expected, 1e-12)


def test_the_first_of_equal_outputs_wins():
    spec = mean_field(0.0, 0.0, depth=2, width=4)
    net, (pixels, labels) = net_of(spec, 40, parameters=initial_parameters(spec, INPUTS, CLASSES))
    assert net.evaluate(pixels, labels) == pytest.approx((math.log(CLASSES), np.mean(labels == 0)))


def test_evaluation_is_one_mean_however_many_pictures():
    net, (pixels, labels) = net_of(NetSpec(1, width=3), 5000)
    parts = [net.evaluate(pixels[i : i + 50], labels[i : i + 50]) for i in range(0, 5000, 50)]
    assert net.evaluate(pixels, labels) == pytest.approx(np.mean(parts, axis=0))


def test_a_loss_that_is_not_finite_ends_training_at_its_step():
    # Image 7 alone lights the input whose weights overflow: in batches of 2 that is step 4.
    spec = NetSpec(1, width=3, activation="linear", batch_size=2)
    parameters = start(spec, INPUTS, CLASSES)
    parameters[0][0][0], parameters[1][0][:] = 3e38, 1.0
    pixels, labels = pictures(10, INPUTS, CLASSES)
    pixels[:] = 0
    pixels[7, 0] = 255
    parameters[0][1][:] = 0
    net = ReferenceNet(spec, parameters, pixels, labels, CLASSES)
    order = np.arange(10, dtype=np.uint32)
    assert net.train(order[:6])[2] == -1
    before = net.parameters()
    loss, accuracy, step = net.train(order[6:])
    assert math.isnan(loss)
    assert math.isnan(accuracy)
    assert step == 4
    for pair, pair_before in zip(net.parameters(), before, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(pair, pair_before, strict=True))


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_a_weight_that_is_nan_diverges_at_once(activation):
    spec = NetSpec(2, width=3, activation=activation)
    parameters = start(spec, INPUTS, CLASSES)
    parameters[1][0][2, 1] = math.nan
    net, _ = net_of(spec, parameters=parameters)
    assert net.train(np.arange(10, dtype=np.uint32))[2] == 1


def test_a_learning_rate_beyond_single_precision_diverges_and_does_not_raise():
    spec = NetSpec(1, width=3, learning_rate=1e300, batch_size=5)
    net, _ = net_of(spec, dtype=torch.float32)
    assert net.train(np.arange(10, dtype=np.uint32))[2] == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_are_copies_in_the_nets_precision(dtype):
    spec = NetSpec(2, width=3)
    given_parameters = start(spec, INPUTS, CLASSES)
    net, (pixels, labels) = net_of(spec, parameters=given_parameters, dtype=dtype)
    for pair, given_pair in zip(net.parameters(), given_parameters, strict=True):
        for array, given_array in zip(pair, given_pair, strict=True):
            assert torch.from_numpy(array).dtype == dtype
            assert np.array_equal(array, given_array)
            array[:] = 0
            given_array[:] = 0
    assert all(w.any() for w, _ in net.parameters())
    assert net.gradients(pixels, labels)[0][0].dtype == net.parameters()[0][0].dtype


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_probe_is_what_the_gradients_and_the_fields_say(activation):
    spec = mean_field(3.0, depth=2, width=6, activation=activation)
    parameters = start(spec, INPUTS, CLASSES)
    net, (pixels, labels) = net_of(spec, 30, parameters=parameters)
    statistics = net.probe(pixels, labels, pixels[:4])
    assert list(statistics) == list(LAYER_STATISTICS)
    assert all(v.dtype == np.float64 and v.shape == (3,) for v in statistics.values())
    size = [np.abs(dw) for dw, _ in net.gradients(pixels, labels)]
    f, y, rms, slopes = ACTIVATIONS[activation], pixels / 255, [], []
    for w, b in in_float64(parameters)[:-1]:
        v = torch.from_numpy(y @ w + b)
        y = f.function(v).numpy()
        rms.append(np.sqrt((y**2).mean()))
        slopes.append(np.abs(f.derivative(v).numpy()))
    w, b = in_float64(parameters)[-1]
    rms.append(np.sqrt((softmax(y @ w + b) ** 2).mean()))
    expected = {
        "gradient_max": [g.max() for g in size],
        "gradient_mean": [g.mean() for g in size],
        "gradient_rms": [np.sqrt((g**2).mean()) for g in size],
        "activation_rms": rms,
        "slope_mean_square": [*((s**2).mean() for s in slopes), np.nan],
        "saturated": [*((s < 0.05 * f.lipschitz).mean() for s in slopes), np.nan],
        "dead": [*((s[:4] < 0.001 * f.lipschitz).all(0).mean() for s in slopes), np.nan],
    }
    for name in LAYER_STATISTICS:
        np.testing.assert_allclose(statistics[name], expected[name], rtol=1e-12, err_msg=name)


def test_probe_counts_dead_and_saturated_units():
    spec = NetSpec(1, width=4, activation="relu")
    parameters = start(spec, INPUTS, CLASSES)
    parameters[0][1][:] = [-1e3, 1e3, -1e3, 1e3]
    net, (pixels, labels) = net_of(spec, parameters=parameters)
    statistics = net.probe(pixels, labels, pixels)
    assert statistics["dead"][0] == statistics["saturated"][0] == 0.5
    assert statistics["slope_mean_square"][0] == 0.5


@pytest.mark.parametrize("weight", [0.5, 1e-3, 1e-6])
def test_probe_reads_gradients_of_any_size(weight):
    # With one unit a layer the back-propagated error is a product that can be written out.
    depth = 40
    spec = NetSpec(depth, width=1, activation="sigmoid")
    parameters = start(spec, INPUTS, CLASSES)
    for w, _ in parameters[1:-1]:
        w[:] = weight
    pixels, labels = pictures(1, INPUTS, CLASSES)
    net = ReferenceNet(spec, parameters, pixels, labels, CLASSES)
    y, outputs = pixels / 255, []
    for w, b in in_float64(parameters)[:-1]:
        y = 1 / (1 + np.exp(-(y @ w + b)))
        outputs.append(y.item())
    w, b = in_float64(parameters)[-1]
    error = ((softmax(y @ w + b) - np.eye(CLASSES)[labels]) @ w.T).item()
    by_hand = np.empty(depth)
    for layer in range(depth, 0, -1):
        error *= outputs[layer - 1] * (1 - outputs[layer - 1])
        below = outputs[layer - 2] if layer > 1 else (pixels / 255).max()
        by_hand[layer - 1] = abs(error * below)
        error *= in_float64(parameters)[layer - 1][0][0, 0]
    assert by_hand[0] < {0.5: 1e-30, 1e-3: 1e-100, 1e-6: 1e-200}[weight]
    statistics = net.probe(pixels, labels, pixels)
    np.testing.assert_allclose(statistics["gradient_max"][:-1], by_hand, rtol=1e-11)
    np.testing.assert_allclose(statistics["gradient_rms"][1:-1], by_hand[1:], rtol=1e-11)
