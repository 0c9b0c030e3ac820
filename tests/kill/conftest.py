"""A run that is killed at a chosen write, and what it has left on disk by then."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from made_up_annotations import voc_text
from unmask import runtime


@dataclass
class Disk:
    """Counts what is forced to disk and what is renamed, and fails at the one that is asked for.

    A kill leaves a folder as it is at that moment: so one run with photographs, a copy of the
    folder before each event, shows what a kill at each of them would have left.

    at: the number of the event, from 1; 0 for none. error: what it raises. watched: the folder
    that is copied, and copies: where to.
    """

    at: int = 0
    error: Callable[[], BaseException] = OSError
    events: list[str] = field(default_factory=list)
    watched: Path | None = None
    copies: Path = Path()

    def event(self, name: str) -> None:
        self.events.append(name)
        if self.watched is not None:
            shutil.copytree(self.watched, self.copies / str(len(self.events)))
        if len(self.events) == self.at:
            raise self.error()

    def arm(self, at: int = 0, error: Callable[[], BaseException] = OSError) -> None:
        """Start anew as another process would, to fail at an event."""
        self.at, self.error, self.watched = at, error, None
        self.events.clear()
        runtime._swept.clear()

    def photograph(self, folder: Path, copies: Path) -> None:
        """Start anew, and copy the folder before every event."""
        self.arm()
        self.watched, self.copies = folder, copies


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk under write_atomically."""
    disk = Disk()
    fsync, replace = os.fsync, Path.replace

    def forced(number: int) -> None:
        disk.event("fsync")
        fsync(number)

    def renamed(self: Path, target: Any) -> Path:
        disk.event(f"rename to {Path(target).name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", forced)
    monkeypatch.setattr(Path, "replace", renamed)
    return disk


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a few images of two classes, and a few with annotated faces."""
    rng = np.random.default_rng(0)
    for i in range(12):
        file = tmp_path / "data" / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        dark = rng.integers(0, 128, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(dark + np.uint8(100 * (i % 2))).save(file)
    for i in range(4):
        file = tmp_path / "faces" / f"{i}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(file)
        boxes = [("with_mask", (4, 6, 24, 30)), ("without_mask", (36, 8, 56, 30))]
        file.with_suffix(".xml").write_text(voc_text(str(i), 64, 48, boxes))
    (tmp_path / "tiny_net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path
