"""Classifiers as ONNX files, checked against PyTorch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from unmask.models.classifier import Classifier
from unmask.models.onnx_file import check_difference, check_exporter, cpu_session, exported
from unmask.runtime import write_atomically


def export_onnx(classifier: Classifier, path: Path) -> float:
    """Write the classifier as ONNX; return the largest difference of its logits from PyTorch's.

    The graph takes "pixels", float32[batch, c, h, w] in [0, 1], to "logits", float32[batch,
    classes], for any batch; normalisation is inside, and the model card is the metadata "card",
    with "class_names" beside it as a JSON list. The difference is over random pictures in batches
    of 1 and 5 in ONNX Runtime; a file that differs by more than TOLERANCE of the largest logit is
    not written. Raises UserError then, and when onnx, onnxscript or onnxruntime isn't installed.
    """
    check_exporter()
    classifier = classifier.eval()
    pictures = torch.rand(
        (5, *classifier.card.input_shape), generator=torch.Generator().manual_seed(0)
    )
    content = exported(
        classifier,
        pictures,
        outputs=["logits"],
        dynamic={0: torch.export.Dim("batch", min=1)},
        metadata={"card": asdict(classifier.card), "class_names": list(classifier.class_names)},
    )
    session = cpu_session(content)
    difference, largest = 0.0, 1.0
    for batch in (pictures[:1], pictures):
        with torch.no_grad():
            ours = classifier(batch).numpy()
        theirs = session.run(["logits"], {"pixels": batch.numpy()})[0]
        difference = max(difference, float(np.abs(theirs - ours).max()))
        largest = max(largest, float(np.abs(ours).max()))
    check_difference(difference, largest)
    with write_atomically(path) as file:
        file.write(content)
    return difference
