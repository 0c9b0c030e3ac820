"""Classifiers as ONNX files, checked against PyTorch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unmask.errors import UserError
from unmask.models.card import ModelCard
from unmask.models.classifier import Classifier
from unmask.models.load import card_of
from unmask.models.onnx_file import check_difference, check_exporter, exported
from unmask.models.preprocessing import Wrapped
from unmask.models.session import open_session
from unmask.runtime import write_atomically


def export_onnx(
    classifier: Classifier | Wrapped, path: Path, *, card: ModelCard | None = None
) -> float:
    """Write a model as ONNX, its preprocessing inside, checked against PyTorch.

    The graph takes "pixels", float32[batch, c, h, w] in [0, 1], to "logits", float32[batch,
    classes], for any batch; the model card is the metadata "card", with "class_names" beside it as
    a JSON list.

    Args:
        classifier: the model.
        path: of the .onnx file.
        card: of a model that has none of its own, see card_of.

    Returns:
        The largest difference of ONNX Runtime's logits from PyTorch's, over random images in
        batches of 1 and 5.

    Raises:
        UserError: they differ by more than TOLERANCE of the largest logit, and nothing is written;
            onnx, onnxscript or onnxruntime isn't installed; or the model is an ONNX file.
    """
    check_exporter()
    if isinstance(classifier, Wrapped) and not classifier.differentiable:
        raise UserError("the model is an ONNX file already", got=classifier.name, do="copy it")
    told = card_of(classifier) if card is None else card
    classifier = classifier.eval()
    pictures = torch.rand((5, *told.input_shape), generator=torch.Generator().manual_seed(0))
    metadata: dict[str, Any] = {"card": asdict(told)}
    if classifier.class_names is not None:
        # Numbers in place of unknown names would be read as names.
        metadata["class_names"] = list(classifier.class_names)
    content = exported(
        classifier,
        pictures,
        outputs=["logits"],
        dynamic={0: torch.export.Dim("batch", min=1)},
        metadata=metadata,
    )
    session = open_session(content)
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
