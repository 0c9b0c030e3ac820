"""Training of one network at a time on images in memory, on any device."""

from unmask.train.config import FitConfig
from unmask.train.evaluation import Evaluation, evaluate
from unmask.train.fit import FitInterrupted, FitProgress, fit
from unmask.train.history import EpochFigures, History
from unmask.train.teacher import Teacher

__all__ = [
    "EpochFigures",
    "Evaluation",
    "FitConfig",
    "FitInterrupted",
    "FitProgress",
    "History",
    "Teacher",
    "evaluate",
    "fit",
]
