from pathlib import Path

import pytest

from made_up_detector import build
from made_up_squares import Learnt, settings, squares
from unmask.mask.calibration import Calibration
from unmask.mask.detector import MaskDetector
from unmask.mask.export import export_detector
from unmask.mask.stored import load_detector
from unmask.mask.training import train_detector


@pytest.fixture(scope="session")
def rectangles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of a detector that finds painted rectangles."""
    return build(tmp_path_factory.mktemp("model") / "rectangles.onnx")


@pytest.fixture(scope="session")
def detector(rectangles: Path) -> MaskDetector:
    return MaskDetector.load(rectangles)


@pytest.fixture(scope="session")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    """A detector that knows four pictures of squares by heart."""
    folder = tmp_path_factory.mktemp("learnt")
    annotated = squares(folder, 4)
    train_detector(annotated, settings(120), directory=folder / "run")
    weights, onnx = folder / "run" / "detector.safetensors", folder / "float32.onnx"
    network, card = load_detector(weights)
    export_detector(network, card, onnx, calibration=Calibration(face=0.3), scale=1.0)
    return Learnt(annotated, weights, onnx)
