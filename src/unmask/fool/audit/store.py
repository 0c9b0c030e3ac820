"""The parts of an audit: made by an executor, stored one by one, read in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UserError
from unmask.execution.executor import Executor
from unmask.fool.audit.records import Pairs, Shard, read_pairs, write_arrays
from unmask.runtime import write_atomically
from unmask.saved_state import holds

P = TypeVar("P", Shard, Pairs)
S = TypeVar("S")


@dataclass
class Kept(Generic[P]):
    """The parts of one kind by number: in files, or without a folder in memory.

    Args:
        folder: of the files, None for memory.
        prefix: of the files' names.
        write: a part to a file.
        load: a part from a file.
        here: the parts in memory.
    """

    folder: Path | None
    prefix: str
    write: Callable[[P, Path], None]
    load: Callable[[Path], P]
    here: dict[int, P] = field(default_factory=dict)

    def has(self, number: int) -> bool:
        """Return whether that part is there."""
        return number in self.here if self.folder is None else self._file(number).exists()

    def put(self, number: int, part: P) -> None:
        """Keep a part."""
        if self.folder is None:
            self.here[number] = part
        else:
            self.write(part, self._file(number))

    def get(self, number: int) -> P:
        """Return a part that is there.

        Args:
            number: of the part.

        Raises:
            UserError: when its file is damaged.
        """
        return self.here[number] if self.folder is None else self.load(self._file(number))

    def _file(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.prefix}{number:05d}.npz"


class Store:
    """The stored shards and pairs of an audit.

    Args:
        directory: their folder, None to keep them in memory.
        key: plain values that distinguish this audit from others.
        resume: whether parts in the folder are used again.

    Raises:
        UserError: when the folder holds those of another audit and they are to be used again.
    """

    def __init__(self, directory: Path | None, key: dict[str, Any], resume: bool) -> None:
        folder = directory / "shards" if directory else None
        self.shards: Kept[Shard] = Kept(folder, "", Shard.save, Shard.load)
        self.pairs: Kept[Pairs] = Kept(
            folder,
            "pairs-",
            lambda pairs, file: write_arrays(file, pairs.__dict__, None),
            read_pairs,
        )
        if folder is None:
            return
        text = json.dumps(key, sort_keys=True)
        file = folder / "key.json"
        if resume and file.exists() and not holds(file, text):
            raise UserError(
                f"the shards in {folder} are of another audit",
                got="another model, other images or other settings",
                do="leave --resume out, or choose another --out",
            )
        if not resume and folder.is_dir():
            for stale in folder.glob("*.npz"):
                stale.unlink()
        with write_atomically(file) as out:
            out.write(text.encode())


class Parts(Generic[P]):
    """Parts of an audit, each of some rows of the images: made where they are missing.

    Args:
        kept: the stored parts.
        rows: of the images of each part, int64[k] each.
    """

    def __init__(self, kept: Kept[P], rows: list[NDArray[np.int64]]) -> None:
        self.kept: Kept[P] = kept
        self.rows = rows
        self.errors: dict[int, str] = {}

    def made(
        self,
        on: Executor,
        work: Callable[[S, tuple[int, NDArray[np.int64]]], P],
        shared: S,
    ) -> Iterator[tuple[int, int, int]]:
        """Make the missing parts, and yield the progress.

        Args:
            on: the executor.
            work: of shared and a task, the number and the rows of a part.
            shared: the input of every task.

        Returns:
            The numbers of parts that are done, running and failed, after each.
        """
        missing = [i for i in range(len(self.rows)) if not self.kept.has(i)]
        done = len(self.rows) - len(missing)
        yield done, min(on.workers, len(missing)), 0
        if not missing:
            return
        for count, outcome in enumerate(
            on.run(work, shared, ((i, self.rows[i]) for i in missing)), 1
        ):
            number = missing[outcome.index]
            if outcome.result is None:
                self.errors[number] = outcome.error or "no reason given"
            else:
                self.kept.put(number, outcome.result)
            running = min(on.workers, len(missing) - count)
            yield done + count - len(self.errors), running, len(self.errors)

    def read(self) -> list[P]:
        """Return the parts in their order, without those that failed."""
        return [self.kept.get(i) for i in range(len(self.rows)) if i not in self.errors]

    def failures(self, what: str) -> list[str]:
        """Return each failure in one line, in order."""
        return [
            f"{what} {i} ({count} image{'s' if count > 1 else ''}): {self.errors[i]}"
            for i, count in ((i, len(self.rows[i])) for i in sorted(self.errors))
        ]
