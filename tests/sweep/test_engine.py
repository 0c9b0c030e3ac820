from __future__ import annotations

import dataclasses
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from unmask import Images, NetSpec, SweepHistory, UserError, grid, train_sweep
from unmask.sweep.engine import SweepInterrupted
from unmask.sweep.history import DIVERGED, FINISHED, PENDING
from unmask.sweep.meter import SweepProgress

FAST = {"width": 8, "batch_size": 16, "epochs": 3, "learning_rate": 0.05}


def same(a: SweepHistory, b: SweepHistory) -> bool:
    pairs = [(x[k], y[k]) for x, y in zip(parts(a), parts(b), strict=True) for k in x]
    return all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)


def parts(h: SweepHistory) -> tuple[dict[str, np.ndarray], ...]:
    return h.curves, h.test, h.layers, {"status": h.status, "step": h.diverged_step}


def reordered(h: SweepHistory, order: list[int]) -> SweepHistory:
    def rows(group: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {k: v[order] for k, v in group.items()}

    return dataclasses.replace(
        h,
        specs=tuple(h.specs[i] for i in order),
        curves=rows(h.curves),
        test=rows(h.test),
        layers=rows(h.layers),
        status=h.status[order],
        diverged_step=h.diverged_step[order],
    )


def test_same_bits_for_any_threads_and_order(digits: Images) -> None:
    specs = grid(depth=[1, 4], activation=["tanh", "relu"], optimizer=["sgd", "adam"], **FAST)
    train, test = digits.split(100)

    def sweep(specs: list[NetSpec], threads: int) -> SweepHistory:
        return train_sweep(
            specs, train, validation=test, test=test, probe_epochs=(0, 2), threads=threads
        )

    alone = sweep(specs, 1)
    assert same(alone, sweep(specs, 2))
    order = [5, 2, 7, 0, 3, 1, 6, 4]
    assert same(reordered(alone, order), sweep([specs[i] for i in order], 2))


def test_learns_and_agrees_with_the_reference(digits: Images) -> None:
    specs = grid(depth=2, activation=["tanh", "gelu"], **{**FAST, "epochs": 20})
    train, test = digits.split(100)
    ours, oracle = (
        train_sweep(specs, train, validation=test, test=test, probe_epochs=(0, 20), engine=e)
        for e in ("native", "reference")
    )
    assert (ours.test["test_accuracy"] > 0.95).all()
    for name in ours.curves:
        np.testing.assert_allclose(ours.curves[name], oracle.curves[name], rtol=1e-3)
    for name in ours.layers:
        np.testing.assert_allclose(ours.layers[name], oracle.layers[name], rtol=2e-3, atol=1e-12)


def test_specs_of_different_length_are_padded_with_nan(digits: Images) -> None:
    short, long = NetSpec(1, 4, epochs=1, batch_size=10), NetSpec(3, 4, epochs=2, batch_size=10)
    history = train_sweep([short, long], digits, probe_epochs=(0, 2))
    assert np.isnan(history.curves["train_loss"]).tolist() == [[False, True], [False, False]]
    assert np.isnan(history.curves["validation_loss"]).all()
    rms = history.layers["gradient_rms"]
    assert np.isnan(rms[0]).tolist() == [[False, False, True, True], [True] * 4]
    assert np.isfinite(rms[1]).all()


def test_a_diverged_net_is_marked_and_the_others_go_on(digits: Images) -> None:
    specs = grid(depth=2, activation="linear", learning_rate=[1e30, 0.05], width=8, epochs=2)
    history = train_sweep(specs, digits, test=digits)
    assert history.status.tolist() == [DIVERGED, FINISHED]
    assert 1 < history.diverged_step[0] <= 10
    assert history.diverged_step[1] == -1
    assert np.isnan(history.test["test_loss"][0])


def test_save_and_load_is_the_identity(digits: Images, tmp_path: Path) -> None:
    history = train_sweep(grid(depth=[1, 2], **FAST), digits, test=digits)
    history.save(tmp_path / "h.npz")
    loaded = SweepHistory.load(tmp_path / "h.npz")
    assert loaded.specs == history.specs
    assert loaded.stamp == history.stamp
    assert loaded.probe_epochs == history.probe_epochs
    assert same(loaded, history)


def test_resume_goes_on_to_the_same_bits(digits: Images, tmp_path: Path) -> None:
    specs, path = grid(depth=[1, 2, 3], **FAST), tmp_path / "h.npz"
    whole = train_sweep(specs, digits, test=digits, checkpoint=path)
    broken = dataclasses.replace(
        whole,
        status=np.array([FINISHED, PENDING, FINISHED], np.uint8),
        test={k: np.where([0, 1, 0], np.nan, v).astype(np.float32) for k, v in whole.test.items()},
    )
    broken.save(path)
    trained: list[int] = []
    resumed = train_sweep(
        specs,
        digits,
        test=digits,
        checkpoint=path,
        resume=True,
        progress=lambda p: trained.append(p.net_epochs_done),
    )
    assert same(resumed, whole)
    assert trained[-1] == 9
    assert same(SweepHistory.load(path), whole)


def test_resume_refuses_the_checkpoint_of_another_sweep(digits: Images, tmp_path: Path) -> None:
    path = tmp_path / "h.npz"
    train_sweep(grid(depth=1, **FAST), digits, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="belongs to another sweep"):
        train_sweep(grid(depth=2, **FAST), digits, checkpoint=path, resume=True)
    assert path.read_bytes() == before


def test_a_checkpoint_is_not_overwritten_by_a_new_sweep(digits: Images, tmp_path: Path) -> None:
    path = tmp_path / "h.npz"
    train_sweep(grid(depth=1, **FAST), digits, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="already holds a sweep; resume it"):
        train_sweep(grid(depth=1, **FAST), digits, checkpoint=path)
    assert path.read_bytes() == before


def test_damaged_checkpoint_is_named(digits: Images, tmp_path: Path) -> None:
    path = tmp_path / "h.npz"
    train_sweep(grid(depth=1, **FAST), digits, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"state is damaged: .*h\.npz"):
        train_sweep(grid(depth=1, **FAST), digits, checkpoint=path, resume=True)


def test_ctrl_c_ends_within_a_second_and_keeps_what_is_finished(
    digits: Images, tmp_path: Path
) -> None:
    quick = NetSpec(1, 4, epochs=1, batch_size=10)
    # One batch of this net takes longer than a second.
    huge = NetSpec(200, 512, epochs=1000, batch_size=150)
    path = tmp_path / "h.npz"
    sent = []

    def interrupt() -> None:
        time.sleep(1.5)
        sent.append(time.monotonic())
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(SweepInterrupted) as caught:
        train_sweep([quick, huge, huge], digits, checkpoint=path, threads=2)
    assert time.monotonic() - sent[0] < 1.0
    # The quick one is queued last; it may or may not have had its turn.
    assert caught.value.history.status[1:].tolist() == [PENDING, PENDING]
    assert same(SweepHistory.load(path), caught.value.history)


def test_ctrl_c_at_the_last_look_keeps_what_is_finished(digits: Images, tmp_path: Path) -> None:
    path = tmp_path / "h.npz"

    def interrupt(progress: SweepProgress) -> None:
        if progress.nets_done == progress.nets_total:
            raise KeyboardInterrupt

    with pytest.raises(SweepInterrupted) as caught:
        train_sweep(
            grid(depth=1, seed=range(3), **FAST), digits, checkpoint=path, progress=interrupt
        )
    assert PENDING not in caught.value.history.status
    assert same(SweepHistory.load(path), caught.value.history)


def test_progress_counts_up_to_the_whole(digits: Images) -> None:
    seen: list[SweepProgress] = []
    train_sweep(grid(depth=1, seed=range(4), **FAST), digits, progress=seen.append)
    last = seen[-1]
    assert (last.nets_done, last.nets_total) == (4, 4)
    assert (last.net_epochs_done, last.net_epochs_total) == (12, 12)
    assert last.seconds_left == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"specs": []}, "at least one net"),
        ({"batch_size": 151}, "a batch of 151 for 150 images"),
        ({"specs": NetSpec(1)}, "one NetSpec; put it into a list"),
        ({"specs": [{"depth": 1}]}, "no NetSpec: got dict"),
        ({"threads": 0}, "number of threads"),
        ({"threads": "2"}, "number of threads"),
        ({"engine": "nativ"}, "did you mean 'native'"),
        ({"device": "gpu0"}, "no such device"),
        ({"probe_epochs": (-1,)}, "layers are measured"),
        ({"probe_epochs": (0, 2)}, "no net reaches.*epoch 2 of 1"),
        ({"resume": True}, "nothing to resume from"),
        ({"checkpoint": Path(__file__).parent}, "checkpoint is a folder"),
    ],
)
def test_mistakes_get_one_clear_line(digits: Images, change: dict, message: str) -> None:
    settings = dict(change)
    batch = settings.pop("batch_size", 10)
    specs = settings.pop("specs", [NetSpec(1, 4, epochs=1, batch_size=batch)])
    with pytest.raises(UserError, match=message) as caught:
        train_sweep(specs, digits, **settings)
    assert "\n" not in str(caught.value)


def test_arrays_names_and_numbers_of_numpy_are_taken(digits: Images, tmp_path: Path) -> None:
    widths = np.array([4, 8])
    specs = grid(depth=1, width=widths, learning_rate=np.logspace(-2, -1, 2), epochs=1)
    train, test = digits.split(100)
    images = train_sweep(specs, train, test=test)
    arrays = train_sweep(
        specs,
        (train.pixels, train.labels),
        test=(test.pixels, test.labels),
        checkpoint=str(tmp_path / "history.npz"),
    )
    assert same(images, arrays)
    assert SweepHistory.load(tmp_path / "history.npz").specs == tuple(specs)


def test_pictures_of_another_size_are_refused(digits: Images) -> None:
    other = Images(digits.pixels[:, :, :5], digits.labels, digits.class_names, "cut")
    with pytest.raises(UserError, match="the test images don't fit the training images"):
        train_sweep([NetSpec(1, 4, batch_size=10)], digits, test=other)


def test_unknown_instruction_set(digits: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_ISA", "avx1024")
    with pytest.raises(UserError, match="unknown instruction set in UNMASK_ISA"):
        train_sweep([NetSpec(1, 4, batch_size=10)], digits)
