"""GradientProbe against closed forms, float64 autograd and awkward training loops."""

from __future__ import annotations

import copy
import itertools
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.modules import module as hooks
from torch.optim import optimizer as optimizer_hooks

from unmask.errors import UserError
from unmask.flow.judge.indicators import sensitivities
from unmask.flow.measure.layers import spread
from unmask.flow.measure.magnitude import measure
from unmask.flow.measure.probe import EARLY_STEPS, GradientProbe
from unmask.flow.measure.statistics import FlowStats


def attached() -> int:
    """Count every hook that torch holds for all modules and optimisers, and the modes entered."""
    return (
        len(hooks._global_forward_hooks)
        + len(hooks._global_forward_pre_hooks)
        + len(optimizer_hooks._global_optimizer_pre_hooks)
        + len(optimizer_hooks._global_optimizer_post_hooks)
        + torch._C._len_torch_function_stack()
    )


@pytest.fixture(autouse=True)
def nothing_left_attached():
    torch.manual_seed(0)
    before = attached()
    yield
    assert attached() == before


def mlp(*sizes: int, phi: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    parts: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(sizes):
        parts += [nn.Linear(n_in, n_out), phi()]
    return nn.Sequential(*parts[:-1])


def probed(model: nn.Module, x, y, steps: int = 1, lr: float = 0.1, **options) -> list[FlowStats]:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr)
    with GradientProbe(model, every=1, **options) as probe:
        for _ in range(steps):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return probe.history


def batch(n: int = 16, size: int = 8, classes: int = 3):
    return torch.randn(n, size), torch.randint(classes, (n,))


def test_linear_net_matches_its_closed_form():
    model = nn.Linear(4, 1, bias=False)
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = model.weight.detach().clone()
    with GradientProbe(model) as probe:
        model(x).sum().backward()
        optimizer.step()
    layer = probe.stats.layers[0]
    # d(wx)/dw = x, d(wx)/d(wx) = 1, the step is 0.01 x, and it lowers the loss by 0.01 |x|^2.
    assert layer.weight_gradient.maximum == 4
    assert layer.weight_gradient.mean == pytest.approx(2.5)
    assert layer.weight_gradient.rms == pytest.approx(math.sqrt(30 / 4))
    assert layer.output_gradient.rms == layer.output_gradient.maximum == 1
    assert layer.update_to_weight_ratio == pytest.approx(
        0.01 * math.sqrt(30) / float(before.norm()), rel=1e-5
    )
    assert layer.expected_gain == pytest.approx(0.3, rel=1e-5)


def test_identity_net_passes_gradients_unchanged():
    model = nn.Sequential(*[nn.Linear(6, 6, bias=False) for _ in range(5)])
    for layer in model:
        nn.init.eye_(layer.weight)
    x, y = batch(size=6, classes=6)
    (stats,) = probed(model, x, y)
    first = stats.layers[0].output_gradient
    for layer in stats.layers[1:]:
        assert layer.output_gradient.rms / first.rms == pytest.approx(1, abs=1e-6)
    assert [layer.name for layer in stats.layers] == list("01234")


@pytest.mark.parametrize(
    "phi", [nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.SELU]
)
def test_agrees_with_float64_autograd(phi):
    model = mlp(8, 7, 6, 3, phi=phi)
    x, y = batch()
    oracle = copy.deepcopy(model).double()
    outputs, z = [], x.double()
    for part in oracle:
        z = part(z)
        if isinstance(part, nn.Linear):
            outputs.append(z)
    loss = functional.cross_entropy(z, y)
    slopes = []
    for before in outputs[:-1]:
        leaf = before.detach().requires_grad_()
        slopes.append(torch.autograd.grad(phi()(leaf).sum(), leaf)[0])
    to_outputs = torch.autograd.grad(loss, outputs, retain_graph=True)
    to_weights = torch.autograd.grad(loss, [p.weight for p in oracle if hasattr(p, "weight")])

    (stats,) = probed(model, x, y)
    assert len(stats.layers) == 3
    for layer, output, d_output, d_weight in zip(
        stats.layers, outputs, to_outputs, to_weights, strict=True
    ):
        for seen, true in (
            (layer.output, output),
            (layer.output_gradient, d_output),
            (layer.weight_gradient, d_weight),
        ):
            assert seen.maximum == pytest.approx(true.abs().max().item(), rel=1e-4)
            assert seen.mean == pytest.approx(true.abs().mean().item(), rel=1e-4)
            assert seen.rms == pytest.approx(true.square().mean().sqrt().item(), rel=1e-4)
        deviation = (output - output.mean(0)).square().mean().sqrt()
        ratio = (deviation / output.square().mean().sqrt()).item()
        assert layer.variation == pytest.approx(ratio, rel=1e-4)
    for layer, slope in zip(stats.layers, slopes, strict=False):
        assert layer.slopes.rms == pytest.approx(slope.square().mean().sqrt().item(), rel=1e-4)
        assert layer.slopes.quantiles[0] >= slope.abs().min().item() - 1e-6
        assert layer.slopes.quantiles[-1] <= slope.abs().max().item() + 1e-6
    assert stats.layers[-1].slopes is None


@given(exponent=st.integers(-40, 30), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_measure_survives_any_scale(exponent, seed):
    scale = 10.0**exponent
    x = torch.randn(50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    largest, mean, rms, zero, tiny = measure((x * scale).float())
    exact = (x * scale).float().double()
    assert largest == pytest.approx(exact.abs().max().item())
    # Below 1e-38 a float32 keeps few digits of the quotients.
    close = 1e-5 if exponent > -37 else 1e-2
    assert mean * largest == pytest.approx(exact.abs().mean().item(), rel=close)
    assert rms * largest == pytest.approx(exact.square().mean().sqrt().item(), rel=close)
    assert zero == pytest.approx((exact == 0).double().mean().item(), abs=1e-9)
    subnormal = (exact != 0) & (exact.abs() <= torch.finfo(torch.float32).tiny)
    assert tiny == pytest.approx(subnormal.double().mean().item(), abs=1e-9)


def test_squares_that_float32_loses_are_kept():
    x = torch.full((100,), 1e-30)
    assert float(x.square().sum()) == 0
    largest, _, rms, _, _ = measure(x)
    assert largest * rms == pytest.approx(1e-30)


def test_functional_activations_are_seen_like_modules():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 7), nn.Linear(7, 6), nn.Linear(6, 3)

        def forward(self, x):
            x = functional.relu(self.a(x), inplace=True)
            return self.c(self.b(x).tanh_())

    model = Functional()
    with torch.no_grad():
        twin = nn.Sequential(model.a, nn.ReLU(), model.b, nn.Tanh(), model.c)
    x, y = batch()
    (seen,) = probed(copy.deepcopy(model), x, y)
    (same,) = probed(copy.deepcopy(twin), x, y)
    assert [s.slopes for s in seen.layers] == [s.slopes for s in same.layers]
    assert [s.output for s in seen.layers] == [s.output for s in same.layers]
    assert [s.output_gradient for s in seen.layers] == [s.output_gradient for s in same.layers]


def test_unknown_activations_are_absent_not_guessed():
    class Square(nn.Module):
        def forward(self, x):
            return x * x

    x, y = batch()
    (stats,) = probed(nn.Sequential(nn.Linear(8, 5), Square(), nn.Linear(5, 3)), x, y)
    assert stats.layers[0].slopes is None
    assert stats.layers[0].output_gradient is not None


def test_a_unit_is_dead_only_over_the_whole_probe_set():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
    silent = torch.tensor([[1.0, -1.0]]).repeat(40, 1)
    woken = torch.tensor([[1.0, 1.0]]).repeat(40, 1)
    y = torch.zeros(40, dtype=torch.long)
    with GradientProbe(model, every=1) as probe:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        for x in (silent, silent, woken):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    shares = [(s.layers[0].slopes.dead, s.layers[0].slopes.dead_pictures) for s in probe.history]
    assert shares == [(0.5, 40), (0.5, 80), (0.0, 120)]


def test_saturated_fraction_of_tanh():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh(), nn.Linear(1, 2))
    with torch.no_grad():
        model[0].weight.fill_(1)
    # 1 - tanh(2.18)^2 = 0.0499: three of four inputs lie beyond.
    x = torch.tensor([[0.0], [2.19], [-3.0], [9.0]])
    (stats,) = probed(model, x, torch.zeros(4, dtype=torch.long))
    assert stats.layers[0].slopes.saturated == 0.75


def test_gradient_accumulation_counts_as_one_step():
    x, y = batch(32)
    once, parts = mlp(8, 6, 3), mlp(8, 6, 3)
    parts.load_state_dict(once.state_dict())
    (whole,) = probed(once, x, y)
    optimizer = torch.optim.SGD(parts.parameters(), lr=0.1)
    with GradientProbe(parts, every=1) as probe:
        for rows in (slice(0, 8), slice(8, 16), slice(16, 24), slice(24, 32)):
            (functional.cross_entropy(parts(x[rows]), y[rows]) / 4).backward()
        optimizer.step()
    (stats,) = probe.history
    for a, b in zip(stats.layers, whole.layers, strict=True):
        assert a.weight_gradient.rms == pytest.approx(b.weight_gradient.rms, rel=1e-4)
        assert a.output_gradient.rms == pytest.approx(b.output_gradient.rms, rel=1e-4)
        assert a.output.rms == pytest.approx(b.output.rms, rel=1e-5)
        assert a.update_to_weight_ratio == pytest.approx(b.update_to_weight_ratio, rel=1e-4)


def test_grad_scaler_leaves_the_figures_alone():
    x, y = batch()
    plain, scaled = mlp(8, 6, 3), mlp(8, 6, 3)
    scaled.load_state_dict(plain.state_dict())
    (whole,) = probed(plain, x, y)
    optimizer = torch.optim.SGD(scaled.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    with GradientProbe(scaled, every=1, scaler=scaler) as probe:
        scaler.scale(functional.cross_entropy(scaled(x), y)).backward()
        scaler.step(optimizer)
        scaler.update()
    (stats,) = probe.history
    for a, b in zip(stats.layers, whole.layers, strict=True):
        assert a.weight_gradient.rms == pytest.approx(b.weight_gradient.rms, rel=1e-4)
        assert a.output_gradient.rms == pytest.approx(b.output_gradient.rms, rel=1e-4)
        assert a.expected_gain == pytest.approx(b.expected_gain, rel=1e-3)


def test_a_step_the_scaler_skips_is_probed_again():
    model = mlp(8, 6, 3)
    x, y = batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    with GradientProbe(model, every=1, scaler=scaler) as probe:
        while not probe.history:
            optimizer.zero_grad()
            # Large enough to overflow until the scale has halved a few times.
            scaler.scale(8 * functional.cross_entropy(model(x), y)).backward()
            scaler.step(optimizer)
            scaler.update()
    assert scaler.get_scale() < 2.0**127
    (stats,) = probe.history
    assert stats.step == 0
    assert all(layer.output_gradient.finite for layer in stats.layers)


def test_several_optimisers_make_one_step():
    model = mlp(8, 6, 3)
    first = torch.optim.SGD(model[0].parameters(), lr=0.1)
    second = torch.optim.Adam(model[2].parameters(), lr=0.01)
    x, y = batch()
    with GradientProbe(model, every=1) as probe:
        for _ in range(3):
            model.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            first.step()
            second.step()
    assert [s.step for s in probe.history] == [0, 1, 2]
    for stats in probe.history:
        assert all(layer.update_to_weight_ratio > 0 for layer in stats.layers)


def test_another_models_optimiser_is_not_ours():
    model, other = mlp(8, 6, 3), mlp(8, 6, 3)
    x, y = batch()
    with GradientProbe(model, every=1) as probe:
        probed(other, x, y, steps=3)
    assert probe.history == []
    assert probe.step == 0


def test_frozen_layers_are_marked():
    model = mlp(8, 6, 5, 3)
    model[0].requires_grad_(False)
    (stats,) = probed(model, *batch())
    first, second, _ = stats.layers
    assert first.frozen
    assert first.weight_gradient is None
    assert first.update_to_weight_ratio is None
    assert first.output is not None
    assert not second.frozen
    assert second.weight_gradient.rms > 0


def test_layers_that_never_run_still_have_weights():
    model = mlp(8, 6, 3)
    model.spare = nn.Linear(2, 2)
    model.forward = lambda x: model[2](model[1](model[0](x)))
    (stats,) = probed(model, *batch())
    spare = next(layer for layer in stats.layers if layer.name == "spare")
    assert spare.output is None
    assert spare.weight.rms > 0


def test_parametrised_and_tied_weights_keep_their_names():
    model = mlp(6, 6, 6)
    nn.utils.parametrizations.weight_norm(model[0])
    tied = nn.Linear(6, 3)
    model.append(nn.Tanh())
    model.append(tied)
    (stats,) = probed(model, *batch(size=6))
    assert [layer.name for layer in stats.layers] == ["0", "2", "4"]
    assert stats.layers[0].weight_gradient is not None
    assert stats.layers[0].kind == "Linear"


def test_transformer_block_is_seen_whole():
    model = nn.Sequential(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Flatten(), nn.Linear(40, 3)
    )
    x = torch.randn(4, 5, 8)
    (stats,) = probed(model, x, torch.randint(3, (4,)))
    names = [layer.name for layer in stats.layers]
    assert "0.self_attn" in names
    assert "0.linear1" in names
    assert all(layer.weight_gradient.rms > 0 for layer in stats.layers)
    feed = next(layer for layer in stats.layers if layer.name == "0.linear1")
    assert feed.slopes.activation == "relu"


def test_validation_passes_are_left_out():
    model = mlp(8, 6, 3)
    x, y = batch()
    (alone,) = probed(copy.deepcopy(model), x, y)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with GradientProbe(model, every=1) as probe:
        with torch.no_grad():
            model(1000 * x)
        functional.cross_entropy(model(x), y).backward()
        with torch.no_grad():
            model(1000 * x)
        optimizer.step()
    assert probe.history[0].layers[0].output == alone.layers[0].output


def test_steps_that_are_probed():
    model = mlp(8, 4, 3)
    x, y = batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with GradientProbe(model, every=20) as probe:
        for _ in range(45):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            if probe.step not in EARLY_STEPS and probe.step % 20:
                # Between probed steps the only hooks are the two around optimiser steps.
                assert attached() == 2
    assert [s.step for s in probe.history] == [*sorted(EARLY_STEPS), 20, 40]


def test_training_is_not_changed_by_the_probe():
    plain, watched = mlp(8, 16, 3, phi=nn.ReLU), mlp(8, 16, 3, phi=nn.ReLU)
    watched.load_state_dict(plain.state_dict())
    x, y = batch()
    probed(watched, x, y, steps=5)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        functional.cross_entropy(plain(x), y).backward()
        optimizer.step()
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)


class StopHereError(Exception):
    pass


class Raises(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize("error", [StopHereError(), KeyboardInterrupt()])
def test_hooks_are_removed_when_the_loop_raises(error):
    # The fixture checks that nothing is left.
    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.ReLU(), Raises(error)), nn.Linear(8, 3))
    with pytest.raises(type(error)), GradientProbe(model):
        model(batch()[0])


def test_a_loop_that_survives_an_exception_goes_on():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = batch()
    with GradientProbe(model, every=1) as probe:
        with pytest.raises(RuntimeError):
            model(torch.randn(4, 5))
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert probe.history[0].layers[0].slopes.activation == "relu"


def test_lbfgs_which_runs_the_model_inside_its_step():
    model = mlp(8, 6, 3)
    x, y = batch()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)

    def closure():
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    with GradientProbe(model, every=1) as probe:
        for _ in range(2):
            optimizer.step(closure)
            last = [model[i].weight.grad.square().mean().sqrt().item() for i in (0, 2)]
    assert len(probe.history) == 2
    stats = probe.stats
    # Not the gradients that the step before left behind.
    assert [x.weight_gradient.rms for x in stats.layers] == pytest.approx(last, rel=1e-5)
    assert all(layer.update_to_weight_ratio > 0 for layer in stats.layers)


def test_backward_without_an_optimiser_is_kept():
    model = mlp(8, 6, 3)
    x, y = batch()
    with GradientProbe(model) as probe:
        functional.cross_entropy(model(x), y).backward()
    assert probe.stats.layers[0].weight_gradient.rms > 0
    assert probe.stats.layers[0].update_to_weight_ratio is None
    assert probe.stats.optimizer is None


def test_compiled_models_are_measured_all_the_same():
    model = mlp(8, 6, 3)
    x, y = batch()
    (eager,) = probed(copy.deepcopy(model), x, y)
    compiled = torch.compile(model, backend="eager")
    compiled(x)
    (stats,) = probed(compiled, x, y)
    assert [s.output_gradient for s in stats.layers] == [s.output_gradient for s in eager.layers]
    assert stats.layers[0].slopes == eager.layers[0].slopes


def test_models_compiled_in_place_are_measured_all_the_same():
    model = mlp(8, 6, 3)
    x, y = batch()
    (eager,) = probed(copy.deepcopy(model), x, y)
    model.compile(backend="eager")
    model(x)
    (stats,) = probed(model, x, y)
    assert [s.output_gradient for s in stats.layers] == [s.output_gradient for s in eager.layers]


def test_data_parallel_is_unwrapped_and_several_devices_refused():
    model = mlp(8, 6, 3)
    wrapped = nn.DataParallel(model)
    (stats,) = probed(wrapped, *batch())
    assert [layer.name for layer in stats.layers] == ["0", "2"]
    wrapped.device_ids = [0, 1]
    with pytest.raises(UserError, match="DistributedDataParallel"):
        GradientProbe(wrapped)


DISTRIBUTED = """
import os, sys
import torch
from torch import nn
from unmask import GradientProbe

torch.distributed.init_process_group(
    "gloo", init_method="file://" + sys.argv[1], rank=0, world_size=1
)
torch.manual_seed(0)
layers = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
model = nn.parallel.DistributedDataParallel(layers)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with GradientProbe(model) as probe:
    nn.functional.cross_entropy(model(torch.randn(16, 8)), torch.arange(16) % 3).backward()
    optimizer.step()
(stats,) = probe.history
assert [layer.name for layer in stats.layers] == ["0", "2"]
assert all(layer.output_gradient.rms > 0 for layer in stats.layers)
print("done", flush=True)
# Gloo's own end can wait for a thread that waits for the interpreter.
os._exit(0)
"""


def test_distributed_data_parallel_is_unwrapped(tmp_path):
    command = [sys.executable, "-c", DISTRIBUTED, str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda x: x, "no torch.nn.Module"),
        (nn.ReLU(), "no parameters"),
        (nn.LazyLinear(3), "lazy layers"),
        (torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), "scripted"),
    ],
)
def test_what_cannot_be_measured_is_refused(model, words):
    with pytest.raises(UserError, match=words) as caught:
        GradientProbe(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("every", [0, -1, 2.5, True, "10"])
def test_wrong_intervals_are_refused(every):
    with pytest.raises(UserError, match="interval"):
        GradientProbe(nn.Linear(2, 2), every=every)


def test_asking_before_any_step_is_refused():
    with pytest.raises(UserError, match="no training step"):
        _ = GradientProbe(nn.Linear(2, 2)).stats


def test_half_precision_gradients_are_measured():
    model = mlp(8, 6, 3).to(torch.bfloat16)
    x, y = batch()
    (stats,) = probed(model, x.to(torch.bfloat16), y)
    assert stats.layers[0].weight_gradient.rms > 0
    assert stats.layers[0].slopes.rms > 0


def test_a_resumed_run_goes_on_counting():
    model = mlp(8, 6, 3)
    x, y = batch()
    optimizer = torch.optim.Adam(model.parameters())

    def step():
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    for _ in range(5):
        step()
    with GradientProbe(model) as probe:
        step()
        step()
    assert [s.step for s in probe.history] == [5, 6]


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-5, 0.03, 0.2, 1.0, 1e20])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_spread_of_any_size(size, offset):
    x = offset + size * torch.randn(64, 7, 5)
    exact = x.double()
    for dim in (0, 1):
        apart = exact - exact.mean(dim, keepdim=True)
        whole = float(exact.norm())
        expected = float(apart.norm()) / whole if whole else 0.0
        assert spread(x, dim) == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_zeros_are_counted_in_a_sample_of_many_entries():
    x = torch.rand(1 << 20) + 0.5
    x[torch.rand(1 << 20) < 0.25] = 0.0
    assert measure(x)[3] == pytest.approx(0.25, abs=0.01)
    assert measure(x * 1e-45)[4] == pytest.approx(float((x * 1e-45 != 0).float().mean()), abs=0.01)


def test_layers_that_read_the_same_tensor_are_known():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
            self.out = nn.Linear(8, 3)

        def forward(self, x):
            return self.out((self.query(x) * self.key(x)).softmax(-1) * self.value(x))

    layers = probed(Attention(), *batch())[0].layers
    assert [x.beside for x in layers] == [None, "query", "query", None]


def test_outputs_of_which_some_are_masked_have_no_variation():
    class Masked(nn.Sequential):
        def forward(self, x):
            return super().forward(x).masked_fill(torch.eye(16, 3).bool(), -math.inf)

    assert probed(Masked(nn.Linear(8, 3)), *batch())[0].output.variation is None


def test_the_response_to_a_layer_of_two_weights_is_the_sum_of_both():
    """A mean and a deviation, as in Bayes by backprop, have sizes of their own."""

    class Drawn(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = nn.Parameter(0.01 * torch.randn(3, 8))
            self.rho = nn.Parameter(-5 - torch.rand(3, 8))

        def forward(self, x):
            return functional.linear(x, self.mean + functional.softplus(self.rho))

    model = Drawn()
    before = [p.detach().clone() for p in model.parameters()]
    (stats,) = probed(model, *batch(), lr=0.0)
    both = zip(model.parameters(), before, strict=True)
    expected = sum(float(p.grad.norm() * w.norm()) for p, w in both) / 2.0
    assert sensitivities(replace(stats, loss=2.0)) == [pytest.approx(expected, rel=1e-5)]
