import numpy as np
import pytest
import torch

from unmask.errors import UserError
from unmask.flow.profile import IMAGES, Prediction
from unmask.sweep.engine import train_sweep
from unmask.sweep.init import initial_parameters
from unmask.sweep.native_net import NativeNet
from unmask.sweep.spec import NetSpec
from unmask.sweep.task import FlatImages
from unmask.web.flow_advice import advise, as_module, judge
from unmask.web.flow_live import live_images, profile_at_start, train_live

SMALL = NetSpec(3, 16, "tanh", "lecun_normal", learning_rate=0.1, epochs=2)


def test_what_trains_before_ones_eyes_is_what_the_sweep_trains() -> None:
    train, test = live_images()
    *_, run = train_live(SMALL, 2)
    sweep = train_sweep([SMALL, NetSpec(**{**SMALL.as_dict(), "seed": 1})], train, test=test)
    assert run.done
    assert [c.test for c in run.curves] == pytest.approx(sweep.test["test_accuracy"].tolist())
    for curve, losses in zip(run.curves, sweep.curves["train_loss"], strict=True):
        seen = np.diff([0, *curve.epochs])
        whole = (seen * curve.losses)[np.array(curve.epochs) <= 1].sum()
        assert whole == pytest.approx(losses[0], rel=1e-5)


def test_the_curves_grow() -> None:
    lengths = [len(run.curves[0].epochs) for run in train_live(SMALL, 1)]
    assert lengths == sorted(lengths)
    assert lengths[-1] > 2


def test_closing_it_stops_the_nets() -> None:
    running = train_live(NetSpec(50, 64, "relu", "he_normal", epochs=20), 2)
    next(running)
    running.close()
    with pytest.raises(StopIteration):
        next(running)


def test_a_net_that_diverges_ends_and_says_so() -> None:
    *_, run = train_live(NetSpec(5, 64, "relu", "he_normal", learning_rate=1e6, epochs=2), 1)
    assert run.done
    assert run.curves[0].diverged


@pytest.mark.parametrize(
    "spec", [NetSpec(101), NetSpec(3, 257), NetSpec(3, epochs=21), NetSpec(3, epochs=0)]
)
def test_what_takes_too_long_is_told(spec: NetSpec) -> None:
    with pytest.raises(UserError, match="must lie in 1 to"):
        next(train_live(spec, 1))
    with pytest.raises(UserError, match="number of nets"):
        next(train_live(SMALL, 9))


@pytest.mark.parametrize("activation", ["relu", "elu", "lecun", "erf", "linear"])
def test_the_module_is_the_net(activation: str) -> None:
    spec = NetSpec(4, 12, activation, "mean_field", sigma_w2=1.5, sigma_b2=0.1)
    flat = FlatImages.of(live_images()[0][:50])
    parameters = initial_parameters(spec, 784, 10)
    net = NativeNet(spec, parameters, flat.pixels, flat.labels, 10)
    x, y = torch.tensor(flat.pixels) / 255, torch.tensor(flat.labels)
    loss = torch.nn.functional.cross_entropy(as_module(spec)(x), y)
    assert loss.item() == pytest.approx(net.evaluate(flat.pixels, flat.labels)[0], rel=1e-4)


def test_the_profile_is_what_the_sweep_measures_and_theory_predicts() -> None:
    spec = NetSpec(8, 64, "tanh", "mean_field", sigma_w2=1.76, sigma_b2=0.05, epochs=0)
    train = live_images()[0]
    sweep = train_sweep([spec], train, probe_batch=train[:IMAGES])
    found = profile_at_start(spec)
    assert isinstance(found, Prediction)
    np.testing.assert_array_equal(found.gradient_rms, sweep.layers["gradient_rms"][0, 0])
    assert found.within(3) == len(found.layers) == 9


def test_a_deep_sigmoid_vanishes_and_the_fix_mends_it() -> None:
    spec = NetSpec(12, 48, "sigmoid", learning_rate=0.05, epochs=2)
    check = judge(spec)
    assert check.verdicts[0].kind == "vanishing"
    advice = advise(spec, check)
    assert advice is not None
    assert (advice.spec.activation, advice.spec.init) == ("tanh", "mean_field")
    assert "tanh instead of Sigmoid" in advice.words
    assert "vanishing" not in {v.kind for v in judge(advice.spec).verdicts}
    *_, before = train_live(spec, 1)
    *_, after = train_live(advice.spec, 1)
    assert before.curves[0].test < 0.2 < 0.7 < after.curves[0].test


def test_too_high_a_learning_rate_is_lowered() -> None:
    spec = NetSpec(3, 64, "relu", "he_normal", learning_rate=100.0)
    advice = advise(spec, judge(spec))
    assert advice is not None
    assert advice.spec.learning_rate < 10
    assert advice.spec.init == "he_normal"


def test_a_healthy_net_gets_no_advice() -> None:
    spec = NetSpec(3, 64, "relu", "he_normal", learning_rate=0.05)
    assert advise(spec, judge(spec)) is None
