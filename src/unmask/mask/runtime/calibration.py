"""From the network's scores to calibrated confidences, and from these to the class of each face."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.detection.boxes import Boxes
from unmask.errors import UserError
from unmask.mask.runtime.decode import NMS_IOU, STRIDE
from unmask.mask.runtime.detections import NOT_JUDGED, Detections
from unmask.models.session import parse_class_names, parse_metadata

Floats = NDArray[np.float64]

# Mean side, in pixels that the network sees, from which on the size of a box no longer changes how
# likely it is to be a face.
FULL_SIDE = 16.0
MAX_SCALE = 64.0
# What files state about their format, and the only value there has been of each.
_FIXED = {"stride": STRIDE, "version": 1}
_CALIBRATING = ("slope", "offset", "side_slope", "temperature")


@dataclass(frozen=True)
class Calibration:
    """How scores become confidences, and from where on they count: what goes into the ONNX file.

    By default scores are taken as they are.

    Args:
        slope: of the logit of the score that it is a face, over 0.
        offset: of the same logistic function (see confidence).
        side_slope: of the logarithm of a small face's size, 0 or more.
        temperature: of the logits of the classes, over 0.
        face: the least calibrated score of a box that counts as a face, in (0, 1].
        certain: the least probability of a class that is reported, 0 to 1.
        smallest: the least mean side of a face that is judged, in pixels that the network sees.
        nms_iou: the IoU over which two boxes are one face, 0 to 1.

    Raises:
        UserError: when a number is not finite or out of its range.
    """

    slope: float = 1.0
    offset: float = 0.0
    side_slope: float = 0.0
    temperature: float = 1.0
    face: float = 0.3
    certain: float = 0.0
    smallest: float = 0.0
    nms_iou: float = NMS_IOU

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not math.isfinite(value):
                raise UserError(f"a calibration's {name} must be finite", got=value)
        for name in ("slope", "temperature", "face"):
            if not getattr(self, name) > 0:
                raise UserError(f"a calibration's {name} must be over 0", got=getattr(self, name))
        for name in ("face", "certain", "nms_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(
                    f"a calibration's {name} must lie in 0 to 1", got=getattr(self, name)
                )

    @classmethod
    def of(cls, numbers: dict[str, Any]) -> Calibration:
        """Return the calibration with these numbers; other names are ignored.

        Args:
            numbers: the fields by name; those left out keep their defaults.

        Raises:
            UserError: when a number is not finite or out of its range.
        """
        known = cls.__dataclass_fields__
        return cls(**{key: float(value) for key, value in numbers.items() if key in known})

    def as_metadata(self) -> dict[str, dict[str, float]]:
        """Return the "thresholds" and the "calibration" of the ONNX file's metadata."""
        values = asdict(self)
        return {
            "calibration": {k: v for k, v in values.items() if k in _CALIBRATING},
            "thresholds": {k: v for k, v in values.items() if k not in _CALIBRATING},
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)

    def confidence(
        self, scores: NDArray[np.floating[Any]], sides: NDArray[np.floating[Any]]
    ) -> Floats:
        """Return how likely boxes are faces, float64[n] in 0 to 1.

        It is a logistic function of the score's logit and the size (Platt, 1999; Küppers et al.,
        2020, arXiv:2004.13546).

        Args:
            scores: float[n], the network's, 0 to 1.
            sides: float[n], mean sides in pixels that the network saw; under FULL_SIDE their
                logarithm counts.
        """
        z = self.slope * logit(scores) + self.side_slope * smallness(sides) + self.offset
        return sigmoid(z)

    def uncalibrated(self, score: float) -> float:
        """Return the network's score that a large face needs to reach a calibrated score.

        Faces smaller than FULL_SIDE need a higher one.

        Args:
            score: the calibrated score, in (0, 1].

        Returns:
            The least of the network's scores that can reach it, in (0, 1].
        """
        if score >= 1:
            return 1.0
        return float(sigmoid((np.log(score / (1 - score)) - self.offset) / self.slope))

    def judge(
        self,
        boxes: Boxes,
        scores: NDArray[np.floating[Any]],
        sides: NDArray[np.floating[Any]],
        *,
        class_names: tuple[str, ...],
        size: tuple[int, int],
        threshold: float | None = None,
    ) -> Detections:
        """Return the boxes that count as faces, most confident first, with their classes.

        Args:
            boxes: float32[n, 4], xyxy in pixels of the image.
            scores: float[n, k], the network's, of the face times those of the classes.
            sides: float[n], mean sides of the boxes in pixels that the network saw.
            class_names: k names.
            size: width and height of the image in pixels.
            threshold: the least calibrated score that counts, face by default.
        """
        face = self.confidence(np.asarray(scores.sum(1), np.float64), sides)
        probabilities = tempered(scores, self.temperature)
        labels = probabilities.argmax(1).astype(np.int64)
        sure = (probabilities.max(1, initial=0) >= self.certain) & (sides >= self.smallest)
        labels[~sure] = NOT_JUDGED
        order = np.argsort(-face, kind="stable")
        order = order[face[order] >= (self.face if threshold is None else threshold)]
        return Detections(
            boxes[order].astype(np.float32),
            labels[order],
            face[order].astype(np.float32),
            probabilities[order].astype(np.float32),
            class_names,
            *size,
        )


@dataclass(frozen=True)
class DetectorFacts:
    """What the metadata of an ONNX file state.

    Args:
        class_names: in the order of the probabilities.
        scale: pixels that the network should see for one of a small image (see views.usual_scale).
        calibration: of its scores.
        stretch: whether the contrast of images with little of it is stretched first (see
            views.stretched).
    """

    class_names: tuple[str, ...]
    scale: float = 1.0
    calibration: Calibration = Calibration()
    stretch: bool = True

    @classmethod
    def parse(cls, metadata: dict[str, str]) -> DetectorFacts:
        """Return the facts in "class_names", "thresholds", "calibration", "scale" and "stretch".

        Args:
            metadata: JSON texts by name. Only "class_names" is required; "stride" and "version",
                where given, must have the values known here.

        Raises:
            ValueError: a fact is missing or malformed, in one line that names it.
        """
        if "class_names" not in metadata:
            raise ValueError("its metadata hold no class_names")
        numbers: dict[str, float] = {}
        for name in ("thresholds", "calibration"):
            values = _fact(metadata, name, "{}")
            if not isinstance(values, dict) or not all(map(_is_number, values.values())):
                raise ValueError(f"its {name} are no names and numbers")
            numbers |= values
        scale, stretch = _fact(metadata, "scale", "1"), _fact(metadata, "stretch", "true")
        if not (_is_number(scale) and 0 < scale <= MAX_SCALE):
            raise ValueError(f"its scale must be a number over 0, {MAX_SCALE:g} at most")
        if not isinstance(stretch, bool):
            raise ValueError("its stretch must be true or false")
        for name, wanted in _FIXED.items():
            got = _fact(metadata, name, json.dumps(wanted))
            if isinstance(got, bool) or got != wanted:
                raise ValueError(f"its {name} is {str(got)[:60]}, where {wanted} is known")
        try:
            names = parse_class_names(metadata["class_names"])
        except ValueError as error:
            raise ValueError(f"its class_names are {error}") from error
        return cls(names, float(scale), Calibration.of(numbers), stretch)


def _fact(metadata: dict[str, str], name: str, default: str) -> Any:
    try:
        return parse_metadata(metadata.get(name, default))
    except ValueError as error:
        raise ValueError(f"its {name} can't be read: {error}") from error


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9


def logit(scores: NDArray[np.floating[Any]]) -> Floats:
    """Return float64, log(s / (1 - s)), finite for scores of 0 and 1 too."""
    clear = np.clip(scores.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clear / (1 - clear)), np.float64)


def smallness(sides: NDArray[np.floating[Any]]) -> Floats:
    """Return float64, log(side / FULL_SIDE) for sides under FULL_SIDE and 0 for others.

    Args:
        sides: in pixels that the network sees, over 0.
    """
    return np.log(np.clip(sides.astype(np.float64), 1e-3, FULL_SIDE) / FULL_SIDE)


def sigmoid(logits: Any) -> Floats:
    """Return 1 / (1 + exp(-x))."""
    return np.asarray(1 / (1 + np.exp(-logits)), np.float64)


def tempered(rows: NDArray[np.floating[Any]], temperature: float) -> Floats:
    """Return probabilities under a temperature, float64[n, k] (Guo et al., 2017, arXiv:1706.04599).

    Args:
        rows: float[n, k], 0 or more, in proportion to the probabilities.
        temperature: what their logarithms are divided by, over 0.
    """
    powers = np.maximum(rows.astype(np.float64), 1e-9) ** (1 / temperature)
    divided: Floats = powers / powers.sum(1, keepdims=True)
    return divided
