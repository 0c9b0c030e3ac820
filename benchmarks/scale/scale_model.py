"""What a job needs on a cluster: core hours, network, storage, and where the driver limits it."""

from __future__ import annotations

from dataclasses import dataclass

CORES_A_NODE = 16
NODES = 8


@dataclass(frozen=True)
class Job:
    """So many items of work, cut into tasks.

    core_seconds_an_item is of one core. shared_bytes travel once a node; bytes_out and bytes_back
    with every task. stored_bytes_an_item lie on disk at the end, kept_bytes_an_item are what the
    driver has in memory by then.
    """

    name: str
    items: float
    core_seconds_an_item: float
    items_a_task: float
    shared_bytes: float
    bytes_out_a_task: float
    bytes_back_a_task: float
    stored_bytes_an_item: float
    kept_bytes_an_item: float


def costs(
    job: Job, overhead: float | None, nodes: int = NODES, cores_a_node: int = CORES_A_NODE
) -> dict[str, float | str]:
    """Return what a job needs, by name with its unit.

    overhead: the driver's seconds a task; None leaves out what follows from it. Two tasks wait at
    every worker, so it shows only where there are more workers than a driver can feed: the length
    of a task over the overhead.
    """
    tasks = job.items / job.items_a_task
    task_seconds = job.core_seconds_an_item * job.items_a_task
    core_hours = job.items * job.core_seconds_an_item / 3600
    travelling = tasks * (job.bytes_out_a_task + job.bytes_back_a_task)
    needed: dict[str, float | str] = {
        "job": job.name,
        "tasks": tasks,
        "seconds a task": task_seconds,
        "core hours": core_hours,
        f"hours on {nodes} nodes of {cores_a_node} cores": core_hours / (nodes * cores_a_node),
        "network, shared input, GB": nodes * job.shared_bytes / 1e9,
        "network, tasks and results, GB": travelling / 1e9,
        "object store a node, GB": job.shared_bytes / 1e9,
        "storage, GB": job.items * job.stored_bytes_an_item / 1e9,
        "driver memory, GB": job.items * job.kept_bytes_an_item / 1e9,
    }
    if overhead is not None:
        needed |= {
            "driver busy, hours": tasks * overhead / 3600,
            "workers one driver can feed": task_seconds / overhead,
        }
    return needed


# The largest that `unmask flow map` takes: 1,000 sigma_w2 by 999 depths, 300 steps of 32 pictures.
# Its nets have 8.72 times the multiply-adds of those of the default map, of which 900 take 35 s on
# two cores (docs/figures.md). Blocks of 10^12 multiply-adds. The pictures to train on, and 2,000 to
# test on; what a block has on the way, and its shard on disk. The driver keeps of a net its score,
# its status, its cost and its place in the order, some of them twice while it sorts.
MAP = Job(
    name="map of 10^6 nets",
    items=999_000,
    core_seconds_an_item=8.72 * 35 * 2 / 900,
    items_a_task=17,
    shared_bytes=(300 * 32 + 2000) * (784 + 8),
    bytes_out_a_task=268,
    bytes_back_a_task=637,
    stored_bytes_an_item=1441 / 17,
    kept_bytes_an_item=45,
)

# 10,000 test pictures of MNIST, the untargeted ensemble on the plain classifier: 9.5 minutes on one
# core (docs/figures.md). Shards of 250. The pictures and 0.4 MB of model; what a task and a shard
# of MNIST have on the way and on disk. The driver keeps the figures of every picture twice while
# it joins them, and of a shard ten pictures.
AUDIT = Job(
    name="audit of 10^6 pictures",
    items=1e6,
    core_seconds_an_item=9.5 * 60 / 10_000,
    items_a_task=250,
    shared_bytes=1e6 * (784 + 8) + 0.42e6,
    bytes_out_a_task=2131,
    bytes_back_a_task=29_099,
    stored_bytes_an_item=32_024 / 250,
    kept_bytes_an_item=2 * 81 + 10 * 784 / 250,
)
