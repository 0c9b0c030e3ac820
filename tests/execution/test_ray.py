"""A real Ray cluster on loopback: three nodes, each with processes of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import driver
import numpy as np
import psutil
import pytest
import works

from unmask.cli.main import main
from unmask.data.mnist import load_mnist
from unmask.errors import UserError
from unmask.execution.executor import Done, Executor, executor
from unmask.flow.map import run_map
from unmask.sweep import SweepHistory

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
NODES = 3
ATTEMPTS = 3
# Generous: the machine may be busy with something else.
PATIENCE = 120.0
ENVIRONMENT = {
    "PYTHONPATH": str(HERE),
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "300",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_memory_monitor_refresh_ms": "0",
}


class Machines:
    """A cluster, and this process's connection to it."""

    def __init__(self) -> None:
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
        while len(self.cluster.worker_nodes) < NODES - 1:
            self.cluster.add_node(wait=False, **self.small)
        self.cluster.wait_for_nodes(PATIENCE)

    @property
    def on(self) -> Executor:
        if self._on is None:
            self._on = executor(self.address)
        return self._on

    def leave(self) -> None:
        if self._on is not None:
            self._on.close()
        self._on = None


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    # A path to a socket must be short.
    folder = tempfile.mkdtemp(prefix="ray")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "RAY_TMPDIR": folder}.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        started = Machines()
        yield started
        started.leave()
        started.cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def on(machines: Machines) -> Executor:
    machines.complete()
    return machines.on


@pytest.fixture
def apart(machines: Machines) -> Machines:
    """The cluster while this process is not connected to it."""
    machines.complete()
    machines.leave()
    return machines


def until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def begun(folder: Path) -> list[tuple[int, str]]:
    """Return process and node of every task that works.take or works.hold began."""
    names = [f.name.split() for f in folder.iterdir() if f.name != "go"]
    return [(int(name[0]), name[1]) for name in names]


def same(a: Path, b: Path) -> bool:
    ours, theirs = SweepHistory.load(a), SweepHistory.load(b)
    return ours.specs == theirs.specs and all(
        np.array_equal(getattr(ours, group)[k], getattr(theirs, group)[k], equal_nan=True)
        for group in ("curves", "test", "layers")
        for k in getattr(ours, group)
    )


def test_every_task_ends_as_the_work_does_and_a_bad_one_is_named(on: Executor) -> None:
    assert on.workers == NODES
    ended = {d.index: d for d in on.run(works.double, 5, range(20))}
    assert sorted(ended) == list(range(20))
    for task in {*range(20)} - {13, 14}:
        assert ended[task] == Done(task, 2 * task + 5, None)
    assert ended[13].result is None
    assert str(ended[13].error).startswith("ValueError: 13 is unlucky (double, line ")
    assert str(ended[14].error).startswith("14 is no better: got 14, on node ")


def test_the_shared_input_arrives_whole_and_read_only(on: Executor) -> None:
    shared = np.arange(1 << 20, dtype=np.uint8)
    results = {d.index: d.result for d in on.run(works.add_up, shared, range(6))}
    assert results == {i: (int(shared.sum()) + i, False) for i in range(6)}


def test_tasks_are_drawn_as_they_are_needed(on: Executor) -> None:
    drawn = []

    def draw() -> Iterator[int]:
        for task in range(1000):
            drawn.append(task)
            yield task

    ended = on.run(works.double, 0, draw())
    for taken in range(1, 30):
        next(ended)
        assert len(drawn) < taken + 4 * NODES
    ended.close()
    assert len(drawn) < 30 + 4 * NODES


def test_a_worker_killed_in_mid_run_costs_nothing(on: Executor, tmp_path: Path) -> None:
    ended = on.run(works.hold, str(tmp_path), range(6))
    done = [next(ended)]
    first = done[0].result
    until(lambda: any(pid != first for pid, _ in begun(tmp_path)))
    victim = next(pid for pid, _ in begun(tmp_path) if pid != first)
    os.kill(victim, signal.SIGKILL)
    (tmp_path / "go").touch()
    done += ended
    assert sorted(d.index for d in done) == list(range(6))
    assert [d.error for d in done] == [None] * 6
    assert victim not in [d.result for d in done]
    assert len(begun(tmp_path)) == 7


def test_a_task_that_kills_every_worker_is_named(
    on: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmask.execution.on_ray._ATTEMPTS", 2)
    ended = {d.index: d for d in on.run(works.kill, None, range(3))}
    assert [ended[0].result, ended[2].result] == [0, 2]
    assert ended[1].error == "its worker was lost: WorkerCrashedError"


def test_a_node_that_leaves_in_mid_run_costs_nothing(
    machines: Machines, on: Executor, tmp_path: Path
) -> None:
    nodes = {n.node_id: n for n in machines.cluster.worker_nodes}
    ended = on.run(works.hold, str(tmp_path), range(9))
    done = [next(ended)]
    first = done[0].result
    until(lambda: any(n in nodes for pid, n in begun(tmp_path) if pid != first))
    left = next(n for pid, n in begun(tmp_path) if n in nodes and pid != first)
    machines.cluster.remove_node(nodes[left], allow_graceful=False)
    (tmp_path / "go").touch()
    done += ended
    assert sorted(d.index for d in done) == list(range(9))
    assert [d.error for d in done] == [None] * 9
    assert len(begun(tmp_path)) > 9


def test_a_full_disk_is_avoided_or_named(machines: Machines, on: Executor) -> None:
    full = next(iter(machines.cluster.worker_nodes)).node_id
    ended = {d.index: d for d in on.run(works.write, full, range(8))}
    for index in {*range(8)} - {1}:
        assert ended[index].error is None
        assert ended[index].result not in (None, full)
    assert "OSError: [Errno 28] No space left on device: 'shard.npz'" in str(ended[1].error)
    assert "on node" in str(ended[1].error)


def test_closing_cancels_what_runs(on: Executor, tmp_path: Path) -> None:
    ended = on.run(works.take, str(tmp_path), [0.0, *[900.0] * 5])
    first = next(ended).result
    until(lambda: any(pid != first for pid, _ in begun(tmp_path)))
    running = [pid for pid, _ in begun(tmp_path) if pid != first]
    ended.close()
    until(lambda: not any(psutil.pid_exists(pid) for pid in running))
    quick = on.run(works.double, 0, [1])
    assert next(quick).result == 2


def test_a_map_goes_on_after_its_driver_was_killed_to_the_same_bits(
    apart: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in driver.SETTINGS:
        monkeypatch.setattr(module, name, value)
    kept, alone = tmp_path / "cluster" / "h.npz", tmp_path / "alone" / "h.npz"
    killed = subprocess.Popen(
        [sys.executable, str(HERE / "driver.py"), apart.address, str(kept)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert killed.stdout is not None
    assert killed.stdout.readline() == "three nets are kept\n"
    killed.kill()
    killed.wait()
    done = np.count_nonzero(SweepHistory.load(kept).status)
    assert 3 <= done < len(driver.PLAN.specs())
    counts: list[int] = []
    resumed = run_map(
        driver.PLAN,
        load_mnist(),
        checkpoint=kept,
        resume=True,
        on=apart.on,
        progress=lambda p: counts.append(p.nets_done),
    )
    assert counts[0] == done
    assert counts[-1] == len(driver.PLAN.specs())
    here = run_map(driver.PLAN, load_mnist(), checkpoint=alone)
    assert np.array_equal(resumed.accuracy, here.accuracy, equal_nan=True)
    assert same(kept, alone)


def test_a_cluster_can_be_reached_from_outside(
    apart: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in driver.SETTINGS:
        monkeypatch.setattr(module, name, value)
    small = ["--columns", "3", "--rows", "2", "--deepest", "6", "--steps", "20", "--width", "16"]
    address = f"ray://127.0.0.1:{apart.client_port}"
    for on in (address, "local"):
        assert main(["flow", "map", *small, "--on", on, "--out", str(tmp_path / on[:3])]) == 0
    assert same(tmp_path / "ray" / "history.npz", tmp_path / "loc" / "history.npz")
    assert not ray.is_initialized()


def test_the_wrong_port_of_a_cluster_is_named(apart: Machines) -> None:
    for address in (f"ray://{apart.address}", f"127.0.0.1:{apart.client_port}"):
        with pytest.raises(UserError, match="is another port of a Ray cluster"):
            executor(address)


def test_another_unmask_on_the_nodes_is_refused(
    apart: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = SimpleNamespace(version=lambda name: "99.0")
    monkeypatch.setattr("unmask.execution.ray_connection.metadata", newer)
    with pytest.raises(UserError, match=r"another Unmask than the 99\.0 of this machine: got"):
        executor(apart.address)
    assert not ray.is_initialized()


def test_another_python_on_the_nodes_is_refused(
    apart: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = (ray.__version__, "3.9.1")
    monkeypatch.setattr("ray._private.utils.compute_version_info", lambda: older)
    with pytest.raises(UserError, match=r"runs another version of Python or Ray: got.*3\.9\.1"):
        executor(apart.address)
    assert not ray.is_initialized()


def test_ray_is_found_where_it_runs_and_connected_to_once(
    apart: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", apart.address)
    with executor("ray") as found:
        assert found.workers == NODES
        with executor("ray") as again:
            assert next(again.run(works.double, 0, [4])).result == 8
        assert next(found.run(works.double, 0, [5])).result == 10
        with pytest.raises(UserError, match="works on a Ray cluster already"):
            executor(apart.address)
    assert not ray.is_initialized()
