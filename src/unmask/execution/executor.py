"""What carries out independent tasks: one interface, whatever machines are behind it."""

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

ADDRESSES = "local, ray, ray://HOST:PORT or HOST:PORT"


@dataclass(frozen=True)
class Done(Generic[R]):
    """How a task ended: its index in the order given, and its result or what it raised.

    error is None after a success, otherwise one line that says what was raised and where.
    """

    index: int
    result: R | None
    error: str | None


class Executor(Protocol):
    """Carries out tasks; a context manager that closes itself."""

    @property
    def workers(self) -> int:
        """How many tasks run at once."""

    def run(self, work: Callable[[S, T], R], shared: S, tasks: Iterable[T]) -> Generator[Done[R]]:
        """Yield how each task ended as it ends, in any order; index says which it was.

        work is a function of a module, called with shared, which it must not change, and the task.
        Tasks are drawn from the iterable as they are needed. What one task raises becomes its
        error and the others go on; one whose worker is lost is tried again. Closing the iterator
        cancels what runs. Raises UserError when the workers can't be reached any more.
        """

    def close(self) -> None:
        """Let go of the workers; closing twice does no harm."""

    def __enter__(self) -> Self:
        """Return the executor itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""


def executor(address: str) -> Executor:
    """Return the executor that an address names.

    "local": this process. "ray": the Ray cluster found on this machine, or one started on it.
    "ray://HOST:PORT": a cluster's client server. "HOST:PORT": the head of the cluster that this
    machine is a node of. Raises UserError when the address is none of them, when nothing answers
    there, when Ray is not installed, and when the cluster runs other versions.
    """
    if address == "local":
        from unmask.execution.local import LocalExecutor

        return LocalExecutor()
    head = address.removeprefix("ray://")
    host, colon, port = head.rpartition(":")
    if address != "ray" and not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError("no such place to work on", got=repr(address), do=f"give {ADDRESSES}")
    try:
        from unmask.execution.on_ray import RayExecutor
    except ImportError as error:
        raise UserError(
            "working on a cluster needs Ray", got=str(error), do="pip install 'unmask[cluster]'"
        ) from error
    return RayExecutor(address)


def told(error: BaseException) -> str:
    """Return one line that says what was raised and where."""
    if isinstance(error, UserError):
        return str(error)
    text = " ".join([f"{type(error).__name__}:", *str(error).split()]).rstrip(":")
    frames = traceback.extract_tb(error.__traceback__)
    return f"{text} ({frames[-1].name}, line {frames[-1].lineno})" if frames else text
