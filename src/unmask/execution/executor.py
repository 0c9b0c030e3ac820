"""The interface of what runs independent tasks, and the executor that needs no cluster."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from unmask.errors import UserError

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Done(Generic[R]):
    """How a task ended.

    Args:
        index: its place in the order given.
        result: what it returned; None when it raised.
        error: one line with what was raised and where; None after a success.
    """

    index: int
    result: R | None
    error: str | None


class Executor(Protocol):
    """Runs tasks; a context manager that closes itself."""

    @property
    def workers(self) -> int:
        """How many tasks run at once."""

    def run(self, work: Callable[[S, T], R], shared: S, tasks: Iterable[T]) -> Generator[Done[R]]:
        """Run tasks, in any order.

        What one task raises becomes its error and the others continue; one whose worker is lost is
        tried again. Closing the iterator cancels what runs.

        Args:
            work: a function of a module, called with shared and the task.
            shared: the input of all tasks, which work must not change.
            tasks: drawn from the iterable as they are needed.

        Yields:
            How each task ended, as it ends; the index is its place in tasks.

        Raises:
            UserError: the workers can't be reached any more.
        """

    def close(self) -> None:
        """Release the workers; closing twice does no harm."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class LocalExecutor(Executor):
    """Calls the work in this process; the work itself uses the machine's cores."""

    workers = 1

    def run(self, work: Callable[[S, T], R], shared: S, tasks: Iterable[T]) -> Generator[Done[R]]:
        """Yield how each task ended, in the order given.

        Args:
            work: called with shared and the task, in this process.
            shared: the input of all tasks.
            tasks: none is drawn before it is needed.
        """
        for index, task in enumerate(tasks):
            yield _done(index, work, shared, task)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def error_line(error: BaseException) -> str:
    """Return one line with what was raised and where."""
    if isinstance(error, UserError):
        return str(error)
    text = " ".join([f"{type(error).__name__}:", *str(error).split()]).rstrip(":")
    frames = traceback.extract_tb(error.__traceback__)
    return f"{text} ({frames[-1].name}, line {frames[-1].lineno})" if frames else text


def _done(index: int, work: Callable[[S, T], R], shared: S, task: T) -> Done[R]:
    try:
        return Done(index, work(shared, task), None)
    except Exception as error:
        return Done(index, None, error_line(error))
