"""Sweeps on a GPU, asked for where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unmask.cli.main import main


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
@pytest.mark.parametrize("verb", ["study", "map"])
def test_a_gpu_that_is_not_there_is_one_line(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["flow", verb, "--device", "cuda", "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "unmask: this machine or this PyTorch has no CUDA: got cuda; use cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here")
def test_a_map_is_drawn_on_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--columns", "2", "--rows", "2", "--deepest", "4", "--steps", "5", "--width", "8"]
    assert main(["flow", "map", *small, "--device", "cuda", "--out", str(tmp_path)]) == 0
    assert "4 nets:" in capsys.readouterr().out
