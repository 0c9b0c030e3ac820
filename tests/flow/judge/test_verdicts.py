"""Verdicts as a pure, scale-free function of statistics."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from unmask.flow.check import check_flow
from unmask.flow.judge import rates
from unmask.flow.judge.kinds import KINDS
from unmask.flow.judge.signals import constant
from unmask.flow.judge.verdicts import early, ordered, verdicts
from unmask.flow.measure.calls import LossCall, OutputStats
from unmask.flow.measure.probe import GradientProbe
from unmask.flow.measure.statistics import FlowStats
from unmask.verdict import SEVERITIES, Verdict


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def tanh_net(depth: int, gain: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        linear = nn.Linear(50, 50)
        nn.init.normal_(linear.weight, 0, gain / 50**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(50, 5))


@cache
def collected(gain: float, scale: float = 1.0, seed: int = 0) -> tuple[FlowStats, ...]:
    torch.manual_seed(seed)
    x, y = torch.randn(64, 50), torch.randint(5, (64,))

    def loss(output, targets):
        return scale * functional.cross_entropy(output, targets)

    model = tanh_net(15, gain)
    make = lambda p: torch.optim.SGD(p, lr=0.05 / scale)  # noqa: E731
    return check_flow(model, loss, (x, y), optimizer=make).history


def test_nothing_in_nothing_out():
    assert verdicts([]) == []


@pytest.mark.parametrize(("gain", "kind"), [(0.5, "vanishing"), (3.0, "exploding")])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_kinds_do_not_depend_on_the_scale_of_the_loss(gain, kind, scale):
    found = verdicts(collected(gain, scale, seed=1))
    assert kind in {v.kind for v in found if v.severity == "error"}
    healthy = verdicts(collected(1.0, scale, seed=1))
    assert not [v for v in healthy if v.severity == "error"]


@pytest.mark.parametrize("gain", [0.5, 1.0, 3.0])
def test_verdicts_are_pure(gain):
    history = collected(gain)
    before = copy.deepcopy(history)
    assert verdicts(history) == verdicts(list(history))
    assert history == before


def test_one_step_is_enough_and_may_stand_alone():
    history = collected(0.5)
    assert "vanishing" in {v.kind for v in verdicts(history[0])}
    assert verdicts(history[0]) == verdicts([history[0]])


def test_worst_first_with_all_they_need():
    found = verdicts(collected(0.3))
    ranks = [SEVERITIES.index(v.severity) for v in found]
    assert ranks == sorted(ranks, reverse=True)
    for v in found:
        assert v.kind in KINDS
        assert v.message
        assert v.fix
        assert v.evidence


def test_a_loop_of_the_users_needs_no_loss():
    model = tanh_net(15, 0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with GradientProbe(model) as probe:
        for _ in range(3):
            optimizer.zero_grad()
            x, y = torch.randn(64, 50), torch.randint(5, (64,))
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    found = {v.kind: v for v in verdicts(probe.history)}
    assert "vanishing" in found
    assert found["vanishing"].fix.startswith("initialise for tanh with sigma_w2 = 1.76")


def test_a_converged_network_is_not_taken_for_a_dead_one():
    model = tanh_net(3, 1.0)
    x, y = torch.randn(64, 50), torch.randint(5, (64,))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with GradientProbe(model, every=100) as probe:
        for _ in range(401):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    late = [s for s in probe.history if s.step >= 100]
    assert late[-1].matrix_layers[0].weight_gradient.rms < 1e-3
    assert [v.kind for v in verdicts(late) if v.severity == "error"] == []


def test_divergence_is_the_first_thing_said():
    history = list(collected(1.0))
    history[4] = replace(history[4], loss=float("nan"))
    found = verdicts(history)
    assert found[0].kind == "diverged"
    assert found[0].step == 4


def torchs_own(depth: int) -> nn.Sequential:
    """A plain tanh network with the weights that torch gives it."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(40 if i == 0 else 64, 64), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(64, 5))


def clusters(n: int):
    centres = torch.randn(5, 40, generator=torch.Generator().manual_seed(7)) * 1.5
    y = torch.randint(5, (n,))
    return centres[y] + torch.randn(n, 40), y


def momentum(parameters):
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)


@pytest.mark.parametrize(("depth", "severity"), [(6, "warning"), (12, "error")])
def test_a_fading_gradient_is_an_error_only_where_it_keeps_a_network_from_training(depth, severity):
    model = torchs_own(depth)
    check = check_flow(
        model, functional.cross_entropy, [clusters(64) for _ in range(10)], optimizer=momentum
    )
    assert {v.kind: v.severity for v in check.verdicts}["vanishing"] == severity
    optimizer = momentum(model.parameters())
    for _ in range(200):
        x, y = clusters(64)
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    x, y = clusters(500)
    accuracy = float((model(x).argmax(1) == y).float().mean())
    assert accuracy > 0.95 if severity == "warning" else accuracy < 0.7


def test_a_gradient_that_reaches_every_layer_after_a_few_steps_is_no_error():
    # The same fading start: Adam makes up for it in ten steps, plain descent does not.
    pairs = [clusters(64) for _ in range(10)]
    found = {}
    for name, make in {
        "Adam": lambda p: torch.optim.Adam(p, lr=3e-3),
        "SGD": lambda p: torch.optim.SGD(p, lr=0.01),
    }.items():
        torch.manual_seed(3)
        check = check_flow(torchs_own(8), functional.cross_entropy, pairs, optimizer=make)
        found[name] = {v.kind: v.severity for v in check.verdicts}["vanishing"]
    assert found == {"Adam": "note", "SGD": "error"}


@settings(max_examples=20, deadline=None)
@given(st.floats(-5, 5), st.sampled_from([1.0, 1e3, 1e-3]))
def test_inputs_are_judged_by_what_the_first_layer_makes_of_them(power, really):
    c = 10**power
    torch.manual_seed(0)
    model = tanh_net(2, 1.0)
    x, y = torch.randn(64, 50) * really, torch.randint(5, (64,))
    plain = check_flow(model, functional.cross_entropy, (x, y))
    with torch.no_grad():
        model[0].weight.div_(c)
    rescaled = check_flow(model, functional.cross_entropy, (x * c, y))
    assert plain.history[0].loss == pytest.approx(rescaled.history[0].loss, rel=1e-3)
    said = [any(v.kind == "inputs badly scaled" for v in c.verdicts) for c in (plain, rescaled)]
    assert said[0] == (really != 1.0)
    # The weights are to blame where they are further off than the inputs.
    to_blame = abs(math.log10(really * c)) - abs(math.log10(c))
    assert said[1] == (really != 1.0 and to_blame > 0) or abs(to_blame) < 0.1


def silenced(
    share: float, losses: list[float | None], units: int = 50, images: int = 512
) -> list[FlowStats]:
    """A short training in which so many units are off for these images, with these losses."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(50, units), nn.ReLU(), nn.Linear(units, 5))
    pair = torch.randn(64, 50), torch.randint(5, (64,))
    stats = check_flow(model, functional.cross_entropy, pair).history[0]
    first, last = stats.layers
    first = replace(first, slopes=replace(first.slopes, dead=share, dead_pictures=images))
    return [
        replace(stats, step=i, layers=(first, last), loss=loss) for i, loss in enumerate(losses)
    ]


@pytest.mark.parametrize(
    ("share", "losses", "severity"),
    [
        (0.45, [2.3, 2.1, 1.9], None),
        (0.45, [2.3, 2.31, 2.3], "warning"),
        (0.45, [2.3], "warning"),
        (0.45, [None, None], "warning"),
        (0.9, [2.3, 2.1, 1.9], "error"),
        (0.2, [2.3, 2.31, 2.3], None),
    ],
)
def test_half_of_the_units_may_sleep_while_the_network_learns(share, losses, severity):
    found = {v.kind: v.severity for v in verdicts(silenced(share, losses))}
    assert found.get("dead units") == severity


@pytest.mark.parametrize(
    ("share", "units", "severity"),
    # As under attack, where a tenth of many units may do.
    [(0.87, 30, "error"), (0.87, 100, "warning"), (0.97, 1000, "error")],
)
def test_few_units_do_where_they_are_more_than_the_outputs(share, units, severity):
    found = {v.kind: v.severity for v in verdicts(silenced(share, [2.3, 2.31, 2.3], units))}
    assert found["dead units"] == severity


@pytest.mark.parametrize(("share", "said"), [(0.5, False), (0.85, False), (1.0, True)])
def test_a_few_images_may_leave_units_off(share, said):
    found = verdicts(silenced(share, [2.3, 2.31, 2.3], 30, images=12))
    assert said == ("dead units" in {v.kind for v in found})


def test_outputs_that_are_shut_off_are_told_of_single_images():
    """Of one image nobody knows how outputs differ, but whether they are off."""
    model = nn.Sequential(nn.Linear(50, 5), nn.ReLU())
    nn.init.constant_(model[0].bias, -30)
    pair = torch.randn(1, 50), torch.randint(5, (1,))
    found = constant(check_flow(model, functional.cross_entropy, pair).history)
    assert found is not None
    assert "shuts off 100%" in found.message


@pytest.mark.parametrize(("losses", "certain"), [([0.5, 0.4, 0.2], False), ([0.5] * 3, True)])
def test_a_network_that_learns_may_say_the_mean_when_it_is_stopped(losses, certain):
    """All autoencoders do at first."""
    verdict = Verdict("constant outputs", "error", "the output is nearly the same", "initialise")
    assert early(verdict, silenced(0.0, losses), ended=True) != certain


def bare(depth: int, std: float) -> nn.Sequential:
    """A ReLU network without biases whose weights are so small."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(24, 24, bias=False), nn.ReLU()]
        nn.init.normal_(layers[-2].weight, 0, std)
    return nn.Sequential(*layers, nn.Linear(24, 5))


def test_a_signal_that_is_too_small_for_its_format_is_said_to_be():
    pair = torch.randn(64, 24), torch.randint(5, (64,))
    check = check_flow(bare(40, 1e-3), functional.cross_entropy, pair)
    sizes = [x.output.rms for x in check.history[0].matrix_layers[:-1]]
    lost = sizes.index(0.0)
    found = {v.kind: v for v in check.verdicts}["float underflow"]
    assert found.severity == "error"
    place = int(found.subject) // 2
    assert 0 < place <= lost
    assert sizes[place] < 1e-37
    assert "outputs" in found.message


def test_units_that_are_off_are_no_underflow():
    model = bare(6, 0.2)
    with torch.no_grad():
        model[4].weight.copy_(-model[4].weight.abs())
    pair = torch.randn(64, 24), torch.randint(5, (64,))
    check = check_flow(model, functional.cross_entropy, pair)
    assert check.history[0].matrix_layers[4].output.rms == 0
    assert "float underflow" not in {v.kind for v in check.verdicts}


def guess() -> LossCall:
    """Return the loss of a classifier of three classes that guesses."""
    return LossCall(
        *("cross_entropy", (16, 3), (16,), -1.0, 1.0, 0.0, 2.0, True, {0: 6, 1: 5, 2: 5}),
        *(None, None, "mean", 1.1, None),
    )


def course(losses: list[float], promise: float, pace: float) -> list[FlowStats]:
    """Return steps with these losses, each of which promised this fraction of its loss.

    The last one changes the weights by the fraction pace.
    """
    layers = collected(1.0)[0].layers
    share = promise / sum(x.matrix for x in layers)
    return [
        FlowStats(
            i,
            tuple(
                replace(
                    x,
                    expected_gain=share * abs(loss) if x.matrix else None,
                    update_to_weight_ratio=pace,
                )
                for x in layers
            ),
            loss=loss,
            optimizer="Adam",
            learning_rate=1e-3,
        )
        for i, loss in enumerate(losses)
    ]


@pytest.mark.parametrize(
    ("losses", "promise", "pace", "high"),
    [
        ([0.5, 4.0, 30.0, 200.0, 900.0], 3.0, 0.1, True),
        # Batches with more or fewer of what is rare.
        ([0.01, 0.04, 0.05, 0.03, 0.04], 0.05, 0.1, False),
        # One episode that is longer than others.
        ([3.6, 3.5, 13.6, 18.9], 0.9, 0.1, False),
        # Episodes that get longer and longer as they succeed.
        ([0.13, 2.4, 0.09, 1.3, 0.19, 10.4, 22.8], 2.0, 0.013, False),
        # A policy's returns, of both signs.
        ([-0.4, 0.7, 1.6, -0.3, -2.2], 2.0, 0.1, False),
        ([-0.4, 0.7, 1.6, -0.3, 3.0, 2.5], 2.0, 0.1, False),
        ([-0.4, 0.7, 1.6, 40.0, 300.0, 2000.0], 2.0, 0.1, True),
    ],
)
def test_a_loss_that_grows_is_due_to_steps_only_where_they_are_large(losses, promise, pace, high):
    kinds = {v.kind for v in verdicts(course(losses, promise, pace))}
    assert ("learning rate too high" in kinds) == high


@pytest.mark.parametrize(
    ("optimizer", "norms", "severity"),
    [("SGD", True, "warning"), ("SGD", False, "error"), ("Adam", True, "error")],
)
def test_a_loss_that_is_thrown_up_settles_where_weights_are_normalised(optimizer, norms, severity):
    history = []
    for s in course([2.5, 4.0, 7.0, 60.0, 80.0], 3.0, 0.08):
        layers = s.layers
        if norms:
            layers = tuple(
                y for x in layers for y in (x, replace(x, kind="BatchNorm1d", matrix=False))
            )
        history.append(replace(s, layers=layers, optimizer=optimizer, learning_rate=0.1))
    (found,) = (v for v in verdicts(history) if v.kind == "learning rate too high")
    assert found.severity == severity


@pytest.mark.parametrize(("pace", "low"), [(1.8e-4, False), (3e-5, True)])
def test_a_rate_is_too_low_by_the_change_of_weights_alone_only_where_that_is_tiny(pace, low):
    history = [
        replace(s, layers=tuple(replace(x, expected_gain=None) for x in s.layers))
        for s in course([2.3, 2.29, 2.28], 0.0, pace)
    ]
    assert ("learning rate too low" in {v.kind for v in verdicts(history)}) == low


@pytest.mark.parametrize(
    ("decays", "told"), [((2.1,), False), ((2.1, 0.4, 0.2), False), ((2.1, 2.0, 1.9), True)]
)
def test_the_first_step_alone_says_little_of_weight_decay(decays, told):
    history = [
        replace(s, parameters=replace(s.parameters, decay=d))
        for s, d in zip(collected(1.0), decays, strict=False)
        if s.parameters is not None
    ]
    assert ("weight decay too large" in {v.kind for v in verdicts(history)}) == told


@pytest.mark.parametrize(
    ("pace", "classifies", "severity"),
    [
        (3e-5, False, "error"),
        (6e-5, False, "warning"),
        (8e-5, True, "error"),
        (1.6e-4, True, "warning"),
    ],
)
def test_a_rate_that_is_slow_is_a_warning(pace, classifies, severity):
    # Such as SGD at 0.01 for a network of linear layers, or RMSprop at 0.00005 for a critic, which
    # are slow and get there.
    steps = course([2.3, 2.3, 2.3], 5e-5, pace)
    if classifies:
        steps = [replace(s, calls=(guess(),)) for s in steps]
    (found,) = (v for v in verdicts(steps) if v.kind == "learning rate too low")
    assert found.severity == severity


def test_behind_an_output_layer_of_zeros_nothing_moves_at_the_first_step():
    model = nn.Sequential(nn.Linear(50, 32), nn.ReLU(), nn.Linear(32, 5))
    nn.init.zeros_(model[2].weight)
    pair = torch.randn(64, 50), torch.randint(5, (64,))
    check = check_flow(model, functional.cross_entropy, pair, optimizer=momentum, steps=1)
    assert check.history[0].matrix_layers[0].update_to_weight_ratio == 0
    assert "learning rate too low" not in {v.kind for v in check.verdicts}


def test_a_rate_is_never_said_to_be_too_high_and_too_low():
    high, low = (Verdict(f"learning rate too {way}", "error", "") for way in ("high", "low"))
    assert ordered([low, high]) == [high]
    assert ordered([low]) == [low]


@pytest.mark.parametrize(("before", "passes"), [(0.4, 1), (0.4, 8), (1e-6, 1)])
def test_constant_outputs_name_the_steps_that_made_them(before, passes):
    call = guess()
    first, last = (
        FlowStats(
            *(step, ()),
            loss=1.1 * passes,
            passes=passes,
            calls=(call,) * passes,
            output=OutputStats(3, variation),
            optimizer="SGD",
            learning_rate=0.1,
        )
        for step, variation in ((0, before), (100, 0.0))
    )
    made = Verdict("constant outputs", "error", "the output is the same", "initialise")
    found = rates.collapsed(made, [first, last])
    if before < 0.01:
        assert found == made
    else:
        assert "before the first step" in found.cause
        assert ("8 batches" in found.cause) == (passes == 8)
        assert ("rate 1e-2" in found.fix) == (passes == 1)


def thrown(first: float, late: float) -> list[FlowStats]:
    """Return a training whose first step had that update ratio and whose loss ends there."""
    seen = collected(1.0)[0]
    call = LossCall(
        "cross_entropy", (64, 5), (64,), 0, 0, 0, 4, True, {}, "scores", None, "mean", 1.6, None
    )
    guesses = math.log(5)

    def at(step: int, ratio: float, loss: float) -> FlowStats:
        layers = tuple(replace(x, update_to_weight_ratio=ratio) for x in seen.layers)
        calls = (replace(call, value=loss),)
        return replace(seen, step=step, layers=layers, loss=loss, loss_after=None, calls=calls)

    later = [at(step, 1e-4, late * guesses) for step in (100, 200)]
    return [at(0, first, guesses), at(1, 0.1, guesses), at(8, 0.05, guesses), *later]


@pytest.mark.parametrize(
    ("first", "late", "told"), [(0.4, 1.0, True), (0.4, 0.6, False), (0.02, 1.0, False)]
)
def test_a_classifier_that_its_first_steps_threw_off(first, late, told):
    found = rates.too_high(thrown(first, late))
    assert (found is not None and "still that of guessing" in found.message) == told
