"""A real Ray cluster on loopback: nodes, each with processes of its own."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unmask.execution.address import executor_at
from unmask.execution.executor import Executor

HERE = Path(__file__).parent
NODES = 3
ATTEMPTS = 3
# Generous: the machine may be busy with something else.
PATIENCE = 120.0
ENVIRONMENT = {
    "PYTHONPATH": str(HERE),
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "60",
    # Without it one client in ten finds its process dead (ray-project/ray#63202).
    "GRPC_ENABLE_FORK_SUPPORT": "0",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_memory_monitor_refresh_ms": "0",
}


class Machines:
    """A cluster, and this process's connection to it."""

    def __init__(self, nodes: int = NODES) -> None:
        from ray.cluster_utils import Cluster

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.client_port = free.getsockname()[1]
        self.small = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_log_monitor": False}
        head = {
            **self.small,
            "include_dashboard": False,
            "no_monitor": True,
            "ray_client_server_port": self.client_port,
        }
        self._nodes = nodes
        self._on: Executor | None = None
        # Ray gives a node 30 seconds to start, which a busy machine may need twice.
        for attempt in range(ATTEMPTS):
            self.cluster = Cluster()
            try:
                self.cluster.add_node(**head)
                self.complete()
                break
            except Exception:
                self.cluster.shutdown()
                if attempt == ATTEMPTS - 1:
                    raise
        self.address: str = self.cluster.address

    def complete(self) -> None:
        while len(self.cluster.worker_nodes) < self._nodes - 1:
            self.cluster.add_node(wait=False, **self.small)
        self.cluster.wait_for_nodes(PATIENCE)

    @property
    def on(self) -> Executor:
        if self._on is None:
            self._on = executor_at(self.address)
        return self._on

    def client_server_log(self) -> str:
        """What the processes that the head starts for ray:// clients had to say."""
        logs = Path(self.cluster.head_node.get_logs_dir_path()).glob("ray_client_server*")
        return "\n".join(f"{log.name}:\n{log.read_text()[-3000:]}" for log in sorted(logs))

    def leave(self) -> None:
        if self._on is not None:
            self._on.close()
        self._on = None


def until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
