"""Unmask finds out what is wrong with an image classifier before its users do."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmask import attacks, check, shift
    from unmask.data.images import Images
    from unmask.data.load import load_data
    from unmask.errors import UserError
    from unmask.flow.check import check_flow
    from unmask.flow.judge.verdicts import verdicts
    from unmask.flow.measure.probe import GradientProbe
    from unmask.flow.watch import watch
    from unmask.fool.audit.run import audit
    from unmask.fool.certify.run import certify
    from unmask.mask.runtime.detector import MaskDetector
    from unmask.models.classifier import Classifier
    from unmask.models.load import load_model
    from unmask.sweep.engine import train_sweep
    from unmask.sweep.history import SweepHistory
    from unmask.sweep.spec import NetSpec, grid
    from unmask.train.config import FitConfig
    from unmask.train.evaluation import evaluate
    from unmask.train.fit import fit
    from unmask.train.history import History

# ONNX Runtime reads it when it is first imported; nothing may be reported of anyone's images.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.2.0"

_HOMES = {
    "Classifier": "unmask.models.classifier",
    "FitConfig": "unmask.train.config",
    "GradientProbe": "unmask.flow.measure.probe",
    "History": "unmask.train.history",
    "Images": "unmask.data.images",
    "MaskDetector": "unmask.mask.runtime.detector",
    "NetSpec": "unmask.sweep.spec",
    "SweepHistory": "unmask.sweep.history",
    "UserError": "unmask.errors",
    "attacks": "unmask.attacks",
    "audit": "unmask.fool.audit.run",
    "certify": "unmask.fool.certify.run",
    "check": "unmask.check",
    "check_flow": "unmask.flow.check",
    "evaluate": "unmask.train.evaluation",
    "fit": "unmask.train.fit",
    "grid": "unmask.sweep.spec",
    "load_data": "unmask.data.load",
    "load_model": "unmask.models.load",
    "shift": "unmask.shift",
    "train_sweep": "unmask.sweep.engine",
    "verdicts": "unmask.flow.judge.verdicts",
    "watch": "unmask.flow.watch",
}

__all__ = [
    "Classifier",
    "FitConfig",
    "GradientProbe",
    "History",
    "Images",
    "MaskDetector",
    "NetSpec",
    "SweepHistory",
    "UserError",
    "attacks",
    "audit",
    "certify",
    "check",
    "check_flow",
    "evaluate",
    "fit",
    "grid",
    "load_data",
    "load_model",
    "shift",
    "train_sweep",
    "verdicts",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unmask' has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    return home if home.__name__ == f"unmask.{name}" else getattr(home, name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
