"""Thousands of multilayer perceptrons trained at once, to measure how gradients flow."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmask.sweep.engine import SweepInterrupted, SweepProgress, train_sweep
    from unmask.sweep.history import SweepHistory
    from unmask.sweep.spec import NetSpec, grid

__all__ = ["NetSpec", "SweepHistory", "SweepInterrupted", "SweepProgress", "grid", "train_sweep"]
_OTHERS = {"SweepHistory": "history", "NetSpec": "spec", "grid": "spec"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'unmask.sweep' has no attribute {name!r}")
    # Only the engine needs torch, which takes a while to load.
    home = importlib.import_module(f"unmask.sweep.{_OTHERS.get(name, 'engine')}")
    return getattr(home, name)
