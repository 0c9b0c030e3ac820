"""What the mask detector is worth on pictures it has not seen: five folds, by picture.

Trains one detector a fold and one on all pictures, JOBS at a time with a core each or on a cluster,
and goes on where it was stopped: epochs are kept, and every fold's detections once it is done. Then
the figures of all folds, in floating point and in the 8 bits that ship, and a calibration from the
latter's detections out of fold, with which `unmask mask export` writes the detector of all
pictures. What each training
says is in OUT/fold-K/log. A table comes first, then one line of JSON.

    python -m benchmarks.mask.folds FACES --out runs/mask-folds [--epochs N] [--jobs 2]
    python -m benchmarks.mask.folds FACES --out runs/mask-folds --on ray://HOST:PORT

On a cluster every node must see FACES and OUT.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from unmask.data.detection.dataset import AnnotatedImages, load_faces
from unmask.execution.address import executor_at
from unmask.mask.evaluate.confidence import LEAST_PRECISION, LEAST_SIDE, calibrated, cross_fitted
from unmask.mask.evaluate.folds import folds
from unmask.mask.evaluate.matching import FaceMatches
from unmask.mask.evaluate.metrics import measured
from unmask.mask.runtime.detections import Detections
from unmask.mask.training.cross_validation import PRECISIONS, CrossValidation, train_fold
from unmask.mask.training.trainer import DetectorSettings
from unmask.runtime import environment_stamp, write_atomically

COUNT = 5
SCALE = 1.6
ALL = COUNT
AIMS = {"map_50": 0.85, "with_mask": 0.94, "without_mask": 0.87, "mask_weared_incorrect": 0.70}


def train_here(validation: CrossValidation, waiting: list[int], asked: argparse.Namespace) -> None:
    """Train folds in JOBS processes at a time, a core each: what each says goes into its log."""
    free = sorted(os.sched_getaffinity(0))[: asked.jobs]
    running: dict[subprocess.Popen[bytes], int] = {}
    try:
        while waiting or running:
            while waiting and free:
                fold, core = waiting.pop(0), free.pop(0)
                folder = validation.fold(fold)
                folder.mkdir(parents=True, exist_ok=True)
                with (folder / "log").open("ab") as log:
                    command = [
                        sys.executable,
                        "-m",
                        "benchmarks.mask.folds",
                        str(asked.faces),
                        "--fold",
                        str(fold),
                    ]
                    command += ["--out", str(asked.out), "--epochs", str(asked.epochs)]
                    process = subprocess.Popen(
                        command,
                        stdout=log,
                        stderr=log,
                        env={**os.environ, "OMP_NUM_THREADS": "1"},
                        preexec_fn=lambda core=core: os.sched_setaffinity(0, {core}),
                    )
                running[process] = core
            time.sleep(1)
            for process in [p for p in running if p.poll() is not None]:
                free.append(running.pop(process))
                if process.returncode:
                    raise SystemExit(f"a training failed; see {asked.out}/fold-*/log")
    finally:
        for process in running:
            process.terminate()


def train_on(address: str, validation: CrossValidation, waiting: list[int]) -> None:
    """Train folds on a cluster, a core each."""
    failed = []
    with executor_at(address) as on:
        for done in on.run(train_fold, validation, waiting):
            fold = waiting[done.index]
            if done.error is None and not validation.done(fold):
                raise SystemExit(f"not every node sees {validation.folder}: give a shared --out")
            if done.error is not None:
                failed.append(f"fold {fold}: {done.error}")
                print(failed[-1], file=sys.stderr)
    if failed:
        raise SystemExit(f"{len(failed)} of {len(waiting)} trainings failed")


def figures(annotated: AnnotatedImages, out: Path, precision: str) -> dict[str, Any]:
    """Return the figures of the folds that are done: their means, and those of all together.

    Scores are calibrated as the other folds ask, or other pictures where there is no other fold.
    """
    validation = CrossValidation(annotated, out, DetectorSettings(), COUNT, SCALE)
    chosen = [k for k in range(COUNT) if validation.done(k)]
    left_out = [folds(annotated, COUNT)[k][1] for k in chosen]
    found = [
        Detections.from_dict(entry)
        for k in chosen
        for entry in json.loads((validation.fold(k) / f"{precision}.json").read_bytes())
    ]
    pooled = annotated[np.concatenate(left_out).tolist()]
    fold = np.repeat(chosen, [len(pictures) for pictures in left_out])
    part = fold if len(chosen) > 1 else np.arange(len(fold)) % COUNT
    said = cross_fitted(pooled, found, part, scale=SCALE, threshold=0.0)
    each = []
    for k in chosen:
        rows = np.flatnonzero(fold == k).tolist()
        own, answers = pooled[rows], [said[i] for i in rows]
        metrics = measured(own, answers, threshold=0.5)
        recall, _ = FaceMatches.of(own, answers).recall_at(LEAST_PRECISION, least_side=LEAST_SIDE)
        each.append([*metrics.ap.tolist(), metrics.mean_ap, recall])
    names = [*annotated.class_names, "map_50", "recall_20px_at_precision_90"]
    return {
        "folds": chosen,
        "mean": dict(zip(names, np.mean(each, 0).tolist(), strict=True)),
        "each": [dict(zip(names, row, strict=True)) for row in each],
        "pooled": measured(pooled, said, threshold=0.5).as_dict(),
        "calibration": calibrated(pooled, found, scale=SCALE).as_dict(),
    }


def main() -> None:
    """Train what is missing, then tell what it is all worth."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/mask-folds"))
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", type=int, nargs="*", help="folds 0 to 4; 5 is all pictures")
    parser.add_argument("--on", default="local", help="local, ray, or a cluster's address")
    parser.add_argument("--fold", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    annotated = load_faces(arguments.faces.absolute())
    settings = DetectorSettings()
    settings = replace(settings, fit=replace(settings.fit, epochs=arguments.epochs))
    validation = CrossValidation(annotated, arguments.out.absolute(), settings, COUNT, SCALE)
    if arguments.fold is not None:
        train_fold(validation, arguments.fold)
        return
    waiting = [k for k in range(COUNT + 1) if not validation.done(k)]
    if arguments.only is not None:
        waiting = [k for k in waiting if k in arguments.only]
    if arguments.on == "local":
        train_here(validation, waiting, arguments)
    else:
        train_on(arguments.on, validation, waiting)
    told = {p: figures(annotated, arguments.out, p) for p in PRECISIONS}
    with write_atomically(arguments.out / "calibration.json") as file:
        file.write(json.dumps(told["int8"]["calibration"]).encode())
    table = Table(title=f"means of folds {told['int8']['folds']}")
    for heading in ("figure", *PRECISIONS, "aim"):
        table.add_column(heading)
    for name in told["int8"]["mean"]:
        values = [f"{told[p]['mean'][name]:.4f}" for p in PRECISIONS]
        table.add_row(name, *values, f"{AIMS.get(name, 0.94):.2f}")
    Console().print(table)
    print(json.dumps({**told, "stamp": environment_stamp(data=annotated.sha256)}))


if __name__ == "__main__":
    main()
