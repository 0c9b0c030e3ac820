"""Classifiers as ONNX files, checked against PyTorch."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from unmask.errors import UserError
from unmask.models.classifier import Classifier
from unmask.runtime import write_atomically

TOLERANCE = 1e-3


def export_onnx(classifier: Classifier, path: Path) -> float:
    """Write the classifier as ONNX; return the largest difference of its logits from PyTorch's.

    The graph takes "pixels", float32[batch, c, h, w] in [0, 1], to "logits", float32[batch,
    classes], for any batch; normalisation is inside, and the model card is the metadata "card",
    with "class_names" beside it as a JSON list. The difference is over random pictures in batches
    of 1 and 5 in ONNX Runtime; a file that differs by more than TOLERANCE of the largest logit is
    not written. Raises UserError then, and when onnx, onnxscript or onnxruntime isn't installed.
    """
    try:
        import onnxruntime  # type: ignore[import-untyped]
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            "exporting needs onnx, onnxscript and onnxruntime",
            got=str(error),
            do="pip install 'unmask[export]'",
        ) from error
    classifier = classifier.eval()
    pictures = torch.rand(
        (5, *classifier.card.input_shape), generator=torch.Generator().manual_seed(0)
    )
    content = _onnx(classifier, pictures)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    difference, largest = 0.0, 1.0
    for batch in (pictures[:1], pictures):
        with torch.no_grad():
            ours = classifier(batch).numpy()
        theirs = session.run(["logits"], {"pixels": batch.numpy()})[0]
        difference = max(difference, float(np.abs(theirs - ours).max()))
        largest = max(largest, float(np.abs(ours).max()))
    if not difference <= TOLERANCE * largest:
        raise UserError(
            "ONNX Runtime and PyTorch disagree about this network, so nothing was written",
            got=f"a difference of {difference:.2g} between logits up to {largest:.2g}",
            do="try another version of onnxscript",
        )
    with write_atomically(path) as file:
        file.write(content)
    return difference


def _onnx(classifier: Classifier, pictures: torch.Tensor) -> bytes:
    # The exporter logs and warns about its own workings, which no user can act on.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            classifier,
            (pictures,),
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.model.metadata_props["card"] = json.dumps(asdict(classifier.card))
        program.model.metadata_props["class_names"] = json.dumps(list(classifier.class_names))
        file = Path(folder) / "model.onnx"
        program.save(file)
        return file.read_bytes()
