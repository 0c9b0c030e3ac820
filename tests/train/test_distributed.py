"""Two processes over gloo train as one does: gradients, runs, resuming, and what goes wrong.

Each start is a process of its own, because gloo's end can wait for the interpreter for ever.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import together
from together import GRADIENT, RUNS, pictures, run
from unmask.cli.main import main
from unmask.errors import UserError
from unmask.models.checkpoint import TensorFile
from unmask.train.batch_norm import whole_batch_statistics
from unmask.train.checks import check_parts
from unmask.train.distributed import Processes, joined, processes
from unmask.train.history import EpochFigures

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(*command: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*TORCHRUN, *command], env=environment, text=True, **pipes)


def own_lines(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("unmask:")]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return TensorFile(folder / "weights.safetensors").tensors()


def epochs(folder: Path) -> list[EpochFigures]:
    lines = (folder / "history.jsonl").read_text().splitlines()
    return [EpochFigures(**json.loads(line)) for line in lines]


def assert_same_run(folder: Path, oracle: Path) -> None:
    found, expected = weights(folder), weights(oracle)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    for ours, theirs in zip(epochs(folder), epochs(oracle), strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-5)
        assert ours.train_accuracy == theirs.train_accuracy
        assert ours.validation_loss == pytest.approx(theirs.validation_loss, rel=1e-5)
        assert ours.validation_accuracy == theirs.validation_accuracy
        assert ours.validation_averaged == theirs.validation_averaged


@pytest.mark.slow
def test_two_processes_train_as_one_and_either_goes_on_where_the_other_stopped(
    tmp_path: Path,
) -> None:
    for name, config in RUNS.items():
        run(config, tmp_path / f"{name} of one", until=3)
    process = start(str(Path(together.__file__)), str(tmp_path))
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    run(GRADIENT, tmp_path / "oracle")
    assert_same_run(tmp_path / "gradient", tmp_path / "oracle")
    for name, config in RUNS.items():
        oracle = tmp_path / f"{name} oracle"
        run(config, oracle)
        assert_same_run(tmp_path / f"{name} whole", oracle)
        assert_same_run(tmp_path / f"{name} of one", oracle)
        assert len(epochs(tmp_path / f"{name} of two")) == 2
        run(config, tmp_path / f"{name} of two", resume=True)
        assert_same_run(tmp_path / f"{name} of two", oracle)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the made-up images, one folder a class."""
    images, _ = pictures()
    for i, (picture, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
        place = tmp_path / "pictures" / images.class_names[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.transpose(1, 2, 0)).save(place / f"{i}.png")
    return tmp_path / "pictures"


def train_command(data: Path, out: Path, *more: str) -> list[str]:
    command = ["-m", "unmask", "train", str(data), "--size", "12", "--device", "cpu"]
    return [*command, "--out", str(out), *more]


@pytest.mark.slow
def test_the_command_prints_and_writes_once(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(*train_command(folder, out, "--epochs", "1", "--batch-size", "27", "--json"))
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    printed = json.loads(stdout)
    assert printed["epochs"][0]["step"] == 3
    assert printed["card"]["facts"]["made_with"]["processes"] == 2
    assert {p.name for p in out.iterdir()} == {
        "checkpoint.safetensors",
        "history.jsonl",
        "model.json",
        "model.safetensors",
    }


@pytest.mark.slow
def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    process = start(*train_command(tmp_path / "nowhere", tmp_path / "out"))
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode != 0
    assert stdout == ""
    (line,) = own_lines(stderr)
    assert "nowhere" in line


@pytest.mark.slow
def test_ctrl_c_keeps_the_best_so_far(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start_endless(folder, out, "--json")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=600)
    printed = json.loads(stdout)
    assert printed["ended"] == "interrupted"
    assert len(printed["epochs"]) > 0
    assert TensorFile(out / "model.safetensors").tensors()
    assert own_lines(stderr) == []


@pytest.mark.slow
def test_a_process_that_is_lost_ends_all_with_one_line(folder: Path, tmp_path: Path) -> None:
    process = start_endless(folder, tmp_path / "out")
    os.kill(second_of(process.pid), signal.SIGKILL)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode != 0
    assert len(own_lines(stderr)) <= 1
    assert all("lost" in line and "--resume" in line for line in own_lines(stderr))
    traceback = stderr.partition("ChildFailedError")[0]
    assert "unmask/train" not in traceback


def start_endless(folder: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """A training that has ended its first epoch and won't end its last."""
    process = start(*train_command(folder, out, "--epochs", "100000", "--batch-size", "27", *more))
    deadline = time.monotonic() + 600
    while not (out / "history.jsonl").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def second_of(torchrun: int) -> int:
    """The process id of rank 1 among torchrun's children."""
    children = Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split()
    for child in children:
        if b"\0RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    raise AssertionError(f"torchrun has no second process among {children}")


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_a_word_that_no_process_understands_is_told_by_the_first(
    rank: str, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", rank)
    assert main(["train", "mnist", "--epohcs", "3"]) == 2
    assert len(own_lines(capsys.readouterr().err)) == lines


def test_alone_there_is_nothing_to_join() -> None:
    with joined("cpu") as device:
        assert device == "cpu"
        assert processes() == Processes(0, 1)
    tensor = torch.ones(3)
    assert processes().summed(tensor) is tensor
    model = nn.Linear(2, 2)
    assert processes().learner(model) is model


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [0, 1, 7, 26, 101])
def test_parts_are_even_and_leave_nothing_out(count: int, rows: int) -> None:
    parts = [Processes(rank, count).part(rows) for rank in range(count)]
    assert [i for part in parts for i in range(rows)[part]] == list(range(rows))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_more_processes_than_pictures_and_adversaries_are_refused() -> None:
    check_parts(4, 4, None)
    with pytest.raises(UserError, match="got 5 processes and 4 images"):
        check_parts(5, 4, None)
    with pytest.raises(UserError, match="adversarial training runs in one process"):
        check_parts(2, 4, object())  # type: ignore[arg-type]


class Alone(Processes):
    """Two processes of which only this one has images: sums over both are its own."""

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone()


@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(9, 4), (5, 4, 3, 2)])
def test_statistics_over_all_are_batch_norms_own(
    shape: tuple[int, ...], affine: bool, momentum: float | None
) -> None:
    make = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    ours, oracle = (make(4, affine=affine, momentum=momentum) for _ in range(2))
    torch.manual_seed(0)
    for _ in range(2):
        x = (5 + torch.randn(shape)).requires_grad_()
        y = x.detach().clone().requires_grad_()
        with whole_batch_statistics(ours, Alone(0, 2)):
            out = ours(x)
        expected = oracle(y)
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
        pull = torch.randn(shape)
        torch.testing.assert_close(
            torch.autograd.grad(out, x, pull)[0],
            torch.autograd.grad(expected, y, pull)[0],
            rtol=1e-4,
            atol=1e-6,
        )
    for name, buffer in oracle.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], buffer, msg=name)
    assert "forward" not in vars(ours)
    with whole_batch_statistics(ours.eval(), Alone(0, 2)):
        torch.testing.assert_close(ours(x), oracle.eval()(x))


def test_the_first_processs_file_travels_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(np.arange(256, dtype=np.uint8).tobytes())
    monkeypatch.setattr(Processes, "_from_first", lambda self, data: data or file.read_bytes())
    with Processes(0, 2).copy_of(file) as copy:
        assert copy is None
    with Processes(1, 2).copy_of(tmp_path / "absent") as copy:
        assert copy is not None
        assert copy.read_bytes() == file.read_bytes()
    assert not copy.exists()
