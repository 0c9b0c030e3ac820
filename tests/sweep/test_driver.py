"""Sweeps through an executor: the same bits, whoever works and in whatever order they finish."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_engine import FAST, same

from unmask import Images, UserError, grid, train_sweep
from unmask.execution.executor import Done, LocalExecutor
from unmask.sweep import driver, trainer
from unmask.sweep.engine import SweepInterrupted
from unmask.sweep.history import FINISHED, PENDING, SweepHistory
from unmask.sweep.meter import SweepProgress

SPECS = grid(depth=[1, 4, 2], activation=["tanh", "relu"], seed=[0, 1], **FAST)


class Shuffled(LocalExecutor):
    """An executor whose tasks end in an order of its own."""

    def __init__(self, order: int, workers: int) -> None:
        self.order, self.workers = order, workers

    def run(
        self, work: Callable[[Any, Any], Any], shared: Any, tasks: Iterable[Any]
    ) -> Generator[Done[Any]]:
        ended = list(super().run(work, shared, tasks))
        random.Random(self.order).shuffle(ended)
        yield from ended


@pytest.fixture
def net_by_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make blocks as small as the number of workers allows."""
    monkeypatch.setattr(driver, "_LEAST", 0.0)


def sweep(digits: Images, **how: Any) -> SweepHistory:
    train, test = digits.split(100)
    return train_sweep(SPECS, train, validation=test, test=test, probe_epochs=(0, 2), **how)


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(order=st.integers(0, 999), workers=st.integers(1, 5))
@pytest.mark.usefixtures("net_by_net")
def test_same_bits_for_any_order_and_number_of_workers(
    digits: Images, order: int, workers: int
) -> None:
    assert same(sweep(digits), sweep(digits, on=Shuffled(order, workers)))


@settings(deadline=None)
@given(
    st.lists(st.floats(1, 1e12), max_size=50),
    st.floats(1, 1e12),
)
def test_blocks_hold_every_net_once_in_order_and_no_more_than_needed(
    costs: list[float], size: float
) -> None:
    cut = list(driver.cut(range(100, 100 + len(costs)), costs, size))
    assert [i for block in cut for i in block] == list(range(100, 100 + len(costs)))
    for block in cut:
        assert sum(costs[i - 100] for i in block[:-1]) < size
    for block in cut[:-1]:
        assert sum(costs[i - 100] for i in block) >= size


def test_small_nets_share_a_task(digits: Images) -> None:
    seen: list[SweepProgress] = []
    sweep(digits, on=LocalExecutor(), progress=seen.append)
    assert [p.nets_done for p in seen] == [0, len(SPECS), len(SPECS)]
    assert [p.running for p in seen] == [1, 0, 0]
    assert (seen[-1].failed, seen[-1].seconds_left) == (0, pytest.approx(0, abs=1e-9))


@pytest.mark.usefixtures("net_by_net")
def test_a_net_that_fails_is_named_and_the_others_are_kept_and_resumed(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, path, make = sweep(digits), tmp_path / "h.npz", trainer._net

    def broken(spec: Any, task: Any) -> Any:
        if (spec.depth, spec.activation, spec.seed) == (2, "relu", 1):
            raise MemoryError("all gone")
        return make(spec, task)

    monkeypatch.setattr(trainer, "_net", broken)
    with pytest.raises(
        UserError, match=r"1 of 12 nets failed: got depth=2, .*activation=relu"
    ) as e:
        sweep(digits, on=Shuffled(0, 3), checkpoint=path)
    assert "activation=relu, " in str(e.value)
    assert "seed=1: MemoryError: all gone (broken, line" in str(e.value)
    kept = SweepHistory.load(path)
    assert np.count_nonzero(kept.status == FINISHED) == 11
    assert np.count_nonzero(kept.status == PENDING) == 1
    monkeypatch.setattr(trainer, "_net", make)
    again = sweep(digits, on=Shuffled(1, 3), checkpoint=path, resume=True)
    assert same(again, whole)


@pytest.mark.usefixtures("net_by_net")
def test_ctrl_c_keeps_what_is_finished_and_closes_the_work(digits: Images, tmp_path: Path) -> None:
    closed = []

    class Watched(LocalExecutor):
        workers = 2

        def run(
            self, work: Callable[[Any, Any], Any], shared: Any, tasks: Iterable[Any]
        ) -> Generator[Done[Any]]:
            try:
                yield from super().run(work, shared, tasks)
            finally:
                closed.append(True)

    def interrupt(progress: SweepProgress) -> None:
        if progress.nets_done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(SweepInterrupted) as caught:
        sweep(digits, on=Watched(), progress=interrupt, checkpoint=tmp_path / "h.npz")
    assert closed == [True]
    done = np.count_nonzero(caught.value.history.status)
    assert 4 <= done < 12
    assert same(SweepHistory.load(tmp_path / "h.npz"), caught.value.history)


def test_an_instruction_set_that_a_worker_lacks_is_named(
    digits: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmask.sweep.task._instructions", lambda *a: "avx1024")
    with pytest.raises(UserError, match="doesn't run the avx1024 instructions") as caught:
        sweep(digits, on=LocalExecutor())
    assert "UNMASK_ISA" in str(caught.value)


def test_a_gpu_and_an_executor_exclude_each_other(digits: Images) -> None:
    with pytest.raises(UserError, match="on processors: got device cuda"):
        sweep(digits, on=LocalExecutor(), device="cuda")


def test_nets_trained_together_and_an_executor_exclude_each_other(digits: Images) -> None:
    with pytest.raises(UserError, match="one by one: got engine stacked") as caught:
        sweep(digits, on=LocalExecutor(), engine="stacked")
    assert "\n" not in str(caught.value)
