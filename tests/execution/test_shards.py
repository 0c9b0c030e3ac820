"""Results in shards: written by workers, resumed, read in order, and never all in memory."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from unmask.errors import UserError
from unmask.execution import shards
from unmask.execution.executor import Done
from unmask.execution.local import LocalExecutor
from unmask.execution.shards import missing_shards, read_shards, shard_file, write_shards

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from scale import Pretending, pretend


def squares(shared: int, task: int) -> dict[str, NDArray[np.int64]]:
    if task == 4:
        raise ValueError("4 is bad")
    return {"task": np.array([task]), "square": np.full(shared, task**2)}


def written(folder: Path, count: int) -> list[Done[int]]:
    return list(write_shards(LocalExecutor(), squares, 3, range(count), folder))


def test_shards_are_read_in_order_and_failures_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Eleven folders, whose names by themselves would sort otherwise.
    monkeypatch.setattr(shards, "_FILES", 1)
    monkeypatch.setattr(shards, "_name", lambda number: f"{number}/000.npz")
    ended = written(tmp_path, 12)
    assert [done.index for done in ended] == list(range(12))
    (failed,) = [done for done in ended if done.error is not None]
    assert failed.index == 4
    assert "4 is bad" in str(failed.error)
    assert ended[5].result == shard_file(tmp_path, 5).stat().st_size
    assert list(missing_shards(tmp_path, 13)) == [4, 12]
    read = list(read_shards(tmp_path))
    assert [number for number, _ in read] == [n for n in range(12) if n != 4]
    for number, arrays in read:
        assert arrays["task"].tolist() == [number]
        assert arrays["square"].tolist() == [number**2] * 3


def test_shards_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    written(tmp_path, 3)
    before = shard_file(tmp_path, 1).stat().st_mtime_ns
    shard_file(tmp_path, 2).unlink()
    ended = written(tmp_path, 6)
    assert [(done.index, done.error is None) for done in ended] == [
        (2, True),
        (3, True),
        (4, False),
        (5, True),
    ]
    assert shard_file(tmp_path, 1).stat().st_mtime_ns == before


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    written(tmp_path, 2)
    shard_file(tmp_path, 1).write_bytes(b"PK\x03\x04 half of")
    with pytest.raises(UserError, match=r"001\.npz is no readable shard"):
        list(read_shards(tmp_path))


def test_tasks_are_drawn_as_they_are_needed(tmp_path: Path) -> None:
    drawn: list[int] = []
    tasks = (drawn.append(n) or n for n in range(100_000))
    ended = write_shards(Pretending(4), squares, 1, tasks, tmp_path)
    next(ended)
    assert len(drawn) <= 8


def test_the_drivers_memory_is_that_of_the_tasks_in_flight() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        pretend(count)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    # A number kept of every task would be 32 bytes and a place to keep it.
    assert peak(30_000) - peak(14_000) < 32 * 16_000 / 2
