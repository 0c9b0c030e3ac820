"""The executor that needs nothing: this process, one task after another."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Self, TypeVar

from unmask.execution.executor import Done, told

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")


class LocalExecutor:
    """Calls the work here; what uses the machine's cores is the work itself."""

    workers = 1

    def run(self, work: Callable[[S, T], R], shared: S, tasks: Iterable[T]) -> Generator[Done[R]]:
        """Yield how each task ended, in the order given; none is drawn before it is needed."""
        for index, task in enumerate(tasks):
            yield _done(index, work, shared, task)

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _done(index: int, work: Callable[[S, T], R], shared: S, task: T) -> Done[R]:
    try:
        return Done(index, work(shared, task), None)
    except Exception as error:
        return Done(index, None, told(error))
