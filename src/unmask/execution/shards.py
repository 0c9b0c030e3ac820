"""Results too many for one process: workers write them as NPZ shards, which are read one by one."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UserError
from unmask.execution.executor import Done, Executor
from unmask.runtime import write_atomically

S = TypeVar("S")
T = TypeVar("T")
Arrays = dict[str, NDArray[Any]]

# Files a folder: few enough for any file system to list quickly.
_FILES = 1000


@dataclass(frozen=True)
class _Shared(Generic[S, T]):
    work: Callable[[S, T], Arrays]
    shared: S
    folder: str


def write_shards(
    on: Executor,
    work: Callable[[S, T], Arrays],
    shared: S,
    tasks: Iterable[T],
    folder: Path,
) -> Generator[Done[int]]:
    """Carry out tasks whose arrays the workers write to a folder; yield the bytes that each wrote.

    Shards that are there are not made again. The driver holds the tasks in flight and nothing
    else, however many there are. folder: one that all nodes share. Raises what Executor.run raises.
    """
    flying: dict[int, int] = {}

    def missing() -> Iterator[tuple[int, T]]:
        drawn = 0
        for number, task in enumerate(tasks):
            if not _there(folder, number):
                flying[drawn] = number
                drawn += 1
                yield number, task

    ended = on.run(_write, _Shared(work, shared, str(folder.absolute())), missing())
    for done in ended:
        yield Done(flying.pop(done.index), done.result, done.error)


def read_shards(folder: Path) -> Iterator[tuple[int, Arrays]]:
    """Yield each shard's number and arrays, in order, one at a time.

    Raises UserError when one is damaged.
    """
    for part in sorted(folder.glob("[0-9]*"), key=lambda path: int(path.name)):
        for file in sorted(part.glob("*.npz")):
            try:
                with np.load(file, allow_pickle=False) as saved:
                    arrays = {name: saved[name] for name in saved.files}
            except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                raise UserError(
                    f"{file} is no readable shard", got=str(error), do="delete it and run again"
                ) from error
            yield int(part.name) * _FILES + int(file.stem), arrays


def missing_shards(folder: Path, count: int) -> Iterator[int]:
    """Yield the numbers below count of shards that aren't there: failed, or on another machine."""
    return (number for number in range(count) if not _there(folder, number))


def shard_file(folder: Path, number: int) -> Path:
    """Return where the shard of that number lies."""
    return folder / _name(number)


def _there(folder: Path, number: int) -> bool:
    # Not Path.exists, which takes several times as long: this is asked a million times.
    return os.path.exists(f"{folder}/{_name(number)}")  # noqa: PTH110


def _name(number: int) -> str:
    return f"{number // _FILES:03d}/{number % _FILES:03d}.npz"


def _write(shared: _Shared[S, T], task: tuple[int, T]) -> int:
    number, asked = task
    buffer = io.BytesIO()
    np.savez(buffer, **shared.work(shared.shared, asked))  # type: ignore[arg-type]
    with write_atomically(shard_file(Path(shared.folder), number)) as out:
        out.write(buffer.getvalue())
    return buffer.tell()
