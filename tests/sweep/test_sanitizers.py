"""The kernel under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "src" / "unmask" / "sweep" / "native"


@pytest.mark.slow
def test_kernel_is_clean_under_the_sanitizers(tmp_path: Path) -> None:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    program = tmp_path / "sanitize"
    flags = ["-std=c++20", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    # The portable build: half the lanes make twice as many edges, and every machine runs it.
    defines = ["-DUNMASK_ISA=baseline", "-DUNMASK_LANES=4"]
    built = subprocess.run(
        [compiler, *flags, *defines, f"-I{NATIVE}", str(HERE / "sanitize.cpp"), "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode and "asan" in built.stderr and "cannot find" in built.stderr:
        pytest.skip("this compiler has no sanitizer runtime")
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout == "864 nets\n"
