"""A fold whose worker dies: a function that workers can import, apart since torch takes a while."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from unmask.mask.training import trainer as training
from unmask.mask.training.cross_validation import CrossValidation, train_fold


def fold_killed_once(validation: CrossValidation, number: int) -> None:
    """Train a fold, but kill the worker the first time that an epoch is kept."""
    save = training.DetectorRun.save

    def killed(run: training.DetectorRun, file: Path) -> None:
        save(run, file)
        folder = file.parent
        if not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.DetectorRun, "seconds_between_saves", 0.0)
        patch.setattr(training.DetectorRun, "save", killed)
        train_fold(validation, number)
