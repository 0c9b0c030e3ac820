"""A run that is killed at a chosen write, and the same run gone on with."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unmask import runtime


class Killed(BaseException):
    """Ends a run where a kill would; nothing that the run does afterwards reaches the disk."""


@dataclass
class Disk:
    """Counts what is forced to disk and what is renamed, and fails at the one that is asked for.

    at: the number of the event, from 1; 0 for none. error: what it raises. dead: whether the
    process is gone, so that it can't clean up either.
    """

    at: int = 0
    error: Callable[[], BaseException] = Killed
    events: list[str] = field(default_factory=list)
    dead: bool = False

    def event(self, name: str) -> None:
        if self.dead:
            raise self.error()
        self.events.append(name)
        if len(self.events) == self.at:
            self.dead = self.error is Killed
            raise self.error()

    def arm(self, at: int, error: Callable[[], BaseException] = Killed) -> None:
        """Start anew as another process would, to fail at an event."""
        self.at, self.error, self.dead = at, error, False
        self.events.clear()
        runtime._swept.clear()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk under write_atomically."""
    disk = Disk()
    fsync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def forced(number: int) -> None:
        disk.event("fsync")
        fsync(number)

    def renamed(self: Path, target: Any) -> Path:
        disk.event("rename")
        return replace(self, target)

    def removed(self: Path, missing_ok: bool = False) -> None:
        if not disk.dead:
            unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(os, "fsync", forced)
    monkeypatch.setattr(Path, "replace", renamed)
    monkeypatch.setattr(Path, "unlink", removed)
    return disk


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a few images of two classes."""
    rng = np.random.default_rng(0)
    for i in range(12):
        file = tmp_path / "data" / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        dark = rng.integers(0, 128, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(dark + np.uint8(100 * (i % 2))).save(file)
    (tmp_path / "tiny_net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path
