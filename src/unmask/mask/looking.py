"""What a network in training finds in annotated pictures, the way the shipped detector would."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unmask.data.annotated import AnnotatedPictures
from unmask.data.boxes import clip
from unmask.mask.augmentation import Picture
from unmask.mask.decode import NMS_IOU, decode
from unmask.mask.detections import Detections
from unmask.mask.network import MULTIPLE, FaceNetwork, dense, peaks
from unmask.mask.tiling import GREY

# Lower than any threshold in use, since average precision goes through all of them.
FLOOR = 0.01


def found_in(
    network: FaceNetwork, annotated: AnnotatedPictures, *, scale: float, flip: bool = False
) -> list[Detections]:
    """Return uncalibrated detections of every picture, in order, each seen whole.

    scale: pixels the network sees for one of the picture. flip: whether what it says of the picture
    and of its mirror image is averaged.
    """
    return [
        _found(network, annotated.pixels(i), annotated.class_names, scale, flip)
        for i in range(len(annotated))
    ]


@torch.inference_mode()
def _found(
    network: FaceNetwork, picture: Picture, class_names: tuple[str, ...], scale: float, flip: bool
) -> Detections:
    height, width = picture.shape[:2]
    pixels, across, down = _network_input(picture, scale)
    said = dense(network, pixels)
    if flip:
        mirrored = tuple(t.flip(-1) for t in dense(network, pixels.flip(-1)))
        # Left and right change places with the picture.
        mirrored = *mirrored[:2], mirrored[2][:, [2, 1, 0, 3]]
        said = tuple((a + b) / 2 for a, b in zip(said, mirrored, strict=True))  # type: ignore[assignment]
    scores, sides = (t[0].numpy() for t in peaks(*said))
    seen, parts = decode(scores, sides, threshold=FLOOR, nms_iou=NMS_IOU)
    factors = np.array([across, down, across, down], np.float32)
    boxes = clip((seen / factors).astype(np.float32), width, height)
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


def _network_input(picture: Picture, scale: float) -> tuple[Tensor, float, float]:
    """Return float[1, 3, h, w], sides multiples of 32, and its pixels for one of the picture."""
    from PIL import Image

    height, width = picture.shape[:2]
    wide, high = (max(1, round(side * scale)) for side in (width, height))
    seen = np.asarray(Image.fromarray(picture).resize((wide, high), Image.Resampling.BILINEAR))
    pixels = torch.from_numpy(seen.copy()).permute(2, 0, 1)[None].float() / 255
    padding = (0, -wide % MULTIPLE, 0, -high % MULTIPLE)
    padded = functional.pad(pixels, padding, value=GREY / 255)
    return (
        padded.contiguous(memory_format=torch.channels_last),
        wide / width,
        high / height,
    )
