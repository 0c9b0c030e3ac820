"""The folder that a run writes into: deleted, read-only, taken, a file; and the clock beside it."""

from __future__ import annotations

import errno
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
from unmask.data import mnist
from unmask.errors import UserError
from unmask.models.checkpoint import TensorFile
from unmask.runtime import claim_folder, release_folders, write_atomically

VERBS = {
    "train": "train data --size 9 --epochs 2 --batch-size 6 --device cpu",
    "harden": "fool harden data --size 9 --epochs 1 --steps 1 --eps 0.1 --device cpu",
    "study": "flow study --depths 1 --activations tanh --seeds 1 --width 3 --batch-size 16 "
    "--epochs 1 --training-images 50 --validation-images 20 --probe-epoch 1 --threads 1",
    "map": "flow map tanh --deepest 3 --columns 2 --rows 2 --width 4 --steps 2 --threads 1",
    "audit": "fool audit tiny_net:make data --size 8 --images 2 --steps 1 --pairs 0 --attacks pgd",
    "certify": "fool certify tiny_net:make data --size 8 --images 2 --eps 0.01",
    "shift": "shift tiny_net:make data --size 8 --images 4 --quick --severities 1",
    "check": "check tiny_net:make data --size 8 --minutes 0.05 --questions accuracy",
    "mask train": "mask train faces --epochs 1 --batch-size 1 --validation 0.5 --device cpu",
    "data audit": "data audit data --size 8",
}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave figures and MNIST out."""

    def save(self: Figure, buffer: Any, **options: object) -> None:
        buffer.write("<svg></svg>" if options["format"] == "svg" else b"")

    monkeypatch.setattr(Figure, "savefig", save)
    for module in (study_module, mnist):
        monkeypatch.setattr(module, "load_mnist", lambda: (pictures(70), pictures(20, seed=5)))


def run(verb: str) -> int:
    return main([*shlex.split(VERBS[verb]), "--out", "out"])


def weights(folder: Path) -> dict[str, Any]:
    return {k: v.numpy() for k, v in TensorFile(folder / "model.safetensors").tensors().items()}


def test_a_clock_that_goes_back_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("train") == 0
    whole = weights(folder / "out")
    shutil.rmtree(folder / "out")
    hours = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: 1e9 - 3600.0 * next(hours))
    assert run("train") == 0
    for name, tensor in weights(folder / "out").items():
        np.testing.assert_array_equal(tensor, whole[name])


def test_a_folder_deleted_in_mid_run_is_made_again_or_told_of(
    folder: Path, disk: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def deleted() -> BaseException:
        shutil.rmtree(folder / "out")
        return OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    disk.arm(3, deleted)
    assert run("train") == 2
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
    for verb in VERBS:
        disk.arm(1, lambda: PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
        assert run(verb) == 2, verb
        assert "Permission denied" in capsys.readouterr().err.splitlines()[-1]


def test_a_file_in_the_folders_place_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "out").write_text("")
    for verb in VERBS:
        assert run(verb) == 2, verb
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
        for verb in VERBS:
            assert run(verb) == 2, verb
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
    unpacking = tmp_path / f".0123456789abcdef.{here}.abcd1234" / "part"
    unpacking.mkdir(parents=True)
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
    assert not unpacking.parent.exists()
    assert all(file.exists() for file in kept)
    assert (tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes() == b"12"


def test_a_folder_that_can_not_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't write"):
        claim_folder(tmp_path / "file" / "out")
