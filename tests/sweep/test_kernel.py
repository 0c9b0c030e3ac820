"""The native net against the reference net in double precision, for every instruction set."""

import functools
import math

import numpy as np
import pytest
import torch
from oracle import assert_layers_agree, mean_field, pictures, relative_difference, start

from unmask.models.activations import ACTIVATIONS
from unmask.sweep.history import LAYER_STATISTICS
from unmask.sweep.init import epoch_order, initial_parameters
from unmask.sweep.native_net import NativeNet, instruction_sets
from unmask.sweep.reference import ReferenceNet
from unmask.sweep.spec import LOSSES, OPTIMIZERS, NetSpec

INPUTS, CLASSES = 61, 10
WIDTHS, COUNTS = (1, 3, 17, 33, 100), (7, 32, 50)
RATES = {"sgd": 0.1, "momentum": 0.02, "adam": 0.002}
GRADIENT_TOLERANCE, TRAINING_TOLERANCE, LOSS_TOLERANCE = 1e-4, 1e-3, 1e-4
STORAGE = 3e-6  # of a parameter: what 50 roundings to single precision may come to

each_isa = pytest.mark.parametrize("isa", instruction_sets())
each_activation = pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
each_loss = pytest.mark.parametrize("loss", LOSSES)
each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def native(spec, data, isa, *, parameters=None, classes=CLASSES):
    parameters = start(spec, data[0].shape[1], classes) if parameters is None else parameters
    return NativeNet(spec, parameters, *data, classes, isa=isa)


def oracle(spec, data, *, parameters=None, classes=CLASSES, dtype=torch.float64):
    parameters = start(spec, data[0].shape[1], classes) if parameters is None else parameters
    return ReferenceNet(spec, parameters, *data, classes, dtype=dtype)


def train(net, spec, n, epochs):
    return [net.train(epoch_order(spec, e, n)) for e in range(epochs)]


@functools.cache
def oracle_training(spec, n, epochs, inputs=INPUTS):
    net = oracle(spec, pictures(n, inputs, CLASSES))
    return train(net, spec, n, epochs), net.parameters()


def assert_trains_like_the_oracle(spec, n, epochs, isa, inputs=INPUTS):
    """The same curves and parameters, and the same way from the start, which is far shorter than
    the parameters are large: layers that hardly move must move alike."""
    figures, parameters = oracle_training(spec, n, epochs, inputs)
    net = native(spec, pictures(n, inputs, CLASSES), isa)
    for got, expected in zip(train(net, spec, n, epochs), figures, strict=True):
        assert got[0] == pytest.approx(expected[0], rel=LOSS_TOLERANCE)
        assert got[1] == pytest.approx(expected[1], abs=1.5 / n)
        assert got[2] == expected[2] == -1
    assert_layers_agree(net.parameters(), parameters, TRAINING_TOLERANCE)
    for pair, expected_pair, start_pair in zip(
        net.parameters(), parameters, start(spec, inputs, CLASSES), strict=True
    ):
        for got, expected, origin in zip(pair, expected_pair, start_pair, strict=True):
            way, size = np.linalg.norm(expected - origin), np.linalg.norm(expected)
            allowed = TRAINING_TOLERANCE * way + STORAGE * size
            assert np.linalg.norm(got - expected) <= allowed


@each_isa
@each_activation
def test_functions_hold_single_precision(activation, isa):
    # One unit with weight 0 and bias v: its probe reads |f(v)| and f'(v)^2.
    fields = np.r_[np.linspace(-12, 12, 121), -100, -30, -1e-3, 1e-3, 30, 100].astype(np.float32)
    pixels, labels = np.zeros((1, 1), np.uint8), np.zeros(1, np.int64)
    spec, f = NetSpec(1, 1, activation), ACTIVATIONS[activation]
    last = np.ones((1, 2), np.float32), np.zeros(2, np.float32)
    for v in fields:
        parameters = [(np.zeros((1, 1), np.float32), np.full(1, v)), last]
        net = native(spec, (pixels, labels), isa, parameters=parameters, classes=2)
        statistics = net.probe(pixels, labels, pixels)
        exact = torch.tensor(v, dtype=torch.float64)
        value, slope = abs(f.function(exact).item()), abs(f.derivative(exact).item())
        allowed = 1e-6 * max(1.0, abs(float(v)))
        assert statistics["activation_rms"][0] == pytest.approx(value, abs=allowed), v
        assert math.sqrt(statistics["slope_mean_square"][0]) == pytest.approx(slope, abs=1e-6), v


@each_isa
@each_loss
@each_activation
@pytest.mark.parametrize("depth", [1, 5])
def test_gradients_are_autograds(depth, activation, loss, isa):
    # At width 1 a gradient is one sum over the images. It can cancel to a thousandth of its terms
    # (as with seed 1, SiLU and 5 layers), and then no sum in single precision holds 1e-4; with this
    # seed none does.
    for width in WIDTHS:
        spec = mean_field(1.5, depth=depth, width=width, activation=activation, loss=loss, seed=2)
        for count in COUNTS:
            data = pictures(count, INPUTS, CLASSES)
            got, expected = native(spec, data, isa), oracle(spec, data)
            assert_layers_agree(
                got.gradients(*data),
                expected.gradients(*data),
                GRADIENT_TOLERANCE,
                f"at width {width} and {count} images",
            )


@each_isa
@pytest.mark.parametrize(("inputs", "classes"), [(1, 2), (784, 10), (16, 16), (17, 33), (5, 1)])
def test_gradients_for_other_inputs_and_classes(inputs, classes, isa):
    data = pictures(50, inputs, classes)
    for loss in LOSSES:
        spec = mean_field(1.5, depth=2, width=20, activation="tanh", loss=loss)
        got, expected = (
            make(spec, data, classes=classes)
            for make in (functools.partial(native, isa=isa), oracle)
        )
        assert_layers_agree(
            got.gradients(*data), expected.gradients(*data), GRADIENT_TOLERANCE, loss
        )


@each_isa
@pytest.mark.parametrize(("depth", "width", "count"), [(1000, 4, 8), (2, 1024, 8), (2, 32, 500)])
def test_gradients_at_the_ends_of_what_a_spec_allows(depth, width, count, isa):
    spec = NetSpec(depth, width, "linear", "orthogonal")
    data = pictures(count, 784, CLASSES)
    got, expected = native(spec, data, isa), oracle(spec, data)
    assert_layers_agree(got.gradients(*data), expected.gradients(*data), GRADIENT_TOLERANCE)


@each_isa
@each_optimizer
@each_loss
@each_activation
def test_fifty_steps_stay_with_the_reference(activation, loss, optimizer, isa):
    spec = NetSpec(
        3, 17, activation, loss=loss, optimizer=optimizer, learning_rate=RATES[optimizer], seed=2
    )
    assert_trains_like_the_oracle(spec, 310, 5, isa)  # 310 images: nine of 32 and one of 22


@each_isa
@each_optimizer
@pytest.mark.parametrize("batch_size", COUNTS)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("depth", [1, 5])
def test_other_shapes_stay_with_the_reference(depth, width, batch_size, optimizer, isa):
    spec = NetSpec(
        depth,
        width,
        optimizer=optimizer,
        learning_rate=RATES[optimizer],
        batch_size=batch_size,
        seed=3,
    )
    n = 4 * batch_size + 3
    assert_trains_like_the_oracle(spec, n, 10, isa)


@each_isa
@pytest.mark.parametrize("n", [1, 31, 32, 33])
def test_a_batch_of_any_length_trains(n, isa):
    spec = NetSpec(2, 17, learning_rate=0.1)
    assert_trains_like_the_oracle(spec, n, 3, isa, inputs=784)


@each_isa
@each_optimizer
@pytest.mark.parametrize("sigma_w2", [0.3, 1e-3])
def test_a_net_whose_gradient_vanishes_trains_like_the_reference(sigma_w2, optimizer, isa):
    # From the last layer to the first the gradient passes Adam's epsilon and the smallest float.
    spec = mean_field(
        sigma_w2,
        depth=40,
        width=16,
        activation="sigmoid",
        optimizer=optimizer,
        learning_rate=RATES[optimizer],
    )
    assert_trains_like_the_oracle(spec, 80, 5, isa)


@each_isa
@each_loss
@each_activation
def test_evaluation_is_the_references(activation, loss, isa):
    spec = mean_field(1.5, depth=3, width=33, activation=activation, loss=loss)
    data = pictures(301, INPUTS, CLASSES)
    got, expected = native(spec, data, isa), oracle(spec, data)
    for count in (1, 7, 64, 301):
        some = data[0][:count], data[1][:count]
        loss_got, accuracy_got = got.evaluate(*some)
        loss_expected, accuracy_expected = expected.evaluate(*some)
        assert loss_got == pytest.approx(loss_expected, rel=1e-4)
        assert accuracy_got == pytest.approx(accuracy_expected, abs=0.5 / count)


@each_isa
def test_the_first_of_equal_outputs_wins(isa):
    spec = mean_field(0.0, 0.0, depth=2, width=5)
    data = pictures(200, INPUTS, CLASSES)
    parameters = [(0 * w, 0 * b) for w, b in start(spec, INPUTS, CLASSES)]
    net = native(spec, data, isa, parameters=parameters)
    assert net.evaluate(*data) == pytest.approx((math.log(CLASSES), np.mean(data[1] == 0)))


@each_isa
@each_activation
@pytest.mark.parametrize("depth", [1, 5])
def test_probe_is_the_references(depth, activation, isa):
    data, (dead_pixels, _) = pictures(50, INPUTS, CLASSES), pictures(130, INPUTS, CLASSES, seed=1)
    for width in (1, 17, 100):
        spec = mean_field(4.0, 0.5, depth=depth, width=width, activation=activation)
        got = native(spec, data, isa).probe(*data, dead_pixels)
        expected = oracle(spec, data).probe(*data, dead_pixels)
        assert list(got) == list(LAYER_STATISTICS)
        for name in LAYER_STATISTICS:
            assert got[name].dtype == np.float64
            # A count may differ by the one pair or unit that lies on the threshold.
            one = {"saturated": 1 / (width * 50), "dead": 1e-9}.get(name, 0)
            np.testing.assert_allclose(
                got[name], expected[name], rtol=1e-4, atol=1.01 * one, err_msg=f"{name} at {width}"
            )


@each_isa
@each_loss
@pytest.mark.parametrize(
    ("sigma_w2", "size"), [(0.5, 1e-30), (0.05, 1e-45), (1e-4, 1e-100), (1e-9, 1e-200)]
)
def test_tiny_gradients_are_read(sigma_w2, size, loss, isa):
    spec = mean_field(sigma_w2, depth=40, width=32, activation="sigmoid", loss=loss)
    data = pictures(32, INPUTS, CLASSES)
    got = native(spec, data, isa).probe(*data, data[0])
    expected = oracle(spec, data).probe(*data, data[0])
    assert 0 < expected["gradient_max"][0] < size
    for name in LAYER_STATISTICS:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-3, err_msg=name)


@each_isa
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "tanh", "silu", "erf"])
def test_gradients_of_a_signal_that_vanishes_are_read(activation, isa):
    f = ACTIVATIONS[activation]
    slope = float(f.derivative(torch.tensor([-1e-6, 1e-6])).square().mean().sqrt())
    spec = mean_field(0.03 / slope**2, 0.0, depth=40, width=32, activation=activation)
    data = pictures(32, INPUTS, CLASSES)
    parameters = initial_parameters(spec, INPUTS, CLASSES)
    got = native(spec, data, isa, parameters=parameters).probe(*data, data[0])
    expected = oracle(spec, data, parameters=parameters).probe(*data, data[0])
    assert 0 < expected["activation_rms"][-2] < 1e-28
    assert 0 < expected["gradient_max"].min() < 1e-28
    for name in LAYER_STATISTICS:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-3, err_msg=name)


@each_isa
def test_huge_gradients_are_read(isa):
    spec = mean_field(16.0, depth=40, width=32, activation="linear")
    data = pictures(32, INPUTS, CLASSES)
    got = native(spec, data, isa).probe(*data, data[0])
    expected = oracle(spec, data).probe(*data, data[0])
    assert expected["gradient_max"].min() > 1e20
    for name in LAYER_STATISTICS:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-3, err_msg=name)


@each_isa
@each_activation
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_a_bad_weight_ends_the_net_at_the_references_step(layer, value, activation, isa):
    spec = NetSpec(3, 17, activation, batch_size=8)
    data = pictures(20, INPUTS, CLASSES)
    parameters = start(spec, INPUTS, CLASSES)
    parameters[layer][0][:, 1] = value
    order = np.arange(20, dtype=np.uint32)
    got = native(spec, data, isa, parameters=parameters).train(order)
    expected = oracle(spec, data, parameters=parameters, dtype=torch.float32).train(order)
    assert got[2] == expected[2]


@each_isa
def test_steps_are_counted_over_the_nets_life(isa):
    # Image 7 alone lights the input whose weights overflow: in batches of 2 that is step 4.
    spec = NetSpec(1, 3, "linear", batch_size=2)
    parameters = start(spec, INPUTS, CLASSES)
    parameters[0][0][0], parameters[0][1][:], parameters[1][0][:] = 3e38, 0.0, 1.0
    pixels, labels = pictures(10, INPUTS, CLASSES)
    pixels[:] = 0
    pixels[7, 0] = 255
    net = native(spec, (pixels, labels), isa, parameters=parameters)
    order = np.arange(10, dtype=np.uint32)
    assert net.train(order[:6])[2] == -1
    assert net.train(order[6:])[2] == 4


@each_isa
@each_optimizer
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "selu", "gelu", "silu", "linear"])
def test_a_learning_rate_too_large_ends_the_net_at_the_references_step(activation, optimizer, isa):
    spec = NetSpec(4, 17, activation, optimizer=optimizer, learning_rate=1e10, batch_size=8)
    data = pictures(12, INPUTS, CLASSES)
    steps = []
    for net in (native(spec, data, isa), oracle(spec, data, dtype=torch.float32)):
        for epoch in range(10):
            step = net.train(epoch_order(spec, epoch, 12))[2]
            if step != -1:
                break
        steps.append(step)
    assert steps[0] == steps[1] > 1


@each_isa
@each_optimizer
def test_a_learning_rate_beyond_single_precision_diverges_and_does_not_raise(optimizer, isa):
    spec = NetSpec(2, 17, optimizer=optimizer, learning_rate=1e300, batch_size=8)
    data = pictures(24, INPUTS, CLASSES)
    assert native(spec, data, isa).train(np.arange(24, dtype=np.uint32))[2] == 2


@each_isa
@each_optimizer
def test_repetition_gives_the_same_bits(optimizer, isa):
    spec = NetSpec(3, 33, optimizer=optimizer, learning_rate=RATES[optimizer], batch_size=7)
    data = pictures(60, INPUTS, CLASSES)

    def run():
        net = native(spec, data, isa)
        curve = train(net, spec, 60, 3)
        return [*net.parameters(), net.evaluate(*data), *curve, *net.probe(*data, data[0]).items()]

    for first, second in zip(run(), run(), strict=True):
        for a, b in zip(first, second, strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@each_isa
def test_measuring_changes_nothing(isa):
    spec = NetSpec(3, 33, optimizer="adam", learning_rate=0.002, batch_size=7)
    data = pictures(60, INPUTS, CLASSES)
    quiet, measured = native(spec, data, isa), native(spec, data, isa)
    for epoch in range(3):
        measured.evaluate(*data)
        measured.probe(*data, data[0])
        measured.gradients(*data)
        measured.parameters()
        assert quiet.train(epoch_order(spec, epoch, 60)) == measured.train(
            epoch_order(spec, epoch, 60)
        )
    assert_layers_agree(measured.parameters(), quiet.parameters(), 0.0)


@each_isa
@pytest.mark.parametrize("width", WIDTHS)
def test_parameters_come_back_as_given(width, isa):
    spec = NetSpec(3, width)
    data = pictures(5, INPUTS, CLASSES)
    given_parameters = start(spec, INPUTS, CLASSES)
    net = native(spec, data, isa, parameters=given_parameters)
    assert_layers_agree(net.parameters(), given_parameters, 0.0)
    assert all(a.dtype == np.float32 for pair in net.parameters() for a in pair)


@each_isa
@each_activation
def test_saturated_units_pass_back_what_the_reference_does(activation, isa):
    # Fields up to about 100 reach the ends of every rational and exponential approximation.
    spec = mean_field(400.0, 4.0, depth=1, width=64, activation=activation)
    data = pictures(64, INPUTS, CLASSES)
    parameters = start(spec, INPUTS, CLASSES)
    parameters[1][0][:] *= 1e-3
    got = native(spec, data, isa, parameters=parameters)
    expected = oracle(spec, data, parameters=parameters)
    assert_layers_agree(got.gradients(*data), expected.gradients(*data), GRADIENT_TOLERANCE)
    assert relative_difference(got.evaluate(*data), expected.evaluate(*data)) < 1e-5
