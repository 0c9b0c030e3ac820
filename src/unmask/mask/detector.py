"""The detector as it runs anywhere: an ONNX file, NumPy and nothing of PyTorch."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unmask.data.boxes import clip, nms
from unmask.data.listing import read_file
from unmask.data.picture import open_picture
from unmask.errors import UserError
from unmask.mask.decode import decode
from unmask.mask.detections import NOT_JUDGED, Detections
from unmask.mask.tiling import GREY, View, views
from unmask.runtime import cpu_threads

WEIGHTS = Path(__file__).parent / "weights" / "detector.onnx"
# Sides of what the network sees are whole multiples of this; what is lacking is grey.
MULTIPLE = 32
# Enlarged beyond this, a picture holds no more than before.
_MOST_ENLARGED = 4.0

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Facts:
    """What an ONNX file says of itself.

    face: score from which on a box counts as a face. nms_iou: overlap over which two boxes are one
    face. certain: probability below which the class is not told. smallest: mean side of a box, in
    pixels that the network sees, below which it is not told either. slope, offset: of the logit of
    the face's score, and temperature: of the logits of the classes, which calibrate them. scale:
    pixels the network should see for one of the picture.
    """

    class_names: tuple[str, ...]
    face: float = 0.3
    nms_iou: float = 0.5
    certain: float = 0.5
    smallest: float = 0.0
    slope: float = 1.0
    offset: float = 0.0
    temperature: float = 1.0
    scale: float = 1.0

    @classmethod
    def parse(cls, metadata: dict[str, str]) -> Facts:
        """Return the facts in "class_names", "thresholds", "calibration" and "scale", all JSON.

        Raises KeyError, TypeError or ValueError when they are not there or no such facts.
        """
        names = tuple(str(name) for name in json.loads(metadata["class_names"]))
        numbers = {
            **json.loads(metadata.get("thresholds", "{}")),
            **json.loads(metadata.get("calibration", "{}")),
            "scale": json.loads(metadata.get("scale", "1")),
        }
        known = {
            key: float(value) for key, value in numbers.items() if key in cls.__dataclass_fields__
        }
        if not names:
            raise ValueError("no class names")
        return cls(names, **known)


class MaskDetector:
    """Finds faces and says what each of them wears.

    Made by load. One detector may be used from several threads.
    """

    def __init__(self, session: Any, facts: Facts) -> None:
        self._session = session
        self.facts = facts

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes by their dataset's names, in the order of the probabilities."""
        return self.facts.class_names

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> MaskDetector:
        """Return the detector in an ONNX file, or the one that ships.

        Raises UserError when the file is not there, is no ONNX file, or is no such detector: it
        takes "pixels", float32[b, 3, h, w] in [0, 1] with h and w multiples of 32, to "scores",
        float32[b, k, h/4, w/4], zero but at peaks, and "sides", float32[b, 4, h/4, w/4], and holds
        the metadata that Facts.parse reads.
        """
        file = WEIGHTS if path is None else Path(path)
        if not file.is_file():
            if path is None:
                raise UserError(
                    "this installation holds no detector",
                    do="train one with unmask mask train, or name an ONNX file",
                )
            raise UserError("there is no such detector", got=file, do="name an ONNX file")
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cpu_threads()
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
            inputs = [given.name for given in session.get_inputs()]
            outputs = {made.name for made in session.get_outputs()}
            if inputs != ["pixels"] or not {"scores", "sides"} <= outputs:
                raise ValueError(f"it takes {inputs} to {sorted(outputs)}")
            facts = Facts.parse(session.get_modelmeta().custom_metadata_map)
        except Exception as error:  # ONNX Runtime has no common base for what it raises.
            raise UserError(
                f"{file} is no detector of faces and masks",
                got=str(error) or type(error).__name__,
                do="make one with unmask mask export",
            ) from error
        return cls(session, facts)

    def detect(
        self,
        image: str | os.PathLike[str] | Image.Image | Pixels,
        *,
        threshold: float | None = None,
        smallest: float = 10.0,
    ) -> Detections:
        """Return the faces in a picture: a file, a picture of Pillow's, or uint8[h, w, 3] in RGB.

        threshold: score in (0, 1] from which on a box counts as a face, the file's own by default.
        smallest: side in pixels of the smallest faces to find; with less a picture is enlarged and
        with more it is scaled down, which is as many times faster. Large pictures are seen in
        tiles. Raises UserError when there is no such picture or a number is out of range.
        """
        if threshold is not None and not 0 < threshold <= 1:
            raise UserError("the threshold must lie in 0 to 1", got=threshold, do="try 0.5")
        if not 1 <= smallest < float("inf"):
            raise UserError("the smallest face has one pixel or more", got=smallest, do="try 10")
        picture = _picture(image)
        width, height = picture.size
        face = self.facts.face if threshold is None else threshold
        finest = min(_MOST_ENLARGED, self.facts.scale * 10.0 / smallest)
        found = [self._seen(picture, view, face) for view in views(width, height, finest)]
        boxes, scores, sizes = (np.concatenate(part) for part in zip(*found, strict=True))
        kept = nms(boxes, scores.sum(1), self.facts.nms_iou)
        return self._judged(boxes[kept], scores[kept], sizes[kept], width, height)

    def _seen(
        self, picture: Image.Image, view: View, threshold: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Return boxes[n, 4], class scores[n, k] and mean sides[n], as the network saw them."""
        maps = self._session.run(["scores", "sides"], {"pixels": _network_input(picture, view)})
        seen, scores = decode(
            maps[0][0],
            maps[1][0],
            threshold=_uncalibrated(threshold, self.facts),
            nms_iou=self.facts.nms_iou,
        )
        boxes = clip(view.to_picture(seen), picture.width, picture.height)
        good = view.whole(boxes, picture.width, picture.height)
        good &= (boxes[:, 2:] > boxes[:, :2]).all(1)
        sides = (seen[:, 2:] - seen[:, :2]).mean(1)
        return boxes[good], scores[good], sides[good]

    def _judged(
        self,
        boxes: NDArray[np.float32],
        scores: NDArray[np.float32],
        sizes: NDArray[np.float32],
        width: int,
        height: int,
    ) -> Detections:
        facts = self.facts
        total = np.clip(scores.sum(1), 1e-6, 1 - 1e-6).astype(np.float64)
        face = _sigmoid(facts.slope * np.log(total / (1 - total)) + facts.offset)
        powers = np.maximum(scores, 1e-9).astype(np.float64) ** (1 / facts.temperature)
        probabilities = powers / powers.sum(1, keepdims=True)
        labels = probabilities.argmax(1).astype(np.int64)
        sure = (probabilities.max(1, initial=0) >= facts.certain) & (sizes >= facts.smallest)
        labels[~sure] = NOT_JUDGED
        return Detections(
            boxes.astype(np.float32),
            labels,
            face.astype(np.float32),
            probabilities.astype(np.float32),
            facts.class_names,
            width,
            height,
        )


def _uncalibrated(threshold: float, facts: Facts) -> float:
    """Return the network's own score that stands for a calibrated one."""
    if threshold >= 1:
        return 1.0
    logit = (np.log(threshold / (1 - threshold)) - facts.offset) / facts.slope
    return float(_sigmoid(logit))


def _sigmoid(logit: Any) -> Any:
    return 1 / (1 + np.exp(-logit))


def _picture(image: str | os.PathLike[str] | Image.Image | Pixels) -> Image.Image:
    if isinstance(image, Image.Image):
        return image if image.mode == "RGB" else image.convert("RGB")
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise UserError(
                "an array must be uint8[height, width, 3] in red, green, blue",
                got=f"{image.dtype}{list(image.shape)}",
            )
        return Image.fromarray(np.ascontiguousarray(image))
    return open_picture(read_file(Path(image)))


def _network_input(picture: Image.Image, view: View) -> NDArray[np.float32]:
    """Return the view as float32[1, 3, h, w] in [0, 1], h and w multiples of 32."""
    size, box = (view.width, view.height), (view.left, view.top, view.right, view.bottom)
    if size != (view.right - view.left, view.bottom - view.top):
        picture = picture.resize(size, Image.Resampling.BILINEAR, box, reducing_gap=3.0)
    elif size != picture.size:
        picture = picture.crop(box)
    height, width = (-(-side // MULTIPLE) * MULTIPLE for side in (view.height, view.width))
    pixels = np.full((1, 3, height, width), GREY / 255, np.float32)
    # Colour by colour: their bytes then lie in a row, which is twice as fast.
    for place, colour in zip(pixels[0], picture.split(), strict=True):
        np.multiply(np.asarray(colour), np.float32(1 / 255), out=place[: view.height, : view.width])
    return pixels
