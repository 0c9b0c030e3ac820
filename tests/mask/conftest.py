from pathlib import Path

import hypothesis
import pytest

from made_up_detector import build
from made_up_squares import Learnt, squares
from unmask.mask.runtime.calibration import Calibration
from unmask.mask.runtime.detector import MaskDetector
from unmask.mask.training.export import export_detector
from unmask.mask.training.network import load_detector

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

WEIGHTS = Path(__file__).parent / "weights" / "squares.safetensors"


@pytest.fixture(scope="session")
def rectangles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of a detector that finds painted rectangles."""
    return build(tmp_path_factory.mktemp("model") / "rectangles.onnx")


@pytest.fixture(scope="session")
def detector(rectangles: Path) -> MaskDetector:
    return MaskDetector.load(rectangles)


@pytest.fixture(scope="session")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    """A detector that knows four images of squares by heart: weights that train_detector left.

    They are stored, since what a training comes to differs from processor to processor.
    """
    folder = tmp_path_factory.mktemp("learnt")
    onnx = folder / "float32.onnx"
    network, card = load_detector(WEIGHTS)
    export_detector(network, card, onnx, calibration=Calibration(), scale=1.0)
    return Learnt(squares(folder, 4), WEIGHTS, onnx)
