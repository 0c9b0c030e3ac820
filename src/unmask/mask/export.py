"""The detector as an ONNX file, checked against PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from unmask.mask.calibration import Calibration
from unmask.mask.decode import STRIDE
from unmask.mask.inputs import MULTIPLE
from unmask.mask.network import FaceNetwork, Scored
from unmask.mask.stored import DetectorCard
from unmask.models.onnx_file import check_difference, check_exporter, cpu_session, exported
from unmask.runtime import write_atomically

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
    the picture), thresholds and calibration. The difference is over random pictures of three sizes,
    of the scores of every peak and of all sides, these in parts of themselves. A file that differs
    by more than TOLERANCE is not written. Raises UserError then, and when onnx, onnxscript or
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
    session = cpu_session(content)
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
