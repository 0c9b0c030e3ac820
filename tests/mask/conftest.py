from pathlib import Path

import pytest

from made_up_detector import build
from unmask.mask.detector import MaskDetector


@pytest.fixture(scope="session")
def rectangles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of a detector that finds painted rectangles."""
    return build(tmp_path_factory.mktemp("model") / "rectangles.onnx")


@pytest.fixture(scope="session")
def detector(rectangles: Path) -> MaskDetector:
    return MaskDetector.load(rectangles)
