"""Beyond one machine: efficiency, overhead and bytes of the executor, and what they add up to.

A map of 600 nets on Ray clusters of one and of two workers on this machine; what a task costs that
does nothing; how many bytes travel. With --simulate instead: a million tasks through the code that
the driver runs, with an executor that only pretends to work, and a million results merged from
shards. Tables come first, then one line of JSON.

    python benchmarks/scale.py [--nets 600] [--tasks 1000] [--repeats 3]
    python benchmarks/scale.py --simulate [--tasks 1000000]
    python benchmarks/scale.py --costs
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from rich.console import Console
from rich.table import Table
from scale_model import AUDIT, MAP, Job, costs

from unmask.data.mnist import load_mnist
from unmask.execution.executor import Done, Executor, executor
from unmask.execution.local import LocalExecutor
from unmask.execution.shards import missing_shards, read_shards, write_shards
from unmask.flow.map import MapPlan, run_map
from unmask.runtime import environment_stamp

TARGET = 0.9
ROWS = 25


class Counted:
    """An executor that notes how many bytes its tasks and results have when they travel."""

    def __init__(self, inner: Executor) -> None:
        self.inner = inner
        self.shared = self.out = self.back = self.tasks = 0

    @property
    def workers(self) -> int:
        return self.inner.workers

    def run(
        self, work: Callable[[Any, Any], Any], shared: Any, tasks: Iterable[Any]
    ) -> Iterator[Done[Any]]:
        self.shared += size(shared)

        def counted() -> Iterator[Any]:
            for task in tasks:
                self.tasks += 1
                self.out += size(task)
                yield task

        for done in self.inner.run(work, shared, counted()):
            self.back += size(done.result)
            yield done

    def close(self) -> None:
        self.inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Pretending:
    """An executor that does no work: tasks end at once, in a random order, now and then badly."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(
        self, work: Callable[[Any, Any], Any], shared: Any, tasks: Iterable[Any]
    ) -> Iterator[Done[Any]]:
        order = random.Random(0)
        flying: list[int] = []
        for index, _ in enumerate(tasks):
            flying.append(index)
            if len(flying) == 2 * self.workers:
                yield self._end(flying.pop(order.randrange(len(flying))))
        while flying:
            yield self._end(flying.pop())

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def _end(index: int) -> Done[Any]:
        lost = index % 1000 == 999
        return Done(index, None if lost else 1, "pretends to be lost" if lost else None)


def size(value: Any) -> int:
    """Return the bytes that Ray moves for a value."""
    from ray import cloudpickle

    return len(cloudpickle.dumps(value))


def nothing(shared: None, task: int) -> int:
    return task


def accuracies(shared: int, first: int) -> dict[str, np.ndarray]:
    """Return made-up figures of `shared` nets, as a block of a map has them."""
    rows = np.arange(first, first + shared)
    return {"net": rows, "accuracy": (rows % 1000).astype(np.float32) / 1000}


def on_cluster(workers: int, plan: MapPlan, tasks: int, repeats: int) -> dict[str, Any]:
    """Return the seconds of a map and of tasks that do nothing, on a cluster of so many workers."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": workers, "include_dashboard": False}
    )
    pictures = load_mnist()
    try:
        with executor(cluster.address) as inner:
            # Not timed: every worker starts and loads what it needs.
            counted = Counted(inner)
            run_map(plan, pictures, on=counted)
            seconds, empty = [], []
            for _ in range(repeats):
                began = time.perf_counter()
                run_map(plan, pictures, on=inner)
                seconds.append(time.perf_counter() - began)
                began = time.perf_counter()
                for done in inner.run(nothing, None, range(tasks)):
                    assert done.result == done.index
                empty.append((time.perf_counter() - began) / tasks)
    finally:
        cluster.shutdown()
    return {
        "workers": workers,
        "seconds": seconds,
        "seconds_a_task_that_does_nothing": empty,
        "tasks": counted.tasks,
        "shared_bytes": counted.shared,
        "bytes_out_a_task": counted.out / counted.tasks,
        "bytes_back_a_task": counted.back / counted.tasks,
    }


def measured(nets: int, tasks: int, repeats: int) -> dict[str, Any]:
    """Return the map on one and on two workers, and the efficiency from one to two."""
    plan = MapPlan(rows=ROWS, columns=nets // ROWS)
    one, two = (on_cluster(workers, plan, tasks, repeats) for workers in (1, 2))
    alone, both = (statistics.median(found["seconds"]) for found in (one, two))
    return {
        "nets": len(plan.specs()),
        "runs": [one, two],
        "efficiency": alone / (2 * both),
        "target": TARGET,
        "seconds_a_net": alone / len(plan.specs()),
        "overhead": statistics.median(one["seconds_a_task_that_does_nothing"]),
    }


def resident() -> int:
    """Return the most bytes that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def pretend(count: int) -> None:
    """Send so many task descriptions through the driver's code, and count how they end."""
    failed = ended = 0
    with tempfile.TemporaryDirectory() as folder:
        made = write_shards(Pretending(1000), accuracies, 1, range(count), Path(folder))
        for done in made:
            ended += 1
            failed += done.result is None
    assert (ended, failed) == (count, count // 1000)


def simulated(tasks: int) -> dict[str, Any]:
    """Return the time and the memory gained by a hundredth of so many tasks, then by all of them.

    Then as many results, a thousand a shard, are written and merged one shard at a time.
    """
    found: dict[str, Any] = {"tasks": tasks, "memory": {}}
    for count in (tasks // 100, tasks):
        before, began = resident(), time.perf_counter()
        pretend(count)
        found["seconds"] = time.perf_counter() - began
        found["memory"][count] = resident() - before
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        starts = range(0, tasks, 1000)
        for done in write_shards(LocalExecutor(), accuracies, 1000, starts, Path(folder)):
            assert done.result is not None
        assert not any(missing_shards(Path(folder), len(starts)))
        found["seconds_writing"] = time.perf_counter() - began
        before, began = resident(), time.perf_counter()
        nets, total = 0, 0.0
        for _, arrays in read_shards(Path(folder)):
            nets += len(arrays["net"])
            total += float(arrays["accuracy"].sum())
        found["seconds_merging"] = time.perf_counter() - began
        found["memory_merging"] = resident() - before
        assert nets == tasks
        found["mean"] = total / nets
    found["resident"] = resident()
    return found


def print_costs(
    console: Console, jobs: Iterable[Job], overhead: float | None
) -> list[dict[str, Any]]:
    """Print what jobs need by the model, and return it."""
    rows = [costs(job, overhead) for job in jobs]
    table = Table("", *(str(row["job"]) for row in rows), title="what it needs, by the model")
    for name in rows[0]:
        if name != "job":
            table.add_row(name, *(f"{float(row[name]):,.3g}" for row in rows))
    console.print(table)
    return rows


def main() -> None:
    """Measure, simulate, or add up."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", type=int, default=600, help=f"of the map, {ROWS} a column")
    parser.add_argument("--tasks", type=int, help="1,000 that do nothing, or 1,000,000 simulated")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--costs", action="store_true", help="print the cost model alone")
    asked = parser.parse_args()
    console = Console(width=110)
    result: dict[str, Any]
    if asked.costs:
        result = {"costs": print_costs(console, (MAP, AUDIT), None)}
    elif asked.simulate:
        result = simulated(asked.tasks or 1_000_000)
        few, many = result["memory"]
        table = Table("", "", title=f"{many:,} tasks that only pretend to work")
        for name, value in (
            ("seconds", f"{result['seconds']:.1f}"),
            (f"memory gained by {few:,} tasks, kB", f"{result['memory'][few] / 1000:.0f}"),
            (f"and then by {many:,} tasks, kB", f"{result['memory'][many] / 1000:.0f}"),
            ("seconds to write as many results in shards", f"{result['seconds_writing']:.1f}"),
            ("seconds to merge them", f"{result['seconds_merging']:.1f}"),
            ("memory gained by merging, kB", f"{result['memory_merging'] / 1000:.0f}"),
            ("resident at most, MB", f"{result['resident'] / 1e6:.0f}"),
        ):
            table.add_row(name, value)
        console.print(table)
    else:
        result = measured(asked.nets, asked.tasks or 1000, asked.repeats)
        table = Table(
            "workers", "seconds", "tasks", "shared, kB", "out a task, kB", "back a task, kB",
            "ms a task that does nothing", title=f"a map of {result['nets']} nets",
        )  # fmt: skip
        for run in result["runs"]:
            table.add_row(
                str(run["workers"]),
                " ".join(f"{s:.1f}" for s in run["seconds"]),
                str(run["tasks"]),
                f"{run['shared_bytes'] / 1000:.0f}",
                f"{run['bytes_out_a_task'] / 1000:.1f}",
                f"{run['bytes_back_a_task'] / 1000:.1f}",
                " ".join(f"{1000 * s:.2f}" for s in run["seconds_a_task_that_does_nothing"]),
            )
        console.print(table)
        console.print(f"efficiency from 1 to 2 workers {result['efficiency']:.2f}, aim {TARGET}")
        one = result["runs"][0]
        fitted = replace(
            MAP,
            core_seconds_an_item=result["seconds_a_net"],
            shared_bytes=one["shared_bytes"],
            bytes_out_a_task=one["bytes_out_a_task"],
            bytes_back_a_task=one["bytes_back_a_task"],
            items_a_task=result["nets"] / one["tasks"],
        )
        jobs = (fitted, AUDIT)
        result["costs"] = print_costs(console, jobs, result["overhead"])
    print(json.dumps({**result, "stamp": environment_stamp()}))


if __name__ == "__main__":
    main()
