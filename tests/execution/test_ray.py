"""The executor on a real Ray cluster: its results, and what is lost in mid-run."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
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
from machines import NODES, PATIENCE, Machines, until

from unmask.cli.main import main
from unmask.errors import UserError
from unmask.execution.address import executor_at
from unmask.execution.executor import Done, Executor
from unmask.execution.shards import read_shards, write_shards

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


def begun(folder: Path) -> list[tuple[int, str]]:
    """Return process and node of every task that works.take or works.hold began."""
    names = [f.name.split() for f in folder.iterdir() if f.name != "go"]
    return [(int(name[0]), name[1]) for name in names]


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
    monkeypatch.setattr("unmask.execution.ray_executor._ATTEMPTS", 2)
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


def test_a_shard_travels_from_a_node_whose_disk_is_full(
    machines: Machines, on: Executor, tmp_path: Path
) -> None:
    full = next(iter(machines.cluster.worker_nodes)).node_id
    workers: list[tuple[str, int]] = []
    ends = time.monotonic() + PATIENCE

    def tasks() -> Iterator[tuple[int, int]]:
        # A node whose worker is still starting gets none of the first tasks.
        for number in itertools.count():
            if full in {node for node, _ in workers} or time.monotonic() > ends:
                return
            yield number, number

    for done in write_shards(on, works.fill, full, tasks(), tmp_path / "shards"):
        assert done.error is None
        assert done.result is not None
        workers.append(done.result)
    for pid in {pid for node, pid in workers if node == full}:
        os.kill(pid, signal.SIGKILL)
    assert full in {node for node, _ in workers}
    found = {number: set(shard["task"]) for number, shard in read_shards(tmp_path / "shards")}
    assert found == {number: {number} for number in range(len(workers))}


@pytest.mark.parametrize("work", [works.take, works.ignore])
def test_closing_cancels_what_runs(on: Executor, tmp_path: Path, work: Callable[..., int]) -> None:
    ended = on.run(work, str(tmp_path), [0.0, *[900.0] * 5])
    first = next(ended).result
    until(lambda: any(pid != first for pid, _ in begun(tmp_path)))
    running = [pid for pid, _ in begun(tmp_path) if pid != first]
    ended.close()
    until(lambda: not any(psutil.pid_exists(pid) for pid in running))
    quick = on.run(works.double, 0, [1])
    assert next(quick).result == 2


def test_a_cluster_can_be_reached_from_outside(
    apart: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in driver.SETTINGS:
        monkeypatch.setattr(module, name, value)
    small = ["--columns", "3", "--rows", "2", "--deepest", "6", "--steps", "20", "--width", "16"]
    address = f"ray://127.0.0.1:{apart.client_port}"
    for on in (address, "local"):
        status = main(["flow", "map", *small, "--on", on, "--out", str(tmp_path / on[:3])])
        assert status == 0, apart.client_server_log()
    there, here = (tmp_path / on / "data" / "map.csv" for on in ("ray", "loc"))
    assert there.read_text() == here.read_text()
    assert not ray.is_initialized()


@pytest.mark.parametrize("deaths", [2, 5])
def test_a_client_server_that_dies_at_birth_is_asked_for_again(
    apart: Machines, monkeypatch: pytest.MonkeyPatch, deaths: int
) -> None:
    from ray.core.generated.ray_client_pb2 import InitResponse
    from ray.util.client.dataclient import DataClient

    answer, tried = DataClient.Init, []

    def dies(self: DataClient, *arguments: Any, **keywords: Any) -> InitResponse:
        tried.append(arguments)
        if len(tried) > deaths:
            return answer(self, *arguments, **keywords)
        told = "RuntimeError: Starting Ray client server failed. See it."
        if len(tried) == 1:
            told = "psutil.ZombieProcess: PID still exists but it's a zombie (pid=7)"
        return InitResponse(ok=False, msg=f"Traceback\n{told}")

    monkeypatch.setattr(DataClient, "Init", dies)
    monkeypatch.setattr("unmask.execution.ray_connection._SECONDS_BETWEEN_TRIES", [0.0] * 4)
    address = f"ray://127.0.0.1:{apart.client_port}"
    if deaths == 5:
        with pytest.raises(UserError, match=r"dies at birth.*GRPC"):
            executor_at(address)
    else:
        with contextlib.closing(executor_at(address)) as on:
            assert [d.result for d in on.run(works.double, 5, [1])] == [7]
    # A true death may come between.
    assert min(deaths + 1, 5) <= len(tried) <= 5
    assert not ray.is_initialized()


def test_the_wrong_port_of_a_cluster_is_named(apart: Machines) -> None:
    for address in (f"ray://{apart.address}", f"127.0.0.1:{apart.client_port}"):
        with pytest.raises(UserError, match="is another port of a Ray cluster"):
            executor_at(address)


def test_another_unmask_on_the_nodes_is_refused(
    apart: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = SimpleNamespace(version=lambda name: "99.0")
    monkeypatch.setattr("unmask.execution.ray_connection.metadata", newer)
    with pytest.raises(UserError, match=r"another Unmask than the 99\.0 of this machine: got"):
        executor_at(apart.address)
    assert not ray.is_initialized()


def test_another_python_on_the_nodes_is_refused(
    apart: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = (ray.__version__, "3.9.1")
    monkeypatch.setattr("ray._private.utils.compute_version_info", lambda: older)
    with pytest.raises(UserError, match=r"runs another version of Python or Ray: got.*3\.9\.1"):
        executor_at(apart.address)
    assert not ray.is_initialized()


def test_ray_is_found_where_it_runs_and_connected_to_once(
    apart: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", apart.address)
    with executor_at("ray") as found:
        assert found.workers == NODES
        with executor_at("ray") as again:
            assert next(again.run(works.double, 0, [4])).result == 8
        assert next(found.run(works.double, 0, [5])).result == 10
        with pytest.raises(UserError, match="works on a Ray cluster already"):
            executor_at(apart.address)
    assert not ray.is_initialized()
