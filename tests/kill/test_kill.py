"""A run that is killed at any write goes on to the same bits, and leaves nothing lying about."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from made_up import pictures
from unmask import runtime
from unmask.cli.main import main
from unmask.coursework.study import run as study_module
from unmask.errors import UserError
from unmask.models.checkpoint import TensorFile
from unmask.runtime import claim_folder, release_folders, write_atomically
from unmask.saved_state import read_arrays

# Each long verb that keeps its state, at its smallest; --resume goes on with it.
VERBS = {
    "train": "train data --size 9 --epochs 2 --batch-size 6 --device cpu --out out",
    "study": "flow study --depths 1 2 --activations tanh --seeds 1 --width 3 --batch-size 16 "
    "--epochs 2 --training-images 50 --validation-images 20 --probe-epoch 1 --threads 1 --out out",
    "audit": "fool audit tiny_net:make data --size 8 --images 4 --steps 2 --queries 4 --pairs 1 "
    "--attacks pgd --eps 0.1 --out out",
    "shift": "shift tiny_net:make data --size 8 --images 4 --quick --severities 1 2 "
    "--corruptions brightness contrast --out out",
}
_SLOW = [pytest.param(v, marks=pytest.mark.slow if v != "shift" else ()) for v in VERBS]
# Of what a run measures of itself and not of the model.
_CLOCKS = ("seconds", "per_second")


def state(folder: Path) -> dict[str, Any]:
    """Return every number that the run has kept, by file and name, but for those of its clock."""
    found: dict[str, Any] = {}
    for file in sorted(folder.rglob("*")):
        where = str(file.relative_to(folder))
        if file.suffix == ".npz":
            arrays = read_arrays(file)
            found |= {f"{where}/{k}": v for k, v in arrays.items() if k != "header"}
        if file.suffix == ".safetensors":
            tensors = TensorFile(file).tensors()
            found |= {f"{where}/{k}": v.numpy() for k, v in tensors.items()}
        if file.name == "cells.json":
            found |= {where: json.loads(file.read_text())}
    return {k: v for k, v in found.items() if not any(clock in k for clock in _CLOCKS)}


def same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for name, array in a.items():
        if isinstance(array, np.ndarray):
            np.testing.assert_array_equal(array, b[name], err_msg=name)
        else:
            assert array == b[name], name


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob(".*") if p.is_file()]


@pytest.fixture(autouse=True)
def _drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take the most of runs so small, and keep nothing."""

    def save(self: Figure, buffer: Any, **options: object) -> None:
        buffer.write("<svg></svg>" if options["format"] == "svg" else b"")

    monkeypatch.setattr(Figure, "savefig", save)
    monkeypatch.setattr(study_module, "load_mnist", lambda: (pictures(70), pictures(20, seed=5)))


@pytest.mark.parametrize("verb", _SLOW)
def test_killed_at_every_fsync_and_rename_it_resumes_to_the_same_bits(
    verb: str, folder: Path, disk: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(VERBS[verb])
    disk.arm(0)
    assert main(words) == 0
    events = list(disk.events)
    whole = state(folder / "out")
    assert len(events) >= 4
    assert whole
    # What is kept of the work comes first; of the report's files the last stands for all.
    for at in (*range(1, min(len(events), 18)), len(events)):
        shutil.rmtree(folder / "out")
        disk.arm(at)
        assert main(words) == 2, at
        assert disk.dead
        disk.arm(0)
        # Killed before anything was kept, there is nothing to go on with.
        again = main([*words, "--resume"])
        if again != 0:
            shutil.rmtree(folder / "out")
            assert main(words) == 0, (at, capsys.readouterr().err)
        same(state(folder / "out"), whole)
        assert leftovers(folder / "out") == [], at


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_is_one_line_and_what_was_kept_is_gone_on_with(
    verb: str, folder: Path, disk: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(VERBS[verb])
    disk.arm(0)
    assert main(words) == 0
    events = len(disk.events)
    whole = state(folder / "out")
    for at in sorted({3, events // 2, events}):
        shutil.rmtree(folder / "out")
        capsys.readouterr()
        disk.arm(at, lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        assert main(words) == 2
        assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
        assert leftovers(folder / "out") == []
        disk.arm(0)
        if main([*words, "--resume"]) != 0:
            shutil.rmtree(folder / "out")
            assert main(words) == 0
        same(state(folder / "out"), whole)


def test_a_clock_that_goes_back_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(VERBS["train"])
    assert main(words) == 0
    whole = state(folder / "out")
    shutil.rmtree(folder / "out")
    hours = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: 1e9 - 3600.0 * next(hours))
    assert main(words) == 0
    same(state(folder / "out"), whole)


def test_a_folder_deleted_in_mid_run_is_made_again_or_told_of(
    folder: Path, disk: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(VERBS["train"])

    def deleted() -> BaseException:
        shutil.rmtree(folder / "out")
        return OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    disk.arm(3, deleted)
    assert main(words) == 2
    assert "No such file or directory" in capsys.readouterr().err.splitlines()[-1]
    with write_atomically(folder / "gone" / "x") as file:
        file.write(b"1")
    shutil.rmtree(folder / "gone")
    with write_atomically(folder / "gone" / "x") as file:
        file.write(b"2")
    assert (folder / "gone" / "x").read_bytes() == b"2"


def test_a_folder_that_is_read_only_is_one_line(
    folder: Path, disk: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in VERBS.values():
        disk.arm(1, lambda: PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
        assert main(shlex.split(verb)) == 2
        assert "Permission denied" in capsys.readouterr().err.splitlines()[-1]


def test_a_file_in_the_folders_place_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "out").write_text("")
    for verb in VERBS.values():
        assert main(shlex.split(verb)) == 2
        assert "can't write" in capsys.readouterr().err.splitlines()[-1]


_HOLDS = """
import sys
from pathlib import Path
from unmask.runtime import claim_folder
claim_folder(Path(sys.argv[1]))
print("claimed", flush=True)
sys.stdin.read()
"""


def test_two_runs_with_one_folder_the_second_gets_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("fcntl")
    out = folder / "out"
    command = [sys.executable, "-c", _HOLDS, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"claimed\n"
        for verb in VERBS.values():
            assert main(shlex.split(verb)) == 2
            assert "another run writes into out" in capsys.readouterr().err.splitlines()[-1]
        assert list(out.iterdir()) == []
        other.stdin.close()
    claim_folder(out)
    claim_folder(out)
    release_folders()


def test_only_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = runtime._writer(dead.pid)
    old = tmp_path / f".checkpoint.safetensors.{here}.abcd1234"
    kept = [
        tmp_path / name
        for name in (
            ".hidden", ".env.local", f"checkpoint.{here}.x",
            f".x.{runtime._writer(os.getppid())}.y",
            f".x.0123abcd-{dead.pid}.y", f".x.{here}",
        )
    ]  # fmt: skip
    for file in (old, *kept):
        file.write_text("")
    runtime._swept.clear()
    with write_atomically(tmp_path / "a") as file, write_atomically(tmp_path / "b") as other:
        runtime._swept.clear()
        with write_atomically(tmp_path / "c"):
            pass
        file.write(b"1")
        other.write(b"2")
    assert not old.exists()
    assert all(file.exists() for file in kept)
    assert (tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes() == b"12"


def test_a_folder_that_can_not_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't write"):
        claim_folder(tmp_path / "file" / "out")
