"""Work for the executors' tests: functions that workers can import."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UserError


def double(shared: int, task: int) -> int:
    """Return 2 task + shared; 13 and 14 are bad ones."""
    if task == 13:
        raise ValueError("13 is\nunlucky")
    if task == 14:
        raise UserError("14 is no better", got=14)
    return 2 * task + shared


def add_up(shared: NDArray[np.uint8], task: int) -> tuple[int, bool]:
    """Return the sum of the shared input plus the task, and whether it can be written."""
    return int(shared.sum()) + task, shared.flags.writeable


def take(folder: str, seconds: float) -> int:
    """Leave a file that names the process and the node, sleep, and return the process."""
    Path(folder, f"{os.getpid()} {_node()} {time.monotonic_ns()}").touch()
    time.sleep(seconds)
    return os.getpid()


def ignore(folder: str, seconds: float) -> int:
    """Do as take does, whatever interrupts it."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            return take(folder, end - time.monotonic())


def hold(folder: str, task: int) -> int:
    """Do as take does, but let every task after the first wait for a file called go."""
    Path(folder, f"{os.getpid()} {_node()} {time.monotonic_ns()}").touch()
    end = time.monotonic() + 240
    while task and not Path(folder, "go").exists() and time.monotonic() < end:
        time.sleep(0.05)
    return os.getpid()


def kill(shared: None, task: int) -> int:
    """Kill the worker at every attempt at task 1."""
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def write(full: str, task: int) -> str:
    """Return the node; raise what a full disk raises on the node `full`, for task 1 on every."""
    if task == 1 or _node() == full:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "shard.npz")
    return _node()


def fill(full: str, task: int) -> tuple[tuple[str, int], dict[str, NDArray[np.int64]]]:
    """Return node and process, and a shard; the node `full` has no room for a file from then on."""
    time.sleep(0.1)
    if _node() == full:
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        # Room for Ray's logs, and for no shard.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, most))
    return (_node(), os.getpid()), {"task": np.full(1 << 18, task)}


def _node() -> str:
    import ray

    node: str = ray.get_runtime_context().get_node_id()
    return node
