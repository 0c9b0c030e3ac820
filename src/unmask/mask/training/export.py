"""The detector as an ONNX file, in floating point or 8 bits, checked against its source."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from unmask.errors import UserError
from unmask.mask.evaluate.matching import matched
from unmask.mask.runtime.calibration import Calibration
from unmask.mask.runtime.decode import STRIDE
from unmask.mask.runtime.detector import MaskDetector
from unmask.mask.runtime.views import MULTIPLE, stretched, usual_inputs
from unmask.mask.training.network import FaceNetwork, Scored
from unmask.models.card import ModelCard
from unmask.models.onnx_file import check_difference, check_exporter, exported
from unmask.models.session import open_session
from unmask.runtime import write_atomically

VERSION = 1
# Batches and sizes that differ from those the graph is traced with.
_CHECKED = ((1, 96, 160), (2, 224, 128), (1, 320, 416))


def export_detector(
    network: FaceNetwork,
    card: ModelCard,
    path: Path,
    *,
    calibration: Calibration,
    scale: float,
) -> float:
    """Write the detector as ONNX, checked against PyTorch.

    The graph takes "pixels", float32[b, 3, h, w] in [0, 1] with h and w any multiples of 32, to
    "scores", float32[b, k, h/4, w/4], and "sides", float32[b, 4, h/4, w/4], as Scored does. The
    metadata are JSON: class_names, stride, version, scale, thresholds and calibration.

    Args:
        network: the detector, which is set to eval mode.
        card: its class names are written.
        path: of the ONNX file.
        calibration: of its scores.
        scale: pixels that the network should see for one of the image.

    Returns:
        The largest difference from PyTorch over random images of three sizes: of the scores at all
        peaks, and of all sides relative to themselves.

    Raises:
        UserError: the difference exceeds TOLERANCE, and nothing is written; or onnx, onnxscript or
            onnxruntime isn't installed.
    """
    check_exporter()
    scored = Scored(network.eval())
    metadata = {
        "class_names": list(card.class_names),
        "stride": STRIDE,
        "version": VERSION,
        "scale": scale,
        **calibration.as_metadata(),
    }
    rows, columns = (MULTIPLE * torch.export.Dim(name, min=1, max=256) for name in ("r", "c"))
    content = exported(
        scored,
        torch.rand(2, 3, 5 * MULTIPLE, 4 * MULTIPLE),
        outputs=["scores", "sides"],
        dynamic={0: torch.export.Dim("batch", min=1), 2: rows, 3: columns},
        metadata=metadata,
    )
    session = open_session(content)
    generator = torch.Generator().manual_seed(0)
    difference = 0.0
    for batch, height, width in _CHECKED:
        pixels = torch.rand((batch, 3, height, width), generator=generator)
        with torch.no_grad():
            scores, sides = (t.numpy() for t in scored(pixels))
        theirs, their_sides = session.run(["scores", "sides"], {"pixels": pixels.numpy()})
        # Where rounding decides which of two equal neighbours is the peak, both are right.
        both = (scores > 0) & (theirs > 0)
        reach = np.abs(their_sides - sides) / np.maximum(sides, 1)
        difference = max(
            difference, float(np.abs(scores - theirs)[both].max(initial=0)), float(reach.max())
        )
        if not both.any():
            difference = np.inf
    check_difference(difference)
    with write_atomically(path) as file:
        file.write(content)
    return difference


# How many images set the ranges; more change little.
ENOUGH = 40
_LEAST_AGREEMENT = 0.9


@dataclass(frozen=True)
class Agreement:
    """How many faces one detector finds, and how many of these another finds with the same class.

    Args:
        faces: what the first finds.
        again: what the second finds too.
    """

    faces: int
    again: int

    @property
    def part(self) -> float:
        """The fraction that is found again, 1 where there is none to find."""
        return self.again / self.faces if self.faces else 1.0


def quantize_detector(
    source: Path, path: Path, setting: Iterable[Image.Image], checking: Iterable[Image.Image]
) -> Agreement:
    """Write an exported detector with 8-bit weights and features, and check it.

    Each channel of a filter has its own scale. The first filters are too few to gain by it, and the
    last ones make the outputs; both stay in floating point. Weights have 7 bits, so that processors
    that add two products in 16 bits never saturate and all give the same results. Affine
    quantisation after Jacob et al., 2018, arXiv:1712.05877. Call check_exporter first.

    Args:
        source: what export_detector wrote.
        path: of the new ONNX file.
        setting: one or more RGB images of the kind that it will see, by which the range of each
            feature is set.
        checking: others, in which its detections are compared with the source's.

    Returns:
        The agreement of both on the images of checking.

    Raises:
        UserError: fewer than nine faces in ten are found again, and nothing is written; or setting
            is empty.
    """
    floating = MaskDetector.load(source)
    inputs = (
        x for picture in setting for x in usual_inputs(stretched(picture), floating.facts.scale)
    )
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "quantized.onnx"
        first = next(inputs, None)
        if first is None:
            raise UserError(
                "there is no image to set the ranges of 8 bits by",
                do="give a few that it will see",
            )
        _quantize(source, made, itertools.chain([first], inputs))
        agreement = _agreement(floating, MaskDetector.load(made), checking)
        if agreement.part < _LEAST_AGREEMENT:
            raise UserError(
                "the detector in 8 bits finds too few faces again, so nothing was written",
                got=f"{agreement.again} of {agreement.faces}",
                do="give more images of the kind that it will see, with faces in them",
            )
        with write_atomically(path) as file:
            file.write(made.read_bytes())
    return agreement


def recalibrated(source: Path, path: Path, calibration: Calibration) -> None:
    """Write an exported detector again with another calibration; its network stays as it is.

    Args:
        source: an ONNX file of export_detector or quantize_detector.
        path: of the new file.
        calibration: replaces the old one.
    """
    import onnx

    model = onnx.load(source)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    metadata |= {key: json.dumps(value) for key, value in calibration.as_metadata().items()}
    onnx.helper.set_model_props(model, metadata)
    with write_atomically(path) as file:
        file.write(model.SerializeToString())


def _agreement(
    one: MaskDetector, other: MaskDetector, pictures: Iterable[Image.Image]
) -> Agreement:
    faces = again = 0
    for picture in pictures:
        found, theirs = one.detect(picture), other.detect(picture)
        face_of = matched(found.boxes, theirs.boxes, theirs.scores)
        same = np.flatnonzero(face_of >= 0)
        faces += len(found)
        again += int((found.labels[face_of[same]] == theirs.labels[same]).sum())
    return Agreement(faces, again)


def _quantize(source: Path, path: Path, inputs: Iterator[NDArray[np.float32]]) -> None:
    import onnx
    from onnxruntime import quantization  # type: ignore[import-untyped]

    prepared = path.with_name("prepared.onnx")
    quantization.quant_pre_process(source, prepared, skip_symbolic_shape=True)
    quantization.quantize_static(
        prepared,
        path,
        _Inputs(inputs),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Relu", "Concat", "MaxPool", "Add", "Resize"],
        nodes_to_exclude=_outermost(onnx.load(prepared)),
        per_channel=True,
        reduce_range=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )


class _Inputs:
    """The network's inputs, one at a time, by ONNX Runtime's interface for calibration data."""

    def __init__(self, inputs: Iterator[NDArray[np.float32]]) -> None:
        self._inputs = inputs

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        pixels = next(self._inputs, None)
        return None if pixels is None else {"pixels": pixels}


def _outermost(model: Any) -> list[str]:
    """Return the names of the first convolution, and of those that no nonlinearity follows."""
    bent = {name for node in model.graph.node if node.op_type == "Relu" for name in node.input}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    last = [node.name for node in convolutions if node.output[0] not in bent]
    return [convolutions[0].name, *last]
