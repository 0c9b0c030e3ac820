"""Beyond one machine: efficiency, overhead and bytes of the executor, and what they add up to.

A map of 600 nets on Ray clusters of one and of two workers on this machine; what a task costs that
does nothing; how many bytes travel. With --simulate instead: a million tasks, then a map of a
million nets, through the code that the driver runs, with an executor that only pretends to work.
Tables come first, then one line of JSON.

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
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scale_model import AUDIT, MAP, Job, costs

from unmask.data.images import Images
from unmask.data.mnist import load_mnist
from unmask.execution.address import executor_at
from unmask.execution.executor import Done, Executor, error_line
from unmask.execution.shards import Writing, Written, write_shards, written
from unmask.flow.map import run_map
from unmask.flow.map_plan import MapPlan
from unmask.runtime import environment_stamp
from unmask.sweep.driver import Figures
from unmask.sweep.pool import Training
from unmask.sweep.task import FlatImages
from unmask.sweep.trainer import training_cost

TARGET = 0.9
ROWS = 25
# Of those that flow map takes: 999 depths, 2 to 1000.
LARGEST = MapPlan(columns=1000, rows=1000, deepest=1000)


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
    """An executor that does no work: tasks end in a random order, as `instead` says they did."""

    def __init__(self, workers: int, instead: Callable[[Any, Any], Any]) -> None:
        self.workers, self.instead = workers, instead

    def run(
        self, work: Callable[[Any, Any], Any], shared: Any, tasks: Iterable[Any]
    ) -> Iterator[Done[Any]]:
        order = random.Random(0)
        flying: list[tuple[int, Any]] = []
        for numbered in enumerate(tasks):
            flying.append(numbered)
            if len(flying) == 2 * self.workers:
                yield self._end(shared, *flying.pop(order.randrange(len(flying))))
        while flying:
            yield self._end(shared, *flying.pop())

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self, shared: Any, index: int, task: Any) -> Done[Any]:
        try:
            return Done(index, self.instead(shared, task), None)
        except LostError as error:
            return Done(index, None, error_line(error))


class LostError(Exception):
    """A pretended task that ends badly."""


def size(value: Any) -> int:
    """Return the bytes that Ray moves for a value."""
    from ray import cloudpickle

    return len(cloudpickle.dumps(value))


def nothing(shared: None, task: int) -> int:
    return task


def ended(writing: Writing[Any, Any, None], task: tuple[int, None]) -> Written[None]:
    """Pretend that a worker has written a shard, and one in a thousand not."""
    if task[0] % 1000 == 999:
        raise LostError("pretends to be lost")
    return Written(None)


def block_written(
    writing: Writing[Training, NDArray[np.int64], Figures], task: tuple[int, NDArray[np.int64]]
) -> Written[Figures]:
    """Write the shard of a block that nobody has trained, as a worker would."""
    return written(replace(writing, work=made_up), task)


def made_up(
    training: Training, block: NDArray[np.int64]
) -> tuple[Figures, dict[str, NDArray[Any]]]:
    """Return made-up figures of a block of a map."""
    accuracy = (block % 1000).astype(np.float32) / 1000
    shard = {
        "net": block,
        "test_loss": 1 - accuracy,
        "test_accuracy": accuracy,
        "diverged_step": np.full(len(block), -1),
    }
    return Figures(block, accuracy, accuracy < 0, ()), shard


def drawn(plan: MapPlan, pictures: tuple[Images, Images], on: Executor) -> None:
    """Draw a map whose shards the workers write."""
    with tempfile.TemporaryDirectory() as folder:
        run_map(plan, pictures, folder=Path(folder) / "shards", on=on)


def on_cluster(workers: int, plan: MapPlan, tasks: int, repeats: int) -> dict[str, Any]:
    """Return the seconds of a map and of tasks that do nothing, on a cluster of so many workers.

    The workers write the map's shards, as they do for the command.
    """
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": workers, "include_dashboard": False}
    )
    pictures = load_mnist()
    try:
        with executor_at(cluster.address) as inner:
            # Not timed: every worker starts and loads what it needs.
            counted = Counted(inner)
            drawn(plan, pictures, counted)
            seconds, empty = [], []
            for _ in range(repeats):
                began = time.perf_counter()
                drawn(plan, pictures, inner)
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
        "seconds_a_net_of_the_largest": alone
        / len(plan.specs())
        * mean_work(LARGEST)
        / mean_work(plan),
        "overhead": statistics.median(one["seconds_a_task_that_does_nothing"]),
    }


def mean_work(plan: MapPlan) -> float:
    """Return the mean multiply-adds that a net of a map takes for a picture."""
    images, nets = FlatImages.of(load_mnist()[0][:1]), plan.specs()
    rows = range(0, len(nets), plan.columns)
    return statistics.mean(training_cost(nets[row], images) for row in rows)


def resident() -> int:
    """Return the most bytes that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def pretend(count: int) -> None:
    """Send so many task descriptions through the driver's code, and count how they end."""
    failed = number = 0
    with tempfile.TemporaryDirectory() as folder:
        tasks = ((number, None) for number in range(count))
        for done in write_shards(Pretending(1000, ended), nothing, None, tasks, Path(folder)):
            number += 1
            failed += done.error is not None
    assert (number, failed) == (count, count // 1000)


def pretended_map(
    plan: MapPlan, pictures: tuple[Images, Images], folder: Path, *, resume: bool
) -> None:
    """Draw a map whose nets nobody trains, and check every one of them."""
    on = Pretending(1000, block_written)
    found = run_map(plan, pictures, folder=folder, resume=resume, on=on)
    wanted = (np.arange(found.accuracy.size) % 1000).astype(np.float32) / 1000
    assert np.array_equal(found.accuracy.ravel().astype(np.float32), wanted)


def simulated(tasks: int, plan: MapPlan) -> dict[str, Any]:
    """Return the time and the memory gained by a hundredth of so many tasks, then by all of them.

    Then the time and the memory of a map that is only pretended, and of resuming it at its end.
    """
    found: dict[str, Any] = {"tasks": tasks, "memory": {}, "nets": len(plan.specs())}
    for count in (tasks // 100, tasks):
        before, began = resident(), time.perf_counter()
        pretend(count)
        found["seconds"] = time.perf_counter() - began
        found["memory"][count] = resident() - before
    pictures = load_mnist()
    # In memory where it can be: the workers wait for their disks, not the driver.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        shards = Path(folder) / "shards"
        for name, resume in (("map", False), ("resuming", True)):
            before, began = resident(), time.perf_counter()
            pretended_map(plan, pictures, shards, resume=resume)
            found[f"seconds_{name}"] = time.perf_counter() - began
            found[f"memory_{name}"] = resident() - before
        files = [file.stat().st_size for file in shards.glob("*/*.npz")]
    found |= {"shards": len(files), "shard_bytes": sum(files), "resident": resident()}
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
        result = simulated(asked.tasks or 1_000_000, LARGEST)
        few, many = result["memory"]
        table = Table("", "", title=f"{many:,} tasks that only pretend to work")
        for name, value in (
            ("seconds", f"{result['seconds']:.1f}"),
            (f"memory gained by {few:,} tasks, kB", f"{result['memory'][few] / 1000:.0f}"),
            (f"and then by {many:,} tasks, kB", f"{result['memory'][many] / 1000:.0f}"),
            (f"seconds of a map of {result['nets']:,} nets", f"{result['seconds_map']:.1f}"),
            ("memory gained by it, kB", f"{result['memory_map'] / 1000:.0f}"),
            ("its shards", f"{result['shards']:,}"),
            ("bytes of a shard", f"{result['shard_bytes'] / result['shards']:.0f}"),
            ("seconds to resume it at its end", f"{result['seconds_resuming']:.1f}"),
            ("memory gained by that, kB", f"{result['memory_resuming'] / 1000:.0f}"),
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
            core_seconds_an_item=result["seconds_a_net_of_the_largest"],
            shared_bytes=one["shared_bytes"],
            bytes_out_a_task=one["bytes_out_a_task"],
            bytes_back_a_task=one["bytes_back_a_task"],
        )
        jobs = (fitted, AUDIT)
        result["costs"] = print_costs(console, jobs, result["overhead"])
    print(json.dumps({**result, "stamp": environment_stamp()}))


if __name__ == "__main__":
    main()
