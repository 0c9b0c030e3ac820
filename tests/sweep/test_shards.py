"""Sweeps in shards: the scores of train_sweep, kept on disk and not in memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_driver import Shuffled

from unmask import Images, NetSpec, UserError, grid, train_sweep
from unmask.execution.executor import Done, LocalExecutor
from unmask.execution.shards import Writing, Written, read_shards, shard_file, written
from unmask.sweep import driver, shards, trainer
from unmask.sweep.driver import Figures
from unmask.sweep.history import DIVERGED, FINISHED
from unmask.sweep.meter import SweepProgress
from unmask.sweep.pool import Training
from unmask.sweep.shards import Scores, ShardsInterrupted, train_in_shards
from unmask.sweep.task import prepared

FAST = {"width": 8, "batch_size": 16, "epochs": 2}
SPECS = grid(depth=[1, 4, 2], activation=["tanh", "linear"], learning_rate=[0.05, 1e30], **FAST)


@pytest.fixture
def net_by_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every block one net, wherever it trains."""
    monkeypatch.setattr(driver, "_LEAST", 0.0)
    monkeypatch.setattr(driver, "_MOST", 1.0)
    monkeypatch.setattr(shards, "_MULTIPLY_ADDS_A_THREAD", 1.0)


def scored(digits: Images, nets: Any = SPECS, **how: Any) -> Scores:
    train, test = digits.split(100)
    return train_in_shards(nets, train, test, key={"made": "up"}, **how)


def same(a: Scores, b: Scores) -> bool:
    return np.array_equal(a.accuracy, b.accuracy, equal_nan=True) and np.array_equal(
        a.status, b.status
    )


@pytest.mark.parametrize("engine", ["native", "stacked"])
def test_scores_are_those_of_a_sweep(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    # As on a GPU, which trains nets of one shape together.
    monkeypatch.setattr(shards, "prepared", partial(prepared, engine=engine))
    train, test = digits.split(100)
    whole = train_sweep(SPECS, train, test=test, probe_epochs=(), engine=engine)  # type: ignore[arg-type]
    found = scored(digits, folder=tmp_path / "shards", threads=2)
    np.testing.assert_array_equal(found.accuracy, whole.test["test_accuracy"])
    np.testing.assert_array_equal(found.status, whole.status)
    assert {DIVERGED, FINISHED} == set(found.status)
    found_shards = [arrays for _, arrays in read_shards(tmp_path / "shards")]
    nets = np.concatenate([s["net"] for s in found_shards])
    assert sorted(nets) == list(range(len(SPECS)))
    for name, wanted in (*whole.test.items(), ("diverged_step", whole.diverged_step)):
        kept = np.concatenate([s[name] for s in found_shards])
        np.testing.assert_array_equal(kept, wanted[nets])


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(order=st.integers(0, 999), workers=st.integers(1, 5), threads=st.integers(1, 3))
@pytest.mark.usefixtures("net_by_net")
def test_same_bits_for_any_order_and_number_of_workers(
    digits: Images, order: int, workers: int, threads: int
) -> None:
    here = scored(digits, threads=threads)
    assert same(here, scored(digits, on=Shuffled(order, workers)))


def test_progress_counts_up_to_the_whole(digits: Images) -> None:
    for on in (None, LocalExecutor()):
        seen: list[SweepProgress] = []
        found = scored(digits, on=on, progress=seen.append, threads=1)
        assert (seen[0].nets_done, seen[0].nets_total) == (0, len(SPECS))
        assert seen[0].seconds_left is None
        last = seen[-1]
        assert last.nets_done == len(SPECS)
        assert (last.net_epochs_done, last.net_epochs_total) == (24, 24)
        assert last.diverged == np.count_nonzero(found.status == DIVERGED) > 0
        assert last.seconds_left == pytest.approx(0, abs=1e-9)
        assert last.running == (None if on is None else 0)


@pytest.mark.usefixtures("net_by_net")
@pytest.mark.parametrize("on", [None, Shuffled(0, 3)])
def test_a_net_that_fails_is_named_and_the_others_are_kept_and_resumed(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on: LocalExecutor | None
) -> None:
    whole, folder, make = scored(digits), tmp_path / "out" / "shards", trainer._net

    def broken(spec: Any, task: Any) -> Any:
        if (spec.depth, spec.activation, spec.learning_rate) == (2, "tanh", 0.05):
            raise MemoryError("all gone")
        return make(spec, task)

    monkeypatch.setattr(trainer, "_net", broken)
    with pytest.raises(UserError, match="1 of 12 nets failed: got depth=2, ") as caught:
        scored(digits, on=on, folder=folder)
    assert "learning_rate=0.05" in str(caught.value)
    assert "MemoryError: all gone (broken, line" in str(caught.value)
    assert f"the others are kept in {folder}, resume to try again" in str(caught.value)
    monkeypatch.setattr(trainer, "_net", make)
    seen: list[SweepProgress] = []
    again = scored(digits, on=on, folder=folder, resume=True, progress=seen.append)
    assert seen[0].nets_done == 11
    assert same(again, whole)


@pytest.mark.usefixtures("net_by_net")
def test_a_block_that_is_lost_is_named(digits: Images, tmp_path: Path) -> None:
    class Losing(LocalExecutor):
        def run(
            self, work: Callable[[Any, Any], Any], shared: Any, tasks: Iterable[Any]
        ) -> Generator[Done[Any]]:
            for done in super().run(work, shared, tasks):
                lost = done.index == 0
                yield Done(done.index, None, "its worker was lost") if lost else done

    with pytest.raises(UserError, match=r"1 of 12 nets failed: got depth=4, .*worker was lost"):
        scored(digits, on=Losing())


def test_a_worker_that_is_ended_leaves_no_shard_of_what_it_did_not_train(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(spec: NetSpec, task: Any) -> Any:
        raise SystemExit(1)  # as Ray's workers do on SIGTERM

    class Remote(LocalExecutor):
        def run(
            self, work: Callable[[Any, Any], Any], shared: Any, tasks: Iterable[Any]
        ) -> Generator[Done[Any]]:
            for index, task in enumerate(tasks):
                with pytest.raises(SystemExit):
                    work(shared, task)
                yield Done(index, None, "its worker was lost")

    folder = tmp_path / "out" / "shards"
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "_net", ended)
        with pytest.raises(UserError, match="12 of 12 nets failed"):
            scored(digits, folder=folder, on=Remote())
    assert list(read_shards(folder)) == []


@pytest.mark.parametrize("on", [None, LocalExecutor()])
def test_ctrl_c_keeps_what_is_finished(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on: LocalExecutor | None
) -> None:
    whole, folder, make = scored(digits), tmp_path / "out" / "shards", trainer._net

    def held(spec: NetSpec, task: Any) -> Any:
        while spec.depth == 1 and not task.stop[0]:
            time.sleep(0.01)
        return make(spec, task)

    def interrupt(progress: SweepProgress) -> None:
        if progress.nets_done >= 4:
            raise KeyboardInterrupt

    # Elsewhere a block a net; here all are in one, of which those that have trained are kept.
    monkeypatch.setattr(driver, "_LEAST", 0.0)
    monkeypatch.setattr(driver, "_MOST", 1.0)
    monkeypatch.setattr(trainer, "_net", held)
    with pytest.raises(ShardsInterrupted) as caught:
        scored(digits, on=on, folder=folder, threads=1, progress=interrupt)
    monkeypatch.setattr(trainer, "_net", make)
    assert 4 <= caught.value.done <= 8
    assert caught.value.total == 12
    kept = np.concatenate([shard["net"] for _, shard in read_shards(folder)])
    assert len(kept) == caught.value.done
    seen: list[SweepProgress] = []
    resumed = scored(digits, folder=folder, resume=True, progress=seen.append)
    assert seen[0].nets_done == len(kept)
    assert same(resumed, whole)


@pytest.mark.usefixtures("net_by_net")
def test_what_is_there_is_not_trained_again(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, trained, make = tmp_path / "out" / "shards", [], trainer._net
    whole = scored(digits, folder=folder, on=Shuffled(0, 3))
    for number in (3, 7):
        shard_file(folder, number).unlink()

    def noted(spec: NetSpec, task: Any) -> Any:
        trained.append(spec)
        return make(spec, task)

    monkeypatch.setattr(trainer, "_net", noted)
    for on in (None, Shuffled(0, 2)):
        assert same(scored(digits, folder=folder, resume=True, on=on), whole)
    assert len(trained) == 2
    assert sum(len(shard["net"]) for _, shard in read_shards(folder)) == len(SPECS)


def test_another_sweep_is_neither_overwritten_nor_resumed(digits: Images, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "shards"
    scored(digits, folder=folder)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match="out already holds a sweep; resume it"):
        scored(digits, folder=folder)
    train, test = digits.split(100)
    for key, pictures in (("other", train), ("made up", test)):
        with pytest.raises(UserError, match="belongs to another sweep"):
            train_in_shards(SPECS, pictures, test, key={"made": key}, folder=folder, resume=True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_folder_that_can_not_be_written_ends_it_at_once(digits: Images, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't write"):
        scored(digits, folder=tmp_path / "file" / "shards")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"nets": []}, "at least one net"),
        ({"threads": 0}, "number of threads"),
        ({"nets": [NetSpec(1, batch_size=101)]}, "a batch of 101 for 100 images"),
        ({"on": LocalExecutor(), "device": "cuda"}, "on processors: got device cuda"),
    ],
)
def test_mistakes_get_one_clear_line(digits: Images, how: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        scored(digits, **how)
    assert "\n" not in str(caught.value)


class Many:
    """So many nets that a list of them would be seen."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> NetSpec:
        return NetSpec(1 + index % 3, seed=index, **FAST)


class Untrained(LocalExecutor):
    """An executor whose workers write shards of nets that they haven't trained."""

    workers = 8

    def run(
        self, work: Callable[[Any, Any], Any], shared: Any, tasks: Iterable[Any]
    ) -> Generator[Done[Any]]:
        yield from super().run(_untrained, shared, tasks)


def _untrained(
    writing: Writing[Training, NDArray[np.int64], Figures], task: tuple[int, Any]
) -> Written[Figures]:
    return written(replace(writing, work=_seeds), task)


def _seeds(training: Training, block: NDArray[np.int64]) -> tuple[Figures, dict[str, Any]]:
    seeds = np.array([training.nets[i].seed for i in block.tolist()], np.float32)
    diverged = seeds % 2 == 1
    shard = {"net": block, "test_accuracy": seeds, "diverged_step": np.where(diverged, 1, -1)}
    return Figures(block, seeds, diverged, ()), shard


def test_the_drivers_memory_is_some_numbers_a_net(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # About 1,500 nets a block.
    monkeypatch.setattr(driver, "_LEAST", 3e8)
    monkeypatch.setattr(driver, "_MOST", 3e8)
    peaks = []
    for count in (3_000, 23_000):
        tracemalloc.start()
        for resume in (False, True):
            found = scored(
                digits,
                Many(count),
                folder=tmp_path / str(count) / "s",
                resume=resume,
                on=Untrained(),
            )
            assert np.array_equal(found.accuracy, np.arange(count))
            assert np.array_equal(found.status == DIVERGED, np.arange(count) % 2 == 1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # A cost, a place in the order and its sorting, a score, a status; a spec alone is larger.
    assert peaks[1] - peaks[0] < 100 * 20_000
