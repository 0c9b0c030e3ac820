"""Finding a Ray cluster, and noticing within seconds that it can't be used."""

from __future__ import annotations

import logging
import os
import time
from importlib import metadata
from typing import Any

import grpc
import ray
from ray._private.utils import read_ray_address
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from unmask.errors import UserError
from unmask.runtime import cpu_threads

_CLIENT = "ray://"
_SECONDS_TO_ANSWER = 4.0
_SECONDS_TO_START_A_WORKER = 60.0
_SECONDS_BETWEEN_TRIES = (0.5, 1.0, 2.0, 4.0)
_QUIET = {"log_to_driver": False, "logging_level": logging.CRITICAL}


# What the head answers when it finds that process gone, depending on when it looks.
_DIED_AT_BIRTH = ("Starting Ray client server failed", "ZombieProcess", "NoSuchProcess")


def connect(address: str) -> bool:
    """Connect this process to the cluster.

    Args:
        address: "ray", "ray://HOST:PORT" or "HOST:PORT", see address.executor_at.

    Returns:
        Whether it wasn't connected before.

    Raises:
        UserError: nothing answers there, or the cluster runs another version of Python, Ray or
            Unmask.
    """
    if ray.is_initialized():
        if address == "ray":
            return False
        raise UserError(
            "this process works on a Ray cluster already",
            got=address,
            do="give 'ray', which is that cluster, or call ray.shutdown() first",
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if address == "ray":
            _find_or_start()
        else:
            _join(address)
        _check_versions(address)
    except BaseException:
        ray.shutdown()
        raise
    return True


def living_nodes() -> list[str]:
    """Return the ids of the nodes that tasks can run on."""
    return [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]


def _find_or_start() -> None:
    named = os.environ.get("RAY_ADDRESS", "")
    if named not in ("", "auto", "local"):
        return _join(named)
    # The last cluster here has left its address but may be gone: Ray itself would wait minutes.
    found = None if named == "local" else read_ray_address()
    if found:
        try:
            _knock(found)
        except UserError:
            found = None
    if found:
        return _join(found)
    try:
        ray.init(address="local", num_cpus=cpu_threads(), include_dashboard=False, **_QUIET)
    except Exception as error:
        raise UserError("Ray doesn't start on this machine", got=last_line(error)) from error
    return None


def _join(address: str) -> None:
    _knock(address)
    try:
        _init(address)
    except Exception as error:
        if _died_at_birth(error):
            raise UserError(
                f"the process that the cluster at {address} starts for this one dies at birth",
                got=last_line(error),
                do="start the head with GRPC_ENABLE_FORK_SUPPORT=0 in its environment",
            ) from error
        if "ersion mismatch" in str(error):
            raise UserError(
                f"the cluster at {address} runs another version of Python or Ray",
                got=" ".join(str(error).split()),
                do="install the same on both sides",
            ) from error
        raise UserError(
            f"the cluster at {address} refuses this process",
            got=last_line(error),
            do="HOST:PORT works on a node of the cluster only; from outside give "
            "ray://HOST:PORT of its client server",
        ) from error


def _init(address: str) -> None:
    # The head forks a process for each ray:// client, which can die of it (ray-project/ray#63202).
    for seconds in (*_SECONDS_BETWEEN_TRIES, None):
        try:
            ray.init(address=address, **_QUIET)
        except Exception as error:
            if seconds is None or not _died_at_birth(error):
                raise
            time.sleep(seconds)
        else:
            return


def _died_at_birth(error: Exception) -> bool:
    return any(sign in str(error) for sign in _DIED_AT_BIRTH)


def _knock(address: str) -> None:
    """Call a method that only the right server implements: Ray's own timeout is minutes."""
    client = address.startswith(_CLIENT)
    method = "RayletDriver/ClusterInfo" if client else "NodeInfoGcsService/CheckAlive"
    with grpc.insecure_channel(address.removeprefix(_CLIENT)) as channel:
        ask = channel.unary_unary(f"/ray.rpc.{method}")
        try:
            ask(b"", timeout=_SECONDS_TO_ANSWER, wait_for_ready=True)
        except grpc.RpcError as error:
            code = error.code()
            if code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                raise UserError(
                    f"no Ray cluster answers at {address}",
                    do="start one with 'ray start --head', or check host and port",
                ) from None
            if code == grpc.StatusCode.UNIMPLEMENTED:
                raise UserError(
                    f"{address} is another port of a Ray cluster",
                    do="ray://HOST:PORT takes the client server's (10001 by default), HOST:PORT "
                    "the head's (6379 by default)",
                ) from None


def _check_versions(address: str) -> None:
    """Raise UserError unless every node has this Unmask, within a time limit."""
    ours = metadata.version("unmask")
    asked = {
        _installed()
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        .remote(): node
        for node in living_nodes()
    }
    deadline = time.monotonic() + _SECONDS_TO_START_A_WORKER
    waiting = list(asked)
    while waiting:
        answered, waiting = ray.wait(waiting, timeout=deadline - time.monotonic())
        if not answered:
            raise UserError(
                f"the cluster at {address} starts no workers",
                got=f"no answer from {len(waiting)} of {len(asked)} nodes in "
                f"{_SECONDS_TO_START_A_WORKER:g} seconds",
                do="see what 'ray status' says there",
            )
        for answer in answered:
            try:
                theirs = ray.get(answer)
            except ray.exceptions.RayError:
                continue
            if theirs != ours:
                raise UserError(
                    f"the cluster at {address} runs another Unmask than the {ours} of this machine",
                    got=theirs or "none",
                    do="install the same on every node",
                )


def _installed() -> Any:
    # Defined in here so that it travels by value: a node without Unmask can run it too.
    def installed() -> str | None:
        from importlib import metadata

        try:
            return metadata.version("unmask")
        except metadata.PackageNotFoundError:
            return None

    return ray.remote(num_cpus=0, max_retries=0)(installed)


def last_line(error: Exception) -> str:
    """Return an error's own message, after the trace of another process that it quotes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
