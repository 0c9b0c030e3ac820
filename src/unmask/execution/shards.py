"""Results too large for one process: workers write them as NPZ shards, read one by one."""

from __future__ import annotations

import contextlib
import io
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UserError
from unmask.execution.executor import Done, Executor
from unmask.runtime import write_atomically
from unmask.saved_state import damaged, read_arrays

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")
Arrays = dict[str, NDArray[Any]]

# Files in a folder: few enough for any file system to list quickly.
_FILES = 1000
# The file by which a worker recognises the driver's folder, whatever its path.
_SIGN = "run"


@dataclass(frozen=True)
class Writing(Generic[S, T, R]):
    """The input of the workers.

    Args:
        work: the function that makes figures and arrays.
        shared: the input of all tasks.
        folder: where the shards belong.
        run: the content of the file "run" in the driver's folder.
    """

    work: Callable[[S, T], tuple[R, Arrays]]
    shared: S
    folder: str
    run: str


@dataclass(frozen=True)
class Written(Generic[R]):
    """The result of a task.

    Args:
        figures: for the driver.
        shard: the content of the shard if it isn't written yet, None if it is.
    """

    figures: R
    shard: bytes | None = None


def write_shards(
    on: Executor,
    work: Callable[[S, T], tuple[R, Arrays]],
    shared: S,
    tasks: Iterable[tuple[int, T]],
    folder: Path,
) -> Generator[Done[R]]:
    """Run tasks that write arrays into a folder.

    A worker that sees the folder writes the shard itself. From one that doesn't, or whose disk is
    full, the shard is sent here and written here, so that nothing is done twice. The driver holds
    only what is in flight, however many tasks there are.

    Args:
        on: runs them.
        work: called with shared and a task; returns figures for the driver and the shard's arrays.
        shared: what every task reads.
        tasks: each with the number of its shard, from 0.
        folder: where the shards belong.

    Yields:
        The figures of each task, by its shard's number, or its error.

    Raises:
        UserError: what Executor.run raises, or the folder can't be written here either.
    """
    run = uuid.uuid4().hex
    with write_atomically(folder / _SIGN) as sign:
        sign.write(run.encode())
    flying: dict[int, int] = {}

    def numbered() -> Iterator[tuple[int, T]]:
        for index, (number, task) in enumerate(tasks):
            flying[index] = number
            yield number, task

    writing = Writing(work, shared, str(folder.absolute()), run)
    with contextlib.closing(on.run(written, writing, numbered())) as ended:
        for done in ended:
            number = flying.pop(done.index)
            if done.result is None:
                yield Done(number, None, done.error)
                continue
            if done.result.shard is not None:
                _put(folder, number, done.result.shard)
            yield Done(number, done.result.figures, None)


def written(writing: Writing[S, T, R], task: tuple[int, T]) -> Written[R]:
    """Run one task on a worker, and write its shard if that can be done there.

    Args:
        writing: the work, its shared input and the folder.
        task: the number of its shard, and the task.

    Returns:
        The figures, and the shard if it couldn't be written.
    """
    number, wanted = task
    figures, arrays = writing.work(writing.shared, wanted)
    shard = _packed(arrays)
    folder = Path(writing.folder)
    try:
        if (folder / _SIGN).read_text() == writing.run:
            _put(folder, number, shard)
            return Written(figures)
    except (OSError, UnicodeDecodeError, UserError):
        # The driver tries next, and reports it if that fails too.
        pass
    return Written(figures, shard)


def write_shard(folder: Path, number: int, arrays: Arrays) -> None:
    """Write one shard from this process.

    Args:
        folder: where the shards belong.
        number: of the shard, from 0.
        arrays: by name.

    Raises:
        UserError: it can't be written.
    """
    _put(folder, number, _packed(arrays))


def read_shards(folder: Path) -> Iterator[tuple[int, Arrays]]:
    """Yield each shard's number and arrays, in order, one at a time.

    Args:
        folder: where the shards are.

    Raises:
        UserError: one is damaged, or has a name that no shard is given.
    """
    for part in sorted(folder.glob("[0-9]*"), key=_number):
        for file in sorted(part.glob("*.npz")):
            number = _number(part) * _FILES + _number(file)
            if file != shard_file(folder, number):
                raise damaged(file, "no shard has this name")
            yield number, read_arrays(file)


def _number(path: Path) -> int:
    if not (path.stem.isascii() and path.stem.isdigit() and len(path.stem) < 16):
        raise damaged(path, "no shard has this name, such as 000.npz")
    return int(path.stem)


def shard_file(folder: Path, number: int) -> Path:
    """Return the path of a shard.

    Args:
        folder: where the shards are.
        number: of the shard, from 0.
    """
    return folder / f"{number // _FILES:03d}" / f"{number % _FILES:03d}.npz"


def _packed(arrays: Arrays) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def _put(folder: Path, number: int, shard: bytes) -> None:
    with write_atomically(shard_file(folder, number)) as out:
        out.write(shard)
