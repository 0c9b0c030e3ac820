"""The kernel under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "src" / "unmask" / "sweep" / "native"
# Of random nets; make fuzz sets three minutes.
SECONDS = os.environ.get("UNMASK_FUZZ_KERNEL", "2")


def built(folder: Path, sanitizers: str) -> Path:
    """Return the program, or skip where it can't be built."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    program = folder / "sanitize"
    flags = ["-std=c++20", "-O1", "-g", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    # The portable build: half the lanes make twice as many edges, and every machine runs it.
    defines = ["-DUNMASK_ISA=baseline", "-DUNMASK_LANES=4", "-pthread"]
    made = subprocess.run(
        [compiler, *flags, *defines, f"-I{NATIVE}", str(HERE / "sanitize.cpp"), "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode and "san" in made.stderr and "cannot find" in made.stderr:
        pytest.skip("this compiler has no sanitizer runtime")
    assert made.returncode == 0, made.stderr
    return program


def printed(program: Path, *words: str) -> str:
    ran = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_kernel_is_clean_under_the_sanitizers(tmp_path: Path) -> None:
    program = built(tmp_path, "address,undefined")
    assert printed(program) == "864 nets\n"
    assert printed(program, SECONDS, "1").endswith(" random nets\n")


@pytest.mark.slow
def test_nets_that_another_thread_stops_share_nothing_else(tmp_path: Path) -> None:
    assert printed(built(tmp_path, "thread"), "threads") == "2 stopped\n"
