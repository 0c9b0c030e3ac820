"""The executor that sends tasks to a Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfDiskError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from unmask.errors import UserError
from unmask.execution.executor import Done, Executor, error_line
from unmask.execution.ray_connection import connect, last_line, living_nodes

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

_ATTEMPTS = 5
# Some tasks wait at the workers, so that none idles until its next task arrives.
_TASKS_A_WORKER = 2
_LOST = (NodeDiedError, ObjectLostError, OutOfDiskError, OutOfMemoryError, WorkerCrashedError)


@dataclass
class _Flight(Generic[T]):
    """A task that was sent: how often it was tried, and on which nodes it failed."""

    index: int
    task: T
    attempts: int = 0
    shunned: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Answer(Generic[R]):
    """A worker's answer for a task; elsewhere: whether another node may succeed."""

    result: R | None
    error: str | None = None
    node: str = ""
    elsewhere: bool = False


class RayExecutor(Executor):
    """Runs as many tasks at once as the cluster has CPUs.

    The shared input is put into the object store once and sent to each node once. A task is tried
    up to 5 times when its worker is lost, and on another node when it raises an OSError, such as
    that of a full disk. Arrays in shared and in results are read-only.

    Args:
        address: see address.executor_at.

    Raises:
        UserError: the cluster can't be reached, or runs other versions.
    """

    def __init__(self, address: str) -> None:
        """Connect to the address."""
        self._address = address
        self._version = metadata.version("unmask")
        self._connected_here = connect(address)

    @property
    def workers(self) -> int:
        """How many tasks run at once: the cluster's CPUs, at least 1."""
        with self._reaching():
            return max(1, int(ray.cluster_resources().get("CPU", 0)))

    def run(self, work: Callable[[S, T], R], shared: S, tasks: Iterable[T]) -> Generator[Done[R]]:
        """Yield how each task ended, as it ends; see Executor.run."""
        with self._reaching():
            reference = ray.put(shared)
        waiting = (_Flight(index, task) for index, task in enumerate(tasks))
        flying: dict[Any, _Flight[T]] = {}
        try:
            while True:
                room = _TASKS_A_WORKER * self.workers - len(flying)
                # Outside of _reaching, since errors of the tasks' iterable aren't the cluster's.
                for _, flight in zip(range(room), waiting, strict=False):
                    flying[self._send(work, reference, flight)] = flight
                if not flying:
                    return
                for arrived in self._arrived(flying):
                    flight = flying.pop(arrived)
                    answer: _Answer[R] = self._answer(arrived)
                    if answer.elsewhere and flight.attempts < _ATTEMPTS:
                        flight.shunned.add(answer.node)
                        flying[self._send(work, reference, flight)] = flight
                    else:
                        yield Done(flight.index, answer.result, answer.error)
        finally:
            if flying:
                self._abandon(flying)

    def close(self) -> None:
        """Leave the cluster, or end it if it was started here."""
        if self._connected_here:
            ray.shutdown()
        self._connected_here = False

    def _abandon(self, flying: Iterable[Any]) -> None:
        """Stop what runs by disconnecting, which ends a driver's tasks; the next run reconnects.

        ray.cancel is for connections that others use too: a task that ends while it is cancelled
        kills the driver (a failed check of Ray's task manager, seen with Ray 2.60).
        """
        with contextlib.suppress(Exception):
            if self._connected_here:
                ray.shutdown()
                return
            for left in flying:
                ray.cancel(left, force=True)

    def _send(self, work: Callable[[S, T], R], shared: Any, flight: _Flight[T]) -> Any:
        flight.attempts += 1
        with self._reaching():
            fresh = [n for n in living_nodes() if n not in flight.shunned] if flight.shunned else []
            where = NodeAffinitySchedulingStrategy(fresh[0], soft=True) if fresh else "DEFAULT"
            return _REMOTE.options(scheduling_strategy=where).remote(
                self._version, work, shared, flight.task
            )

    def _arrived(self, flying: Iterable[Any]) -> list[Any]:
        with self._reaching():
            # With a timeout, so that workers that join are given tasks.
            arrived: list[Any] = ray.wait(list(flying), timeout=5.0)[0]
        return arrived

    def _answer(self, arrived: Any) -> _Answer[R]:
        with self._reaching():
            try:
                answer: _Answer[R] = ray.get(arrived)
            except _LOST as error:
                return _Answer(None, f"its worker was lost: {type(error).__name__}", elsewhere=True)
            except RayTaskError as error:
                return _Answer(None, last_line(error))
        return answer

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        if self._connected_here and not ray.is_initialized():
            connect(self._address)
        try:
            yield
        except (ConnectionError, RayError) as error:
            raise UserError(
                f"the cluster at {self._address} has gone",
                got=type(error).__name__,
                do="what is finished is kept",
            ) from error


def _carry_out(version: str, work: Callable[[S, T], R], shared: S, task: T) -> _Answer[R]:
    """Run one task on a worker; Ray doesn't retry it, since the driver knows where it failed."""
    node = ray.get_runtime_context().get_node_id()
    here = metadata.version("unmask")
    if here != version:
        line = f"a node runs Unmask {here}, this machine {version}"
        return _Answer(None, line, node, elsewhere=True)
    try:
        return _Answer(work(shared, task), None, node)
    except Exception as error:
        where = f"{error_line(error)}, on node {ray.util.get_node_ip_address()}"
        return _Answer(None, where, node, elsewhere=isinstance(error, OSError))


_REMOTE = ray.remote(num_cpus=1, max_retries=0)(_carry_out)
