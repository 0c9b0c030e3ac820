"""What a detector finds in annotated pictures, uncalibrated, the way the shipped one would."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from unmask.data.annotated import AnnotatedPictures
from unmask.data.boxes import clip
from unmask.mask.augmentation import Picture
from unmask.mask.decode import NMS_IOU, decode
from unmask.mask.detections import Detections
from unmask.mask.inputs import network_input
from unmask.mask.network import FaceNetwork, Scored
from unmask.mask.tiling import View
from unmask.models.onnx_file import cpu_session

# Lower than any threshold in use, since average precision goes through all of them.
FLOOR = 0.01

Floats = NDArray[np.float32]
# float32[1, 3, h, w] in [0, 1] to the maps of the picture, as decode takes them.
Look = Callable[[Floats], tuple[Floats, Floats]]


def by_network(network: FaceNetwork) -> Look:
    """Return what looks with a network in PyTorch."""
    scored = Scored(network.eval())

    @torch.inference_mode()
    def look(pixels: Floats) -> tuple[Floats, Floats]:
        given = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)
        scores, sides = scored(given)
        return scores[0].numpy(), sides[0].numpy()

    return look


def by_onnx(content: bytes) -> Look:
    """Return what looks with an exported network in ONNX Runtime."""
    session = cpu_session(content, threads=torch.get_num_threads())

    def look(pixels: Floats) -> tuple[Floats, Floats]:
        scores, sides = session.run(["scores", "sides"], {"pixels": pixels})
        return scores[0], sides[0]

    return look


def found_in(look: Look, annotated: AnnotatedPictures, *, scale: float) -> list[Detections]:
    """Return uncalibrated detections of every picture, in order, each seen whole.

    scale: pixels the network sees for one of the picture.
    """
    return [
        _found(look, annotated.pixels(i), annotated.class_names, scale)
        for i in range(len(annotated))
    ]


def _found(look: Look, picture: Picture, class_names: tuple[str, ...], scale: float) -> Detections:
    height, width = picture.shape[:2]
    wide, high = (max(1, round(side * scale)) for side in (width, height))
    view = View(0, 0, width, height, wide, high)
    scores, sides = look(network_input(Image.fromarray(picture), view))
    seen, parts = decode(scores, sides, threshold=FLOOR, nms_iou=NMS_IOU)
    boxes = clip(view.to_picture(seen), width, height)
    good = (boxes[:, 2:] > boxes[:, :2]).all(1)
    boxes, parts = boxes[good], parts[good]
    score = np.minimum(parts.sum(1), 1)
    order = np.argsort(-score, kind="stable")
    probabilities = parts / np.maximum(parts.sum(1, keepdims=True), 1e-12)
    return Detections(
        boxes[order],
        probabilities.argmax(1).astype(np.int64)[order],
        score[order].astype(np.float32),
        probabilities[order].astype(np.float32),
        class_names,
        width,
        height,
    )
