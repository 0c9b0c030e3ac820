"""Executors by address: this process or a Ray cluster."""

from __future__ import annotations

from unmask.errors import UserError
from unmask.execution.executor import Executor, LocalExecutor

ADDRESSES = "local, ray, ray://HOST:PORT or HOST:PORT"


def executor_at(address: str) -> Executor:
    """Return the executor at an address.

    Args:
        address: "local" is this process; "ray" the Ray cluster found on this machine, or one
            started on it; "ray://HOST:PORT" a cluster's client server; "HOST:PORT" the head of the
            cluster that this machine is a node of.

    Raises:
        UserError: the address is none of these, nothing answers there, Ray is not installed, or
            the cluster runs other versions.
    """
    if address == "local":
        return LocalExecutor()
    head = address.removeprefix("ray://")
    host, colon, port = head.rpartition(":")
    if address != "ray" and not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError("no such place to work on", got=repr(address), do=f"give {ADDRESSES}")
    try:
        from unmask.execution.ray_executor import RayExecutor
    except ImportError as error:
        raise UserError(
            "working on a cluster needs Ray", got=str(error), do="pip install 'unmask[cluster]'"
        ) from error
    return RayExecutor(address)
