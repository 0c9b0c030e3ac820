"""An installation that was built without a C++ compiler: PyTorch trains, and says so."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from unmask.cli.main import main
from unmask.data.images import Images
from unmask.errors import UserError
from unmask.sweep import native_net
from unmask.sweep.engine import train_sweep
from unmask.sweep.spec import NetSpec
from unmask.web import flow_live

SPECS = [NetSpec(depth=2, width=4, batch_size=8, epochs=2, seed=seed) for seed in range(2)]


@pytest.fixture
def images() -> Images:
    random = np.random.default_rng(0)
    return Images(
        random.integers(0, 256, (32, 1, 4, 4), np.uint8),
        np.arange(32) % 4,
        tuple("abcd"),
        "made up",
    )


def test_sweeps_run_on_pytorch_to_the_kernels_figures(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_kernel = train_sweep(SPECS, images) if native_net.has_kernel() else None
    monkeypatch.setattr(native_net, "_kernel", None)
    with pytest.warns(RuntimeWarning, match="no C\\+\\+ kernel: sweeps run on PyTorch"):
        without = train_sweep(SPECS, images)
    assert without.stamp["engine"] == "stacked"
    if with_kernel is not None:
        assert with_kernel.stamp["engine"] == "native"
        np.testing.assert_allclose(
            without.curves["train_loss"], with_kernel.curves["train_loss"], rtol=1e-4
        )


def test_what_needs_the_kernel_is_refused_in_one_line(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_net, "_kernel", None)
    with pytest.raises(UserError, match=r"no C\+\+ kernel; leave out engine='native'"):
        train_sweep(SPECS, images, engine="native")
    with pytest.raises(UserError, match=r"got an installation without the C\+\+ kernel"):
        native_net.require_instruction_set("avx2")


@pytest.mark.filterwarnings("ignore:this installation has no C")
def test_the_live_page_and_the_doctor_do_without(
    images: Images, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native_net, "_kernel", None)
    monkeypatch.setattr(flow_live, "live_images", lambda: (images, images))
    *_, run = flow_live.train_live(SPECS[0], 2)
    assert run.done
    assert main(["doctor"]) == 0
    assert "PyTorch: built without a C++ compiler" in capsys.readouterr().out


def test_an_installation_with_the_kernel_warns_of_nothing(images: Images) -> None:
    if not native_net.has_kernel():
        pytest.skip("the kernel isn't built")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        train_sweep(SPECS[:1], images)
