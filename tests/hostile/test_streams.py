"""Streams that are closed or full: a status that is right, and never a traceback."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")


@pytest.mark.parametrize(
    ("line", "status", "told"),
    [
        ("--version >&-", 0, ""),
        ("--version <&-", 0, ""),
        ("--version >/dev/full", 2, "No space left on device"),
        ("--version >/dev/full 2>/dev/full", 2, ""),
        ("data nothing 2>/dev/full", 2, ""),
        ("data nothing >&- 2>&-", 2, ""),
    ],
)
def test_a_stream_that_takes_nothing(line: str, status: int, told: str) -> None:
    command = f"{shlex.quote(sys.executable)} -m unmask {line}"
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert ran.returncode == status
    assert told in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stderr.count("\n") == bool(told)
