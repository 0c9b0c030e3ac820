"""What the mask detector is worth on pictures it has not seen: five folds, by picture.

Trains one detector a fold and one on all pictures, JOBS at a time with a core each, and goes on
where it was stopped: every epoch is kept, and every fold's detections once it is done. Then the
figures of all folds, without and with averaged mirror images, and a calibration from the detections
out of fold, with which `unmask mask export` writes the detector of all pictures. What each training
says is in OUT/fold-K/log. A table comes first, then one line of JSON.

    python benchmarks/mask_folds.py FACES --out runs/mask-folds [--epochs N] [--jobs 2]
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

from unmask.data.annotated import AnnotatedPictures, load_faces
from unmask.mask.calibration import LEAST_PRECISION, LEAST_SIDE, calibrated
from unmask.mask.detections import Detections
from unmask.mask.faces import folds
from unmask.mask.matching import FaceMatches
from unmask.mask.metrics import measured
from unmask.runtime import environment_stamp, write_atomically

COUNT = 5
SCALE = 1.6
ALL = COUNT
VIEWS = ("single", "mirrored")
AIMS = {"map_50": 0.85, "with_mask": 0.94, "without_mask": 0.87, "mask_weared_incorrect": 0.70}


def train(annotated: AnnotatedPictures, fold: int, out: Path, epochs: int) -> None:
    """Train one fold, or ALL, and write what it finds in the pictures left out."""
    import torch

    from unmask.mask.looking import found_in
    from unmask.mask.training import DetectorProgress, DetectorSettings, train_detector

    torch.set_num_threads(1)
    every = np.arange(len(annotated))
    chosen, left_out = (every, every[:0]) if fold == ALL else folds(annotated, COUNT)[fold]
    settings = DetectorSettings()
    settings = replace(settings, fit=replace(settings.fit, epochs=epochs, seed=fold))

    def tell(p: DetectorProgress) -> None:
        if p.step == p.steps:
            print(
                f"epoch {p.epoch} of {p.epochs}: face {p.face:.3f} sides {p.sides:.3f} "
                f"classes {p.classes:.3f}, {p.seconds:.0f} s, {p.seconds_left:.0f} s left",
                flush=True,
            )

    network = train_detector(annotated[chosen], settings, directory=out, resume=True, progress=tell)
    for view in VIEWS:
        found = found_in(network, annotated[left_out], scale=SCALE, flip=view == "mirrored")
        with write_atomically(out / f"{view}.json") as file:
            file.write(json.dumps([d.as_dict() for d in found]).encode())


def train_all(arguments: argparse.Namespace) -> None:
    """Run what is not done yet, JOBS processes at a time, a core each."""
    waiting = [k for k in range(COUNT + 1) if not done(arguments.out, k)]
    if arguments.only is not None:
        waiting = [k for k in waiting if k in arguments.only]
    cores = sorted(os.sched_getaffinity(0))
    free = cores[: arguments.jobs]
    running: dict[subprocess.Popen[bytes], int] = {}
    try:
        while waiting or running:
            while waiting and free:
                fold, core = waiting.pop(0), free.pop(0)
                folder = arguments.out / f"fold-{fold}"
                folder.mkdir(parents=True, exist_ok=True)
                with (folder / "log").open("ab") as log:
                    command = [sys.executable, __file__, str(arguments.faces), "--fold", str(fold)]
                    command += ["--out", str(arguments.out), "--epochs", str(arguments.epochs)]
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
                    raise SystemExit(f"a training failed; see {arguments.out}/fold-*/log")
    finally:
        for process in running:
            process.terminate()


def done(out: Path, fold: int) -> bool:
    """Return whether a fold's training and detections are there."""
    return all((out / f"fold-{fold}" / f"{view}.json").exists() for view in VIEWS)


def figures(annotated: AnnotatedPictures, out: Path, view: str) -> dict[str, Any]:
    """Return the figures of the folds that are done: their means, and those of all together."""
    parts = [(k, folds(annotated, COUNT)[k][1]) for k in range(COUNT) if done(out, k)]
    each, index, found = [], [], []
    for fold, left_out in parts:
        entries = json.loads((out / f"fold-{fold}" / f"{view}.json").read_bytes())
        own = [Detections.from_dict(entry) for entry in entries]
        metrics = measured(annotated[left_out], own, threshold=0.5)
        recall, _ = FaceMatches.of(annotated[left_out], own).recall_at(
            LEAST_PRECISION, least_side=LEAST_SIDE
        )
        each.append([*metrics.ap.tolist(), metrics.mean_ap, recall])
        index += left_out.tolist()
        found += own
    pooled = annotated[index]
    calibration = calibrated(pooled, found, scale=SCALE)
    names = [*annotated.class_names, "map_50", "recall_20px_at_precision_90"]
    return {
        "folds": [k for k, _ in parts],
        "mean": dict(zip(names, np.mean(each, 0).tolist(), strict=True)),
        "each": [dict(zip(names, row, strict=True)) for row in each],
        "pooled": measured(pooled, found, threshold=0.5).as_dict(),
        "calibration": calibration.as_dict(),
    }


def main() -> None:
    """Train what is missing, then tell what it is all worth."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/mask-folds"))
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", type=int, nargs="*", help="folds 0 to 4; 5 is all pictures")
    parser.add_argument("--fold", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    annotated = load_faces(arguments.faces)
    if arguments.fold is not None:
        train(annotated, arguments.fold, arguments.out / f"fold-{arguments.fold}", arguments.epochs)
        return
    train_all(arguments)
    told = {view: figures(annotated, arguments.out, view) for view in VIEWS}
    with write_atomically(arguments.out / "calibration.json") as file:
        file.write(json.dumps(told["single"]["calibration"]).encode())
    table = Table(title=f"means of folds {told['single']['folds']}")
    for heading in ("figure", *VIEWS, "aim"):
        table.add_column(heading)
    for name in told["single"]["mean"]:
        values = [f"{told[view]['mean'][name]:.4f}" for view in VIEWS]
        table.add_row(name, *values, f"{AIMS.get(name, 0.94):.2f}")
    Console().print(table)
    print(json.dumps({**told, "stamp": environment_stamp(data=annotated.sha256)}))


if __name__ == "__main__":
    main()
