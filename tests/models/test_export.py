"""ONNX files against PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from unmask.errors import UserError
from unmask.models import export
from unmask.models.classifier import Classifier

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def model() -> Classifier:
    return Classifier.create(
        "whitened_cnn",
        {"widths": [8, 8, 8]},
        class_names=("a", "b", "ü"),
        input_shape=(3, 16, 16),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.2, 0.3),
        seed=0,
    ).eval()


@pytest.mark.slow
def test_any_batch_gives_pytorchs_logits(model: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    assert export.export_onnx(model, path) < 1e-5
    session = onnxruntime.InferenceSession(path)
    for count in (1, 2, 7):
        pixels = torch.rand(count, 3, 16, 16)
        (logits,) = session.run(["logits"], {"pixels": pixels.numpy()})
        np.testing.assert_allclose(logits, model(pixels).detach(), atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == ["a", "b", "ü"]
    assert json.loads(metadata["card"])["mean"] == [0.4, 0.5, 0.6]
    # The exporter would write down where each node comes from, by the full path of the code.
    assert b".py" not in path.read_bytes()


@pytest.mark.slow
def test_a_file_that_disagrees_is_not_written(
    model: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Classifier(model.network, model.card).eval()
    other.mean = other.mean + 0.3
    make = export.exported
    monkeypatch.setattr(export, "exported", lambda _, pixels, **how: make(other, pixels, **how))
    with pytest.raises(UserError, match="disagree"):
        export.export_onnx(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
