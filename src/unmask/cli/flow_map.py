"""The verb flow map: which initialisations let which depths train."""

from __future__ import annotations

import json as json_module
import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unmask.cli.console import Console
from unmask.cli.options import (
    BatchSize,
    LearningRate,
    On,
    Seed,
    Threads,
    Width,
    elsewhere,
    real,
    whole,
)
from unmask.cli.progress import sweep_progress
from unmask.flow.map_plan import MapPlan
from unmask.models.activations import ACTIVATIONS

SHARDS = "shards"


def draw_map(
    activation: Annotated[str, Parameter(help=f"of {', '.join(ACTIVATIONS)}")] = MapPlan.activation,
    /,
    *,
    sigma_b2: Annotated[float, real(0, 1e6, "variance of the biases")] = MapPlan.sigma_b2,
    sigma_w2_low: Annotated[
        float | None, real(0, 1e6, "least variance of the weights times fan-in", above=True)
    ] = None,
    sigma_w2_high: Annotated[float | None, real(0, 1e6, "the largest", above=True)] = None,
    deepest: Annotated[int, whole(3, 1000, "hidden layers of the top row")] = MapPlan.deepest,
    columns: Annotated[int, whole(2, 1000, "values of sigma_w2")] = MapPlan.columns,
    rows: Annotated[int, whole(2, 1000, "depths")] = MapPlan.rows,
    width: Width = MapPlan.width,
    learning_rate: LearningRate = MapPlan.learning_rate,
    steps: Annotated[int, whole(1, 1875, "mini-batches each net trains for")] = MapPlan.steps,
    batch_size: BatchSize = MapPlan.batch_size,
    seed: Seed = MapPlan.seed,
    threads: Threads = None,
    device: Annotated[
        str, Parameter(help="cpu, or cuda to train nets of one shape together on the GPU")
    ] = "cpu",
    on: On = "local",
    out: Annotated[Path, Parameter(help="the folder for report, figure and numbers")] = Path(
        "runs/map"
    ),
    resume: Annotated[bool, Parameter(help="continue the map in --out")] = False,
    json: Annotated[bool, Parameter(help="print the map as JSON")] = False,
) -> int:
    """Train a net at every sigma_w2 and depth on MNIST and draw the theory over the outcome."""
    plan = MapPlan(
        activation=activation,
        sigma_b2=sigma_b2,
        sigma_w2_low=sigma_w2_low,
        sigma_w2_high=sigma_w2_high,
        deepest=deepest,
        columns=columns,
        rows=rows,
        width=width,
        learning_rate=learning_rate,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
    )
    # torch and matplotlib take a while to load, and --help needs none of them.
    import numpy as np

    from unmask.data.mnist import load_mnist
    from unmask.flow.map import run_map
    from unmask.report.files import require_writable
    from unmask.report.map import map_as_dict, write_map
    from unmask.sweep.shards import ShardsInterrupted
    from unmask.train.device import pick_device

    require_writable(out)
    try:
        with elsewhere(on) as cluster, sweep_progress() as progress:
            found = run_map(
                plan,
                load_mnist(),
                folder=out / SHARDS,
                resume=resume,
                threads=threads,
                device=str(pick_device(device)),
                on=cluster,
                progress=progress,
            )
    except ShardsInterrupted as interrupt:
        raise KeyboardInterrupt(
            f"stopped; {interrupt.done} of {interrupt.total} nets are kept in {out}, go on "
            f"with the same command and --out {shlex.quote(str(out))} --resume"
        ) from None
    files = write_map(found, out)
    if json:
        print(json_module.dumps({**map_as_dict(found), "files": [str(f) for f in files]}))
        return 0
    critical = "none" if found.critical is None else f"{found.critical:.4g}"
    for line in (
        f"{found.accuracy.size} nets: {int(found.learned.sum())} learned, "
        f"{int(np.isnan(found.accuracy).sum())} diverged.",
        f"Theory (depth up to 6 xi_c trains) and training agree on {found.agreement:.1%} of them; "
        f"critical sigma_w2: {critical}.",
        f"Report: {files[0]}",
    ):
        Console().print(line, highlight=False, markup=False, soft_wrap=True)
    return 0
