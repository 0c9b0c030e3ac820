"""Commands on a real Ray cluster that are stopped in mid-run, and go on to the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import driver
import dying
import numpy as np
import pytest
from machines import HERE, PATIENCE, Machines, until

from made_up_annotations import write_voc
from unmask.cli.main import main
from unmask.data.detection.dataset import read_annotated
from unmask.execution.executor import Executor
from unmask.execution.shards import read_shards
from unmask.mask.training import cross_validation
from unmask.mask.training.canvases import CanvasSettings
from unmask.mask.training.cross_validation import CrossValidation, train_fold
from unmask.mask.training.network import DetectorShape
from unmask.mask.training.trainer import DetectorSettings
from unmask.sweep.history import SweepHistory

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow
# Every driver has new workers on every node, and each imports torch.
NODES = 2

# Nets of a twentieth of a second, and shards of images.
COMMANDS = {
    "map": "flow map --columns 8 --rows 5 --deepest 20 --steps 500",
    "study": "flow study --depths 20 --activations tanh relu --seeds 20 --epochs 16 "
    "--training-images 2000 --validation-images 200",
    "audit": "fool audit mnist mnist --attacks pgd --images 1000 --pairs 0 --steps 4",
}
PARTS = {"map": 40, "study": 40, "audit": 4}


def kept(out: Path) -> int:
    """Return how many parts of a command's work are on disk."""
    history = out / "history.npz"
    if history.exists():
        return int(np.count_nonzero(SweepHistory.load(history).status))
    # A net may be in two shards: one that its worker wrote just before it ended.
    nets = {net for _, shard in read_shards(out / "shards") for net in shard["net"].tolist()}
    return len(nets) + len([*out.glob("model-1/shards/[0-9]*.npz")])


def bits(out: Path) -> dict[str, Any]:
    """Return everything that a command has measured, by what it is."""
    if (out / "data" / "map.csv").exists():
        return {"map": (out / "data" / "map.csv").read_text()}
    if (out / "history.npz").exists():
        files = [out / "history.npz"]
    else:
        files = [*out.glob("model-1/shards/*.npz")]
    found: dict[str, Any] = {}
    for file in files:
        with np.load(file) as saved:
            arrays = {k: saved[k] for k in saved.files if k != "header"}
        found |= {f"{file.name} {k}": (v.dtype, v.shape, v.tobytes()) for k, v in arrays.items()}
    return found


@pytest.mark.parametrize(
    ("verb", "sent"),
    [
        ("map", signal.SIGINT),
        ("study", signal.SIGINT),
        ("audit", signal.SIGKILL),
    ],
)
def test_a_command_goes_on_to_the_same_bits_after_its_driver_was_stopped(
    apart: Machines,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    sent: signal.Signals,
) -> None:
    command, out, alone = COMMANDS[verb].split(), tmp_path / "cluster", tmp_path / "alone"
    there = [*command, "--on", apart.address, "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, str(HERE / "driver.py"), *there],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(lambda: kept(out) > 0 or process.poll() is not None)
    # To the whole group, as a terminal does.
    os.killpg(process.pid, sent)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert 0 < kept(out) < PARTS[verb]
    if sent is signal.SIGINT:
        assert process.returncode == 130, stderr
        (line,) = [line for line in stderr.splitlines() if line.startswith("unmask: stopped; ")]
        assert "--resume" in line
        # Workers write the shards: the driver may have heard of fewer than there are.
        assert 0 <= int(line.split()[2]) <= kept(out)
    # Nobody works for it any more.
    free = apart.on
    until(lambda: ray.available_resources().get("CPU") == free.workers)
    apart.leave()
    before = kept(out)
    for module, name, value in driver.SETTINGS:
        monkeypatch.setattr(module, name, value)
    assert main([*there, "--resume"]) == 0
    assert before < kept(out) == PARTS[verb]
    assert main([*command, "--out", str(alone)]) == 0
    assert bits(out) == bits(alone)


def test_a_fold_goes_on_to_the_same_bits_after_its_worker_was_killed(
    on: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    things = [("masked", (4.0, 6.0, 20.0, 30.0)), ("bare", (40.0, 8.0, 56.0, 24.0))]
    pictures = {f"image {i}": (64, 48, things) for i in range(4)}
    annotated, _ = read_annotated(write_voc(tmp_path / "faces", pictures))
    settings = DetectorSettings(
        canvas=CanvasSettings(size=64), shape=DetectorShape(8, (8, 8, 16, 16), (1, 1, 1, 1), 16)
    )
    settings = replace(settings, fit=replace(settings.fit, epochs=2, batch_size=4))
    there = CrossValidation(annotated, tmp_path / "there", settings, count=2)
    here = replace(there, folder=tmp_path / "here")
    fold = 2
    done = list(on.run(dying.fold_killed_once, there, [fold]))
    assert [d.error for d in done] == [None]
    assert there.done(fold)
    # The same weights give the same bytes of ONNX: tests/mask/training/test_export.py.
    monkeypatch.setattr(cross_validation, "look_at_fold", lambda validation, number: None)
    train_fold(here, fold)
    assert (there.fold(fold) / "killed").exists()
    # An epoch before and one after, and neither twice.
    assert len((there.fold(fold) / "log").read_text().splitlines()) == 2
    name = "detector.safetensors"
    assert (there.fold(fold) / name).read_bytes() == (here.fold(fold) / name).read_bytes()
