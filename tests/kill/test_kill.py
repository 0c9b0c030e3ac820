"""A run that is killed at any write goes on to the same bits, and leaves nothing lying about."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from made_up import pictures
from made_up_squares import SMALL
from unmask.cli.main import main
from unmask.coursework.study import run as study_module
from unmask.data import mnist
from unmask.mask.training import canvases, export, trainer
from unmask.mask.training.trainer import DetectorRun
from unmask.models.checkpoint import TensorFile
from unmask.runtime import write_atomically
from unmask.saved_state import read_arrays

# Each long verb at its smallest, and whether --resume goes on with it.
VERBS = {
    "train": "train data --size 9 --epochs 2 --batch-size 6 --device cpu",
    "harden": "fool harden data --size 9 --epochs 2 --steps 1 --eps 0.1 --device cpu",
    "study": "flow study --depths 1 2 --activations tanh --seeds 1 --width 3 --batch-size 16 "
    "--epochs 2 --training-images 50 --validation-images 20 --probe-epoch 1 --threads 1",
    "map": "flow map tanh --deepest 3 --columns 2 --rows 2 --width 4 --steps 2 --batch-size 8 "
    "--threads 1",
    "audit": "fool audit tiny_net:make data --size 8 --images 4 --steps 2 --queries 4 --pairs 1 "
    "--attacks pgd --eps 0.1",
    "certify": "fool certify tiny_net:make data --size 8 --images 4 --eps 0.01",
    "shift": "shift tiny_net:make data --size 8 --images 4 --quick --severities 1 2 "
    "--corruptions brightness contrast",
    "check": "check tiny_net:make data --size 8 --minutes 0.05 --questions accuracy "
    "--fail-on never",
    "mask train": "mask train faces --epochs 2 --batch-size 1 --validation 0.5 --device cpu",
}
FAST = ("certify", "shift", "check")
_EACH = [pytest.param(v, marks=() if v in FAST else pytest.mark.slow) for v in VERBS]
# What a run measures of itself and not of the model.
_CLOCKS = ("seconds", "per_second")


def run(verb: str, *more: str) -> int:
    return main([*shlex.split(VERBS[verb]), "--out", "out", *more])


def resumed(verb: str) -> int:
    """Go on; a check keeps nothing and starts anew."""
    return run(verb) if verb == "check" else run(verb, "--resume")


def state(folder: Path) -> dict[str, Any]:
    """Return every number that the run has kept, by file and name, but for those of its clock."""
    found: dict[str, Any] = {}
    for file in sorted(folder.rglob("[!.]*")):
        where = str(file.relative_to(folder))
        if file.suffix == ".npz":
            arrays = read_arrays(file)
            found |= {f"{where}/{k}": v for k, v in arrays.items() if k not in ("header", "head")}
        if file.suffix == ".safetensors":
            tensors = TensorFile(file).tensors()
            found |= {f"{where}/{k}": v.numpy() for k, v in tensors.items()}
        if file.name == "cells.json":
            found |= {where: json.loads(file.read_text())}
        if file.suffix == ".jsonl":
            lines = map(json.loads, file.read_text().splitlines())
            found |= {
                f"{where}/{i}/{k}": v for i, line in enumerate(lines) for k, v in line.items()
            }
        if file.suffix == ".onnx":
            found |= {where: file.read_bytes()}
    return {k: v for k, v in found.items() if not any(clock in k for clock in _CLOCKS)}


def same(a: dict[str, Any], b: dict[str, Any], where: str) -> None:
    assert a.keys() == b.keys(), where
    for name, array in a.items():
        if isinstance(array, np.ndarray):
            np.testing.assert_array_equal(array, b[name], err_msg=f"{name}, {where}")
        else:
            assert array == b[name], (name, where)


def names(folder: Path, *, hidden: bool = False) -> set[str]:
    """Return the names of the files that are whole, or of those that are not."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)) for p in files if p.name.startswith(".") == hidden}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes the most of runs so small: figures, MNIST, a large detector."""

    def save(self: Figure, buffer: Any, **options: object) -> None:
        buffer.write("<svg></svg>" if options["format"] == "svg" else b"")

    monkeypatch.setattr(Figure, "savefig", save)
    for module in (study_module, mnist):
        monkeypatch.setattr(module, "load_mnist", lambda: (pictures(70), pictures(20, seed=5)))
    canvas = partial(canvases.CanvasSettings, size=64, mosaic=0.0, paste=0.0)
    monkeypatch.setattr(canvases, "CanvasSettings", canvas)
    settings = partial(trainer.DetectorSettings, shape=SMALL)
    monkeypatch.setattr(trainer, "DetectorSettings", settings)
    monkeypatch.setattr(DetectorRun, "seconds_between_saves", 0.0)
    # The same weights give the same bytes of ONNX: tests/mask/training/test_export.py.
    monkeypatch.setattr(export, "export_detector", _weights)


def _weights(network: Any, card: Any, path: Path, **settings: object) -> float:
    with write_atomically(path) as file:
        for tensor in network.state_dict().values():
            file.write(tensor.numpy().tobytes())
    return 0.0


@pytest.mark.parametrize("verb", _EACH)
def test_killed_at_any_fsync_and_rename_it_resumes_to_the_same_bits(
    verb: str, folder: Path, disk: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out, copies = folder / "out", folder / "copies"
    disk.photograph(out, copies)
    assert run(verb) == 0
    events = list(disk.events)
    whole, files = state(out), names(out)
    assert len(events) >= 8
    assert files
    assert names(out, hidden=True) == set()
    for at, event in enumerate(events, 1):
        shutil.rmtree(out)
        shutil.copytree(copies / str(at), out)
        half_written = names(out, hidden=True)
        assert half_written or event == "fsync", event
        disk.arm()
        capsys.readouterr()
        where = f"killed at event {at}, {event}"
        status = resumed(verb)
        if status != 0 and not state(out):
            # Killed before anything was kept, there is nothing to go on with.
            assert status == 2, where
            assert capsys.readouterr().err.splitlines()[-1].startswith("unmask: "), where
            shutil.rmtree(out)
            status = run(verb)
        assert status == 0, (where, capsys.readouterr().err)
        same(state(out), whole, where)
        assert names(out) == files, where
        assert names(out, hidden=True) == set(), where


@pytest.mark.parametrize("verb", _EACH)
def test_a_disk_that_is_full_at_any_write_is_one_line_and_no_file_is_torn(
    verb: str, folder: Path, disk: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out, copies = folder / "out", folder / "copies"
    disk.photograph(out, copies)
    assert run(verb) == 0
    for at, event in enumerate(list(disk.events), 1):
        if event != "fsync":
            # A file gets its new name without any space.
            continue
        shutil.rmtree(out, ignore_errors=True)
        capsys.readouterr()
        disk.arm(at, lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        assert run(verb) == 2, event
        line = capsys.readouterr().err.splitlines()[-1]
        assert "No space left on device" in line, (event, line)
        # So what is left is what a kill leaves, without the half-written file.
        assert names(out, hidden=True) == set(), event
        assert names(out) == names(copies / str(at)), event
