"""Stacked nets against each net on its own, and the sweep that stacks against the kernel's."""

import dataclasses
import signal

import numpy as np
import pytest
import torch
from oracle import pictures, start

from unmask import Images, train_sweep
from unmask.sweep.engine import SweepInterrupted
from unmask.sweep.history import DIVERGED, FINISHED, LAYER_STATISTICS
from unmask.sweep.reference import ReferenceNet
from unmask.sweep.spec import LOSSES, OPTIMIZERS, NetSpec, grid
from unmask.sweep.stack import StackedNets, most_in_a_stack, stackable

INPUTS, CLASSES = 12, 5
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here"),
    ),
]


def stack_of(specs, data, device, dtype=torch.float64):
    starts = [start(s, INPUTS, CLASSES) for s in specs]
    stop = np.zeros(1, np.uint8)
    return StackedNets(specs, starts, *data, device=device, stop=stop, dtype=dtype)


def orders_of(count, nets, seed=0):
    generator = np.random.default_rng(seed)
    return np.stack([generator.permutation(count) for _ in range(nets)]).astype(np.uint32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_net_of_a_stack_is_the_net_on_its_own(optimizer, loss, device):
    common = {"width": 6, "batch_size": 4, "loss": loss, "optimizer": optimizer}
    specs = [NetSpec(3, seed=s, learning_rate=r, **common) for s, r in ((0, 0.1), (5, 0.02))]
    data = pictures(30, INPUTS, CLASSES)
    stack = stack_of(specs, data, device)
    alone = [
        ReferenceNet(s, start(s, INPUTS, CLASSES), *data, CLASSES, dtype=torch.float64)
        for s in specs
    ]
    # Batches of 4 leave a short one of 2, twice.
    for epoch in range(2):
        orders = orders_of(30, 2, epoch)
        figures = [net.train(order) for net, order in zip(alone, orders, strict=True)]
        np.testing.assert_allclose(stack.train(orders), figures, rtol=1e-11)
    unseen = pictures(17, INPUTS, CLASSES, seed=3)
    np.testing.assert_allclose(
        stack.evaluate(*unseen), [net.evaluate(*unseen) for net in alone], rtol=1e-11
    )
    for i, net in enumerate(alone):
        got = stack.probe(i, *unseen, unseen[0][:5])
        for name, values in net.probe(*unseen, unseen[0][:5]).items():
            np.testing.assert_allclose(got[name], values, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("device", DEVICES)
def test_a_net_that_diverges_leaves_the_others_alone(device):
    specs = [NetSpec(2, width=4, learning_rate=r, batch_size=5) for r in (0.1, 1e300, 0.1)]
    data = pictures(20, INPUTS, CLASSES)
    orders = np.stack([orders_of(20, 1)[0]] * 3)
    first, broken, last = stack_of(specs, data, device, torch.float32).train(orders)
    alone = ReferenceNet(specs[1], start(specs[1], INPUTS, CLASSES), *data, CLASSES)
    assert broken[2] == alone.train(orders[1])[2] > 0
    assert np.isnan(broken[:2]).all()
    assert first == last
    healthy = ReferenceNet(specs[0], start(specs[0], INPUTS, CLASSES), *data, CLASSES)
    assert first == pytest.approx(healthy.train(orders[0]), rel=1e-5)


def test_evaluation_is_one_mean_however_many_pictures(monkeypatch):
    monkeypatch.setattr("unmask.sweep.stack._EVALUATION_FLOATS", 100)
    specs = [NetSpec(1, width=3, seed=s) for s in range(2)]
    data = pictures(31, INPUTS, CLASSES)
    expected = [
        ReferenceNet(s, start(s, INPUTS, CLASSES), *data, CLASSES).evaluate(*data) for s in specs
    ]
    got = stack_of(specs, data, "cpu", torch.float32).evaluate(*data)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_only_what_is_alike_is_stacked_and_no_more_than_memory_holds():
    spec = NetSpec(3, seed=1)
    alike = dataclasses.replace(spec, seed=2, learning_rate=0.5, init="he_normal")
    assert stackable(spec) == stackable(alike)
    for change in ({"depth": 4}, {"width": 8}, {"activation": "relu"}, {"epochs": 3}):
        assert stackable(spec) != stackable(dataclasses.replace(spec, **change))
    assert most_in_a_stack(NetSpec(5), 784) == 512
    assert most_in_a_stack(NetSpec(1000, width=1024), 784) == 1
    weights = 100 * 256 * 256
    assert 4 * 4 * weights * most_in_a_stack(NetSpec(100, width=256), 784) < 2.2e9


@pytest.mark.parametrize("device", DEVICES)
def test_a_stacked_sweep_agrees_with_the_kernel(digits: Images, device) -> None:
    specs = grid(
        depth=[2, 3],
        activation=["tanh", "relu"],
        seed=range(3),
        width=8,
        batch_size=16,
        epochs=4,
        learning_rate=0.05,
    )
    train, test = digits.split(100)
    kernel, stacked = (
        train_sweep(
            specs, train, validation=test, test=test, probe_epochs=(0, 4), engine=e, device=d
        )
        for e, d in (("native", "cpu"), ("stacked", device))
    )
    assert (stacked.status == FINISHED).all()
    for group in ("curves", "test"):
        for name, values in getattr(kernel, group).items():
            np.testing.assert_allclose(getattr(stacked, group)[name], values, rtol=1e-3)
    for name in LAYER_STATISTICS:
        np.testing.assert_allclose(
            stacked.layers[name], kernel.layers[name], rtol=2e-3, atol=1e-12, err_msg=name
        )


def test_diverged_nets_are_the_kernels(digits: Images) -> None:
    rates = [0.05, 1e30, 0.05]
    common = {"activation": "relu", "epochs": 3, "batch_size": 16, "seed": 1}
    specs = [NetSpec(2, 8, learning_rate=r, **common) for r in rates]
    kernel, stacked = (
        train_sweep(specs, digits, test=digits, engine=e) for e in ("native", "stacked")
    )
    assert stacked.status.tolist() == [FINISHED, DIVERGED, FINISHED]
    assert stacked.diverged_step.tolist() == kernel.diverged_step.tolist()
    for history in (kernel, stacked):
        assert np.isnan(history.curves["train_loss"][1]).all()
        assert np.isnan(history.test["test_loss"][1])
        assert np.isfinite(history.layers["gradient_rms"][1]).all()


def test_ctrl_c_ends_a_stacked_sweep(digits: Images) -> None:
    specs = grid(depth=2, width=8, batch_size=1, epochs=1000, seed=range(4))

    def stop(progress) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(SweepInterrupted):
        train_sweep(specs, digits, engine="stacked", progress=stop)
