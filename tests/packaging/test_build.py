"""Wheels: one is built without a compiler, and what builders read fits together."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.slow
def test_a_build_without_a_compiler_gives_a_wheel_that_runs_anywhere(tmp_path: Path) -> None:
    pytest.importorskip("scikit_build_core")
    code = "import sys; from scikit_build_core.build import build_wheel; build_wheel(sys.argv[1])"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("UNMASK_")}
    built = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        env=environment | {"CC": "/bin/false", "CXX": "/bin/false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert "sweeps run on PyTorch" in built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [n for n in archive.namelist() if n.endswith((".so", ".cpp", ".hpp"))]
        archive.extractall(tmp_path / "unpacked")
    code = "import unmask, unmask.sweep.native_net as n; print(unmask.__file__, n.has_kernel())"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": str(tmp_path / "unpacked")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.startswith(str(tmp_path))
    assert ran.stdout.split()[-1] == "False"


def test_wheels_are_built_for_every_python_that_is_promised() -> None:
    promised = {
        found[1].replace(".", "")
        for line in PROJECT["project"]["classifiers"]
        if (found := re.search(r"Python :: (3\.\d+)$", line))
    }
    assert {pattern[2:-2] for pattern in PROJECT["tool"]["cibuildwheel"]["build"]} == promised


def test_the_constraints_name_only_versions_that_the_floors_allow() -> None:
    from packaging.requirements import Requirement

    pins = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(r for extra in extras for r in extra)]
    for requirement in map(Requirement, wanted):
        pin = pins.get(requirement.name.lower().replace("_", "-"))
        assert pin is None or requirement.specifier.contains(pin), requirement
