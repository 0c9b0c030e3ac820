"""The detector as it runs anywhere: an ONNX file, NumPy and nothing of PyTorch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from unmask.data.boxes import clip, nms
from unmask.data.listing import read_file
from unmask.data.picture import open_picture
from unmask.errors import UserError
from unmask.mask.card import ShippedCard
from unmask.mask.decode import decode
from unmask.mask.detections import Detections
from unmask.mask.inputs import network_input, usual_scale
from unmask.mask.judging import Facts
from unmask.mask.mirroring import Seen, averaged
from unmask.mask.tiling import View, views
from unmask.runtime import cpu_threads

WEIGHTS = Path(__file__).parent / "weights" / "detector.onnx"
# Threads that wait for work by spinning take the cores from whatever else runs; for as long as the
# next layer takes to come it pays.
THREADS = {"session.intra_op.allow_spinning": "1", "session.intra_op.spin_duration_us": "50"}
# Enlarged beyond this, a picture holds no more than before.
_MOST_ENLARGED = 4.0
# Of the network's own scores: less is noise.
_FLOOR = 0.01

Pixels = NDArray[np.uint8]


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
        """Return the detector in an ONNX file, or the one that ships, checked against its card.

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

        content: bytes = read_file(file)
        if path is None:
            ShippedCard.read(file.with_suffix(".json")).check(content, file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cpu_threads()
        options.log_severity_level = 4
        for name, value in THREADS.items():
            options.add_session_config_entry(name, value)
        try:
            session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
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
        mirrored: bool = False,
    ) -> Detections:
        """Return the faces in a picture: a file, a picture of Pillow's, or uint8[h, w, 3] in RGB.

        threshold: score in (0, 1] from which on a box counts as a face, the file's own by default.
        smallest: side in pixels of the smallest faces to find; with less a picture is enlarged and
        with more it is scaled down, which is as many times faster. Large pictures are seen in
        tiles. mirrored: whether the picture's mirror image is looked at too and what is said of
        both averaged, which makes fewer mistakes and takes twice as long. Raises UserError when
        there is no such picture or a number is out of range.
        """
        if threshold is not None and not 0 < threshold <= 1:
            raise UserError("the threshold must lie in 0 to 1", got=threshold, do="try 0.5")
        if not 1 <= smallest < float("inf"):
            raise UserError("the smallest face has one pixel or more", got=smallest, do="try 10")
        picture = _picture(image)
        width, height = picture.size
        face = self.facts.face if threshold is None else threshold
        usual = usual_scale(picture, self.facts.scale)
        finest = min(_MOST_ENLARGED, usual * 10.0 / smallest)
        if mirrored:
            # A face that one look is less sure of may still be one by the mean of both.
            found = self._seen(picture, finest, _FLOOR)
            turned = self._seen(ImageOps.mirror(picture), finest, _FLOOR).mirrored(width)
            found = averaged(found, turned, self.facts.nms_iou)
            sure = found.scores.sum(1) >= self.facts.uncalibrated(face)
            found = found.at(np.flatnonzero(sure))
        else:
            found = self._seen(picture, finest, self.facts.uncalibrated(face))
        return self.facts.judge(*found, width, height, threshold=face)

    def _seen(self, picture: Image.Image, finest: float, threshold: float) -> Seen:
        """Return what is seen in all views, each face once, the surest first.

        threshold: the least of the network's own scores.
        """
        views_of = views(picture.width, picture.height, finest)
        seen = [self._view_seen(picture, view, threshold) for view in views_of]
        found = Seen(*(np.concatenate(part) for part in zip(*seen, strict=True)))
        return found.at(nms(found.boxes, found.scores.sum(1), self.facts.nms_iou))

    def _view_seen(self, picture: Image.Image, view: View, threshold: float) -> Seen:
        maps = self._session.run(["scores", "sides"], {"pixels": network_input(picture, view)})
        seen, scores = decode(
            maps[0][0], maps[1][0], threshold=threshold, nms_iou=self.facts.nms_iou
        )
        boxes = clip(view.to_picture(seen), picture.width, picture.height)
        good = view.whole(boxes, picture.width, picture.height)
        good &= (boxes[:, 2:] > boxes[:, :2]).all(1)
        sides = (seen[:, 2:] - seen[:, :2]).mean(1)
        good &= sides >= view.least
        return Seen(boxes, scores, sides).at(np.flatnonzero(good))


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
