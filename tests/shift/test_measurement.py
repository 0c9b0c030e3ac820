"""The measurement on models whose every answer is known: figures, verdicts, resume, mistakes."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unmask
from unmask.data.images import Images
from unmask.data.mnist import load_mnist
from unmask.errors import UserError
from unmask.execution.address import executor_at
from unmask.execution.executor import Done
from unmask.report.shift import shift_page, write_shift
from unmask.shift.clean import recalibration
from unmask.shift.fixes import recalibrated, reestimated
from unmask.shift.geometry import worst_case
from unmask.shift.measurement import measure_shift
from unmask.shift.pipeline import file_mistakes, value_mistakes
from unmask.shift.result import ShiftPlan
from unmask.shift.runtimes import runtimes
from unmask.shift.scores import auroc, scores_of
from unmask.shift.target import as_images, as_target
from unmask.train.temperature import fitted_temperature

QUICK = {"geometry": False, "pipeline": False, "runtimes": False, "fixes": False}


def reddish(n: int = 60, side: int = 16, seed: int = 0) -> Images:
    """Red images and blue ones, with noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    pixels = rng.integers(60, 100, (n, 3, side, side))
    pixels[labels == 0, 0] += 100
    pixels[labels == 1, 2] += 100
    return Images(pixels.astype(np.uint8), labels.astype(np.int64), ("red", "blue"), "reddish")


class Redness(nn.Module):
    """Tells red from blue by the channels' means; sharp scales its logits."""

    def __init__(self, sharp: float = 20.0, bias: float = 0.0) -> None:
        super().__init__()
        self.sharp, self.bias = sharp, bias

    def forward(self, pixels: Tensor) -> Tensor:
        red, blue = pixels[:, 0].mean((1, 2)), pixels[:, 2].mean((1, 2))
        return torch.stack([red - blue + self.bias, blue - red - self.bias], 1) * self.sharp


def test_a_model_of_colour_holds_under_noise_and_fails_without_colour() -> None:
    found = unmask.shift(
        Redness(),
        reddish(),
        corruptions=("gaussian_noise", "saturate"),
        severities=(1, 2, 3),
        runtimes=False,
    )
    assert found.clean.accuracy == 1
    assert [c.accuracy for c in found.cells["gaussian_noise"]] == [1, 1, 1]
    assert found.smallest["gaussian_noise"] is None
    assert found.figures()["flip_rate"] == 0
    swapped = next(m for m in found.mistakes if "blue, green, red" in m.name)
    grey = next(m for m in found.mistakes if "grey" in m.name)
    assert swapped.accuracy == 0
    assert grey.accuracy == pytest.approx(0.5)
    assert not [v for v in found.verdicts if v.severity == "error"]
    assert found.geometry is not None
    assert found.geometry.worst == 1


def test_the_smallest_severity_is_where_a_threshold_lies() -> None:
    class Threshold(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            mean = pixels.flatten(1).mean(1)
            return torch.stack([0.5 - mean, mean - 0.5], 1)

    pixels = np.full((20, 1, 12, 12), 0.32 * 255, np.uint8)
    images = Images(pixels, np.zeros(20, np.int64), ("dark", "bright"), "dark")
    plan = ShiftPlan(corruptions=("brightness",), **QUICK)
    found = measure_shift(Threshold(), images, plan)
    # Brightness adds a tenth for each severity, and all cross one half at once.
    crossing = (0.5 - pixels[0, 0, 0, 0] / 255) / 0.1
    assert found.smallest["brightness"] == pytest.approx(crossing, abs=1 / 16)
    assert [c.accuracy for c in found.cells["brightness"]] == [1, 0, 0, 0, 0]
    # One of five steps flips every prediction.
    assert found.flips["brightness"] == pytest.approx(0.2)


@pytest.mark.parametrize("wrong", ["blue, green, red", "0 to 255", "inverted"])
def test_a_model_fed_wrongly_is_named(wrong: str) -> None:
    inner = Redness()

    class Broken(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            if "blue" in wrong:
                return inner(pixels.flip(1))
            if wrong == "inverted":
                # Right only for dark colours: light ones are clipped to one.
                return inner(1.0 - pixels)
            # Tells nothing apart until values are large.
            return inner(torch.where(pixels > 1, pixels, 0.5))

    plan = ShiftPlan(corruptions=("fog",), severities=(1,), **{**QUICK, "pipeline": True})
    found = measure_shift(Broken(), reddish(200), plan)
    errors = [v for v in found.verdicts if v.severity == "error"]
    assert [v.kind for v in errors] == ["preprocessing"]
    best = errors[0].evidence["accuracy"]
    named = next(m for m in found.mistakes if wrong in m.name)
    assert named.accuracy == best == 1


def test_a_model_that_guesses_is_told() -> None:
    class Constant(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return torch.tensor([1.0, 0.0]).repeat(len(pixels), 1)

    plan = ShiftPlan(corruptions=("fog",), severities=(1,), **{**QUICK, "pipeline": True})
    found = measure_shift(Constant(), reddish(), plan)
    assert [v.kind for v in found.verdicts if v.severity == "error"] == ["no better than chance"]


@pytest.mark.parametrize("random", ["dropout", "a counter"])
def test_where_two_passes_differ_nothing_else_is_compared(random: str) -> None:
    class Unsteady(Redness):
        calls = 0

        def forward(self, pixels: Tensor) -> Tensor:
            logits = super().forward(pixels)
            self.calls += 1
            return logits * (torch.rand(len(pixels), 1) if random == "dropout" else self.calls)

    found = unmask.shift(Unsteady(), reddish(), corruptions=("fog",), severities=(1,))
    assert [v.kind for v in found.verdicts] == ["random output"]
    assert found.variation > 0.01
    assert not found.runtimes
    assert not found.mistakes
    assert found.geometry is None


def test_logits_that_are_not_finite_have_no_confidence() -> None:
    class Dark(Redness):
        def forward(self, pixels: Tensor) -> Tensor:
            logits = super().forward(pixels)
            return logits / (pixels[:, :1, 0, 0] < 0.3).float()

    plan = ShiftPlan(corruptions=("fog",), severities=(1,), **{**QUICK, "fixes": True})
    found = measure_shift(Dark(), reddish(), plan)
    assert 0 < found.not_finite < 60
    assert found.temperature is None
    assert not {v.kind for v in found.verdicts} & {"overconfident", "underconfident"}


def test_a_temperature_that_does_not_help_is_no_advice() -> None:
    logits = torch.tensor([[2.0, 0.0]]).repeat(40, 1)
    labels = np.zeros(40, np.int64)
    labels[::4] = 1
    tried = recalibrated(logits, labels)
    assert tried is not None
    assert recalibration(replace(tried, ece_after=tried.ece_before)) == ""
    assert f"{tried.temperature:.2f}" in recalibration(replace(tried, ece_after=0.0, ece_before=1))
    assert recalibrated(logits, np.zeros(40, np.int64)) is None


def test_scores_against_scikit_definitions() -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(400, 3)) * 2)
    labels = rng.integers(0, 3, 400)
    found = scores_of(logits, labels, 3)
    p = logits.softmax(1).numpy()
    top, right = p.max(1), p.argmax(1) == labels
    assert found.right == right.sum()
    pairs = [(a > b) + 0.5 * (a == b) for a in top[right] for b in top[~right]]
    assert found.auroc == pytest.approx(np.mean(pairs))
    assert auroc(np.ones(4), np.array([True, False, True, False])) == 0.5
    edges = np.minimum((top * 15).astype(int), 14)
    ece = sum(abs(right[edges == b].sum() - top[edges == b].sum()) for b in range(15)) / 400
    assert found.ece == pytest.approx(ece)


def test_a_temperature_undoes_a_scale() -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(4000, 4)) * 1.5)
    gumbel = torch.from_numpy(rng.gumbel(size=(4000, 4)))
    labels = (logits + gumbel).argmax(1).numpy()
    assert fitted_temperature(logits * 7, labels) == pytest.approx(7, rel=0.1)


def test_batch_norm_is_measured_anew_and_the_model_stays_as_it_was() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 64, 2)).eval()
    pixels = torch.rand(50, 3, 8, 8) * 0.2 + 0.7
    made = reestimated(as_target(network), pixels)
    assert made.module is not None
    norm = made.module[0]
    torch.testing.assert_close(norm.running_mean, pixels.mean((0, 2, 3)), atol=1e-5, rtol=0)
    assert network[0].running_mean.tolist() == [0, 0, 0]
    assert not made.module.training


def test_the_worst_of_a_grid_is_never_better_than_the_mean() -> None:
    x = torch.zeros(8, 1, 21, 21)
    x[:, :, 8:13, 2:6] = 1
    labels = np.zeros(8, np.int64)

    class Left(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            half = pixels.shape[3] // 2
            left, right = pixels[..., :half].sum((1, 2, 3)), pixels[..., half:].sum((1, 2, 3))
            return torch.stack([left, right], 1)

    few = worst_case(as_target(Left()), x, labels, angles=(0.0,), moves=(-0.1, 0.0, 0.1))
    assert (few.clean, few.worst) == (1, 1)
    turned = worst_case(as_target(Left()), x, labels, angles=(0.0, 180.0), moves=(0.0,))
    assert (turned.worst, turned.mean) == (0, 0.5)


def test_other_precisions_agree_and_a_runtime_that_fails_says_why() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    pixels, labels = torch.rand(12, 3, 8, 8), np.zeros(12, np.int64)
    found = {r.name: r for r in runtimes(as_target(network), pixels, labels, onnx=False)}
    assert found["channels_last"].agreement == 1
    assert found["bfloat16"].difference is not None
    assert found["bfloat16"].difference < 0.1

    class Fp32Only(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(192, 2))

        def forward(self, pixels: Tensor) -> Tensor:
            if pixels.dtype != torch.float32:
                raise TypeError("float32 alone")
            return pixels.flatten(1) @ self.weight

    (bf16, *_) = runtimes(as_target(Fp32Only()), pixels, labels, onnx=False)
    assert bf16.agreement is None
    assert "float32 alone" in bf16.reason


def test_onnx_runtime_and_its_eight_bits(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    pixels, labels = torch.rand(32, 3, 8, 8), np.zeros(32, np.int64)
    found = {r.name: r for r in runtimes(as_target(network), pixels, labels)}
    assert found["ONNX Runtime fp32"].agreement == 1
    assert found["ONNX Runtime int8"].agreement is not None
    assert found["ONNX Runtime int8"].difference > 0
    assert not [r for r in caplog.records if "pre-processing" in r.getMessage()]


def test_files_read_in_other_ways(tmp_path: Path) -> None:
    import io

    from PIL import Image

    files = []
    for pixels in reddish(20, 64).pixels:
        buffer = io.BytesIO()
        Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, "PNG")
        files.append(buffer.getvalue())
    labels = (np.arange(20) % 2).astype(np.int64)
    found = file_mistakes(as_target(Redness()), files, labels, (16, 16), 3)
    assert {"Pillow nearest", "torch bilinear without antialias"} <= {m.name for m in found}
    assert all(m.accuracy == 1 for m in found)


def test_a_measurement_resumes_and_refuses_another(tmp_path: Path) -> None:
    plan = ShiftPlan(corruptions=("fog", "contrast"), severities=(1, 3), **QUICK)
    whole = measure_shift(Redness(), reddish(), plan, directory=tmp_path)
    asked = []

    def counted(pixels: Tensor) -> Tensor:
        asked.append(len(pixels))
        return Redness()(pixels)

    again = measure_shift(as_target(Redness()), reddish(), plan, directory=tmp_path, resume=True)
    assert again.figures() == whole.figures()
    with pytest.raises(UserError, match="another measurement"):
        measure_shift(Redness(), reddish(seed=1), plan, directory=tmp_path, resume=True)
    content = json.loads((tmp_path / "cells.json").read_text())
    del content["rows"]["contrast"]
    (tmp_path / "cells.json").write_text(json.dumps(content))
    half = measure_shift(Redness(), reddish(), plan, directory=tmp_path, resume=True)
    assert half.figures() == whole.figures()


class _Backwards:
    """Ends tasks in another order, and loses the first as if its worker had died."""

    workers = 2

    def __init__(self, lost: int = 0) -> None:
        self.lost, self.ran = lost, 0

    def run(self, work: Any, shared: Any, tasks: Any) -> Any:
        for index, task in reversed(list(enumerate(tasks))):
            self.ran += 1
            lost = index < self.lost
            yield Done(index, None if lost else work(shared, task), "lost" if lost else None)

    def close(self) -> None:
        """Do nothing."""


def test_elsewhere_the_figures_are_the_same_and_what_was_lost_is_made_up(tmp_path: Path) -> None:
    images = load_mnist()[1][:40]
    plan = ShiftPlan(corruptions=("contrast", "rotate", "fog"), severities=(1, 3), **QUICK)
    here = measure_shift("mnist", images, plan)
    with pytest.raises(UserError, match="1 of 3 corruptions weren't measured"):
        measure_shift("mnist", images, plan, directory=tmp_path, on=_Backwards(lost=1))
    on = _Backwards()
    there = measure_shift("mnist", images, plan, directory=tmp_path, resume=True, on=on)
    assert on.ran == 1
    assert there.cells == here.cells
    assert list(there.cells) == list(here.cells)
    assert (there.flips, there.smallest) == (here.flips, here.smallest)
    with pytest.raises(UserError, match="can't travel"):
        measure_shift(Redness(), reddish(), on=on)


@pytest.mark.slow
def test_on_ray_the_figures_are_the_same() -> None:
    pytest.importorskip("ray")
    images = load_mnist()[1][:40]
    plan = ShiftPlan(corruptions=("contrast", "rotate"), severities=(3,), **QUICK)
    here = measure_shift("mnist", images, plan)
    # A path to a socket must be short.
    folder = tempfile.mkdtemp(prefix="ray")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "RAY_ADDRESS": "local",
            "RAY_AUTH_MODE": "disabled",
            "RAY_TMPDIR": folder,
            "RAY_raylet_start_wait_time_s": "120",
            "RAY_worker_register_timeout_seconds": "300",
        }.items():
            patch.setenv(name, value)
        with executor_at("ray") as on:
            there = measure_shift("mnist", images, plan, on=on)
    shutil.rmtree(folder, ignore_errors=True)
    # A library's rounding may differ between processes, and then an image or two.
    for name, row in here.cells.items():
        assert abs(there.cells[name][0].right - row[0].right) <= 2


def test_the_page_holds_every_corruption_and_needs_nothing_else(tmp_path: Path) -> None:
    images = reddish(30)
    found = unmask.shift(Redness(), images, corruptions=("fog", "snow"), severities=(1, 3))
    page = shift_page(found, images)
    assert page.count('class="strip"') == 2
    assert "http" not in page.replace("http-equiv", "")
    paths = write_shift(found, images, tmp_path)
    assert [p.exists() for p in paths] == [True] * 3
    kept = json.loads((tmp_path / "data" / "shift.json").read_text())
    assert kept["figures"]["clean_accuracy"] == 1
    assert len((tmp_path / "data" / "shift.csv").read_text().splitlines()) == 2 + 4


@pytest.mark.parametrize("wrapped", ["tuple", "dict", "numpy", "single"])
def test_answers_in_any_wrapping(wrapped: str) -> None:
    def model(pixels: Tensor) -> object:
        logits = Redness()(pixels)
        return {
            "tuple": (logits, None),
            "dict": {"logits": logits},
            "numpy": logits.numpy(),
            "single": logits[:, 1:] - logits[:, :1],
        }[wrapped]

    found = measure_shift(model, reddish(), ShiftPlan(corruptions=("fog",), **QUICK))
    assert found.clean.accuracy == 1


def test_every_part_of_a_model_gets_its_own_mode_back() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3).eval(), nn.Dropout(), nn.Flatten(), nn.Linear(12, 2))
    target = as_target(network)
    first, second = (target.logits(torch.ones(4, 3, 2, 2)) for _ in range(2))
    assert torch.equal(first, second)
    assert [m.training for m in network] == [False, True, True, True]


def test_data_in_any_form() -> None:
    images = reddish(10)
    pair = (torch.tensor(images.pixels).float() / 255, torch.tensor(images.labels))
    loader = [(pair[0][:6], pair[1][:6]), (pair[0][6:], pair[1][6:])]
    for data in (images, pair, loader):
        assert np.array_equal(as_images(data).pixels, images.pixels)
    assert len(as_images(images, most=4)) == 4
    with pytest.raises(UserError, match="normalisation"):
        as_images((pair[0] * 4 - 2, pair[1]))
    with pytest.raises(UserError, match="named set"):
        as_images(7)


def test_mistakes_are_told_in_one_line() -> None:
    with pytest.raises(UserError, match="channels and size"):
        unmask.shift(nn.Linear(3, 2), reddish())
    many = reddish()
    three = Images(many.pixels, many.labels, ("red", "blue", "green"), "three")
    with pytest.raises(UserError, match="2 classes"):
        unmask.shift(Redness(), three)
    with pytest.raises(UserError, match="did you mean 'severities'"):
        unmask.shift(Redness(), reddish(), severity=3)
    with pytest.raises(UserError, match="did you mean 'fog'"):
        unmask.shift(Redness(), reddish(), corruptions=("frog",))
    with pytest.raises(UserError, match="shape"):
        unmask.shift("mnist", reddish())
    with pytest.raises(UserError, match="pickle"):
        unmask.shift("model.pt", reddish())


def test_value_mistakes_of_grey_images_leave_colour_out() -> None:
    x = torch.rand(4, 1, 8, 8)

    def model(pixels: Tensor) -> Tensor:
        return torch.stack([pixels.flatten(1).mean(1)] * 2, 1)

    names = {m.name for m in value_mistakes(as_target(model), x, np.zeros(4, np.int64))}
    assert not any("blue" in name for name in names)


def test_a_measurement_that_is_out_of_time_is_of_what_was_measured() -> None:
    plan = ShiftPlan(
        corruptions=("fog", "contrast", "snow"), severities=(3,), smallest=False, **QUICK
    )
    for minutes, measured in ((0, {"fog"}), (10, {"fog", "contrast", "snow"})):
        found = measure_shift(Redness(), reddish(20), plan, minutes=minutes)
        assert set(found.cells) == measured
        assert found.figures()["mean_corruption_error"] == pytest.approx(
            np.mean([1 - found.cells[name][0].accuracy for name in measured])
        )
