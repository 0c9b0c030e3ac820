"""Results in shards: written by workers, read in order, and never all in memory."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from unmask.errors import UserError
from unmask.execution import shards
from unmask.execution.executor import Done, LocalExecutor
from unmask.execution.shards import Written, read_shards, shard_file, write_shards

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "scale"))

from scale import Pretending, pretend


def squares(shared: int, task: int) -> tuple[int, dict[str, NDArray[np.int64]]]:
    """Return the double of a task, and a shard with its square."""
    if task == 4:
        raise ValueError("4 is bad")
    return 2 * task, {"task": np.array([task]), "square": np.full(shared, task**2)}


def made(folder: Path, numbers: Iterable[int], on: LocalExecutor | None = None) -> list[Done[int]]:
    tasks = ((number, number) for number in numbers)
    return list(write_shards(on or LocalExecutor(), squares, 3, tasks, folder))


def check(folder: Path, numbers: Iterable[int]) -> None:
    read = dict(read_shards(folder))
    assert list(read) == list(numbers)
    for number, arrays in read.items():
        assert arrays["task"].tolist() == [number]
        assert arrays["square"].tolist() == [number**2] * 3


def test_shards_are_read_in_order_and_failures_are_named(tmp_path: Path) -> None:
    # Folders whose names by themselves would sort otherwise.
    numbers = [1_000_000, 999_999, 0, 4, 12]
    ended = made(tmp_path, numbers)
    assert [done.index for done in ended] == numbers
    assert [done.result for done in ended] == [2_000_000, 1_999_998, 0, None, 24]
    assert "4 is bad" in str(ended[3].error)
    check(tmp_path, [0, 12, 999_999, 1_000_000])


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    made(tmp_path, range(2))
    shard_file(tmp_path, 1).write_bytes(b"PK\x03\x04 half of")
    with pytest.raises(UserError, match=r"state is damaged: .*001\.npz"):
        list(read_shards(tmp_path))


class Node(LocalExecutor):
    """A worker that sees the folder at a path of its own, and notes what travels from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.travelled: list[bool] = []

    def run(
        self, work: Callable[[Any, Any], Any], shared: Any, tasks: Iterable[Any]
    ) -> Iterator[Done[Any]]:
        for done in super().run(work, replace(shared, folder=str(self.folder)), tasks):
            if done.result is not None:
                self.travelled.append(done.result.shard is not None)
            yield done


@pytest.mark.parametrize("there", ["nothing", "another run"])
def test_a_shard_travels_from_a_worker_that_does_not_see_the_folder(
    tmp_path: Path, there: str
) -> None:
    elsewhere, here = Node(tmp_path / "elsewhere"), tmp_path / "here"
    if there == "another run":
        made(elsewhere.folder, range(1))
    before = sorted(elsewhere.folder.rglob("*"))
    ended = made(here, range(3), elsewhere)
    assert [done.result for done in ended] == [0, 2, 4]
    assert elsewhere.travelled == [True] * 3
    assert sorted(elsewhere.folder.rglob("*")) == before
    check(here, range(3))


def test_a_worker_that_sees_the_folder_writes_the_shard(tmp_path: Path) -> None:
    folder, node = tmp_path / "here", Node(tmp_path / "mounted")
    node.folder.symlink_to(folder)
    made(folder, range(3), node)
    assert node.travelled == [False] * 3
    check(folder, range(3))


class Disk:
    """A disk that is full at some of the shards it is given, counted from 0."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, full: Iterable[int]) -> None:
        self.full, self.given, self.write = set(full), -1, shards.write_atomically
        monkeypatch.setattr(shards, "write_atomically", self)

    def __call__(self, path: Path) -> Any:
        self.given += path.suffix == ".npz"
        if path.suffix == ".npz" and self.given in self.full:
            raise UserError(f"can't write {path}", got="No space left on device")
        return self.write(path)


def test_a_shard_that_a_worker_has_no_room_for_is_written_by_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Disk(monkeypatch, full={1})
    node = Node(tmp_path)
    ended = made(tmp_path, range(3), node)
    assert [done.result for done in ended] == [0, 2, 4]
    assert node.travelled == [False, True, False]
    check(tmp_path, range(3))


def test_a_disk_that_is_full_here_too_ends_it_with_what_is_written_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Disk(monkeypatch, full={1, 2})
    with pytest.raises(UserError, match="No space left on device"):
        made(tmp_path, range(3))
    check(tmp_path, range(1))


def test_tasks_are_drawn_as_they_are_needed(tmp_path: Path) -> None:
    drawn: list[int] = []

    def tasks() -> Iterator[tuple[int, int]]:
        for number in range(100_000):
            drawn.append(number)
            yield number, number

    pretending = Pretending(4, lambda shared, task: Written(task[0]))
    ended = write_shards(pretending, squares, 1, tasks(), tmp_path)
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
