"""Unmask finds out what is wrong with an image classifier before its users do."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmask.data.images import Images
    from unmask.errors import UserError
    from unmask.flow.check import check_flow
    from unmask.flow.probe import GradientProbe
    from unmask.sweep.engine import train_sweep
    from unmask.sweep.history import SweepHistory
    from unmask.sweep.spec import NetSpec, grid

__version__ = "0.1.0"

_HOMES = {
    "GradientProbe": "unmask.flow.probe",
    "Images": "unmask.data.images",
    "NetSpec": "unmask.sweep.spec",
    "SweepHistory": "unmask.sweep.history",
    "UserError": "unmask.errors",
    "check_flow": "unmask.flow.check",
    "grid": "unmask.sweep.spec",
    "train_sweep": "unmask.sweep.engine",
}

__all__ = [
    "GradientProbe",
    "Images",
    "NetSpec",
    "SweepHistory",
    "UserError",
    "check_flow",
    "grid",
    "train_sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unmask' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
