"""A package of someone else's adds an activation, a data set and a judge, found once installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unmask.errors import UserError
from unmask.registry import Registry

MODULE = """
import numpy as np
from unmask.data.images import Images
from unmask.data.sources import NAMED, Source
from unmask.flow.judge.verdicts import register_judge
from unmask.models.activations import ACTIVATIONS, Activation
from unmask.verdict import Verdict

ACTIVATIONS.register("arctan")(
    Activation("arctan", "arctan", lambda x: x.atan(), lambda x: 1 / (1 + x * x), 0.0, 1.0)
)

@NAMED.register("grey")
def grey(place, progress):
    pixels = np.full((4, 1, 2, 2), 128, np.uint8)
    return Source("grey", Images(pixels, np.arange(4) % 2, ("a", "b"), "grey"), None, None, "CC0")

@register_judge
def always(history):
    return Verdict("always", "note", "said of every network")
"""

PROGRAM = """
import torch
from unmask.data.sources import load_source
from unmask.flow.check import check_flow
from unmask.flow.theory import critical_sigma_w2

print(round(critical_sigma_w2("arctan"), 3))
print(load_source("grey").train.name)
batch = torch.rand(8, 4), torch.arange(8) % 2
found = check_flow(torch.nn.Linear(4, 2), torch.nn.functional.cross_entropy, batch)
print([v.message for v in found.verdicts if v.kind == "always"])
"""


def installed(folder: Path, module: str) -> dict[str, str]:
    """Write a distribution as an installer lays it, and return the environment that sees it."""
    (folder / "unmask_extra.py").write_text(module)
    info = folder / "unmask_extra-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unmask-extra\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[unmask.plugins]\nextra = unmask_extra\n")
    return {**os.environ, "PYTHONPATH": str(folder)}


def run(program: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_an_installed_package_registers_is_used(tmp_path: Path) -> None:
    done = run(PROGRAM, installed(tmp_path, MODULE))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1.0", "grey", "['said of every network']"]


def test_a_package_that_fails_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    program = (
        "from unmask.models.activations import ACTIVATIONS; print('relu' in list(ACTIVATIONS))"
    )
    done = run(program, installed(tmp_path, "1 / 0"))
    assert done.stdout == "True\n"
    assert "the plugin extra (unmask_extra) can't be loaded: division by zero" in done.stderr


def test_a_name_that_is_taken_is_refused() -> None:
    table: Registry[int] = Registry("attack", {"a": 1})
    assert table.register("a")(1) == 1
    with pytest.raises(UserError, match="attack is already registered: got 'a'"):
        table.register("a")(2)
