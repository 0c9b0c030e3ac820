"""An ONNX file as a victim, for any name, shape, type and order of its input."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from unmask.fool.victim import Preprocessing, Victim
from unmask.models.session import OnnxClassifier
from unmask.runtime import sha256


# Every task of a worker receives the model again, and a worker serves one audit at a time.
@functools.lru_cache(maxsize=2)
def onnx_victim(
    path: str, content: bytes, threads: int, preprocessing: Preprocessing | None
) -> Victim:
    """Return an ONNX file as a black box that takes float32[b, c, h, w] in [0, 1].

    A batch of fixed size is padded, channels are moved last where the file has them there, values
    are cast (to 0..255 for uint8), and a flat input [b, values] gets the image's values in order;
    see OnnxClassifier.

    Args:
        path: its name in messages.
        content: the file.
        threads: of ONNX Runtime.
        preprocessing: that the model expects of pixels in [0, 1].

    Raises:
        UserError: when ONNX Runtime can't read it, or its input isn't one batch of images.
    """
    graph = OnnxClassifier.of(content, threads=threads, name=path, folder=Path(path).parent)
    scale = 255 if graph.dtype is np.uint8 else 1

    def run(pixels: Tensor) -> Any:
        return graph.answer(scale * pixels.detach().cpu().numpy())

    return Victim(
        run,
        differentiable=False,
        name=path,
        kind="ONNX",
        class_names=graph.class_names,
        input_shape=graph.input_shape,
        identity=sha256(content),
        made_from=content,
        preprocessing=preprocessing,
    )
