"""Thousands of multilayer perceptrons trained at once, to measure how gradients flow."""

from unmask.sweep.engine import SweepInterrupted, SweepProgress, train_sweep
from unmask.sweep.history import SweepHistory
from unmask.sweep.spec import NetSpec, grid

__all__ = ["NetSpec", "SweepHistory", "SweepInterrupted", "SweepProgress", "grid", "train_sweep"]
