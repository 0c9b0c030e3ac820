"""The detector as an ONNX file, checked against PyTorch."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from unmask.errors import UserError
from unmask.mask.calibration import Calibration
from unmask.mask.decode import STRIDE
from unmask.mask.network import MULTIPLE, FaceNetwork, Scored
from unmask.mask.stored import DetectorCard
from unmask.runtime import write_atomically

TOLERANCE = 1e-3
VERSION = 1
# Other than those the graph is traced with.
_CHECKED = ((1, 96, 160), (2, 224, 128), (1, 320, 416))


def export_detector(
    network: FaceNetwork,
    card: DetectorCard,
    path: Path,
    *,
    calibration: Calibration,
    scale: float,
) -> float:
    """Write the detector as ONNX; return the largest difference of its scores from PyTorch's.

    The graph takes "pixels", float32[b, 3, h, w] in [0, 1] with h and w any multiples of 32, to
    "scores", float32[b, k, h/4, w/4], and "sides", float32[b, 4, h/4, w/4], as Scored does. The
    metadata are JSON: class_names, stride, version, scale (pixels the network should see for one of
    the picture), thresholds and calibration. The difference is over random pictures of three sizes;
    it is of what is said of every cell, peak or not. A file that differs by more than TOLERANCE is
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
    scored = Scored(network.eval())
    metadata = {
        "class_names": list(card.class_names),
        "stride": STRIDE,
        "version": VERSION,
        "scale": scale,
        **calibration.as_metadata(),
    }
    content = _onnx(scored, {k: json.dumps(v) for k, v in metadata.items()})
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
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
    if not difference <= TOLERANCE:
        raise UserError(
            "ONNX Runtime and PyTorch disagree about this network, so nothing was written",
            got=f"a difference of {difference:.2g}",
            do="try another version of onnxscript",
        )
    with write_atomically(path) as file:
        file.write(content)
    return difference


def _onnx(scored: Scored, metadata: dict[str, str]) -> bytes:
    # The exporter logs and warns about its own workings, which no user can act on.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    rows, columns = (MULTIPLE * torch.export.Dim(name, min=1, max=256) for name in ("r", "c"))
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            scored,
            (torch.rand(2, 3, 5 * MULTIPLE, 4 * MULTIPLE),),
            input_names=["pixels"],
            output_names=["scores", "sides"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1), 2: rows, 3: columns},),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.model.metadata_props.update(metadata)
        file = Path(folder) / "detector.onnx"
        program.save(file)
        return file.read_bytes()
