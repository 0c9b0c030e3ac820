"""A driver to be killed: maps on a cluster until three nets are kept, then waits.

python tests/execution/driver.py ADDRESS CHECKPOINT
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from unmask.data.mnist import load_mnist
from unmask.execution.executor import executor
from unmask.flow.map import MapPlan, run_map
from unmask.sweep import SweepProgress, blocks, meter

PLAN = MapPlan(columns=4, rows=3, deepest=12, steps=60, width=32)


# A net a task, each kept at once.
SETTINGS = (
    (blocks, "_LEAST", 0.0),
    (blocks, "_MOST", 1.0),
    (meter, "_SAVE_EVERY", 0.0),
    (meter, "_SAVE_SHARE", 1e9),
)


def wait(progress: SweepProgress) -> None:
    if progress.nets_done > 3:
        sys.stdout.write("three nets are kept\n")
        sys.stdout.flush()
        time.sleep(600)


def main() -> None:
    address, checkpoint = sys.argv[1:]
    for module, name, value in SETTINGS:
        setattr(module, name, value)
    with executor(address) as on:
        run_map(PLAN, load_mnist(), checkpoint=Path(checkpoint), on=on, progress=wait)


if __name__ == "__main__":
    main()
