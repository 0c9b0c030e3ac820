"""What was found in one image: boxes of faces, and what each face wears."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UserError

# The label of a face that is too small or too blurred to be judged, and its name in files.
NOT_JUDGED = -1
NOT_JUDGED_NAME = "not_judged"


@dataclass(frozen=True, eq=False)
class Detections:
    """The faces of one image, most confident first.

    Args:
        boxes: float32[n, 4], xyxy in pixels, half-open, inside the image.
        labels: int64[n], index into class_names, or NOT_JUDGED.
        scores: float32[n] in [0, 1], the confidence that it is a face.
        probabilities: float32[n, k], calibrated, of the classes given that it is a face; each row
            adds up to 1.
        class_names: k names.
        width: of the image in pixels.
        height: of the image in pixels.

    Raises:
        UserError: when they don't agree.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    class_names: tuple[str, ...]
    width: int
    height: int

    def __post_init__(self) -> None:
        n, k = len(self.boxes), len(self.class_names)
        shapes: dict[str, tuple[NDArray[Any], tuple[int, ...]]] = {
            "boxes": (self.boxes, (n, 4)),
            "labels": (self.labels, (n,)),
            "scores": (self.scores, (n,)),
            "probabilities": (self.probabilities, (n, k)),
        }
        for name, (array, shape) in shapes.items():
            if array.shape != shape:
                raise UserError(f"{name} must have the shape {shape}", got=array.shape)
        if n and not (self.labels.min() >= NOT_JUDGED and self.labels.max() < k):
            raise UserError(f"labels must lie in -1 to {k - 1}", got=self.labels.tolist())
        if self.width < 1 or self.height < 1:
            raise UserError("an image has one pixel or more", got=f"{self.width} x {self.height}")

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def none(cls, class_names: tuple[str, ...], width: int, height: int) -> Detections:
        """Return the detections of an image without a face.

        Args:
            class_names: of the detector.
            width: of the image in pixels.
            height: of the image in pixels.
        """
        return cls(
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.int64),
            np.zeros(0, np.float32),
            np.zeros((0, len(class_names)), np.float32),
            class_names,
            width,
            height,
        )

    def at(self, rows: NDArray[np.int64]) -> Detections:
        """Return the faces at these rows, int64[m], in that order."""
        return replace(
            self,
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            scores=self.scores[rows],
            probabilities=self.probabilities[rows],
        )

    def names(self) -> list[str]:
        """Return the class name of every face, NOT_JUDGED_NAME for a face that wasn't judged."""
        known = (*self.class_names, NOT_JUDGED_NAME)
        return [known[label] for label in self.labels]

    def confidences(self) -> NDArray[np.float32]:
        """Return float32[n], the score times the probability of the class.

        Of faces that weren't judged it is the score alone.
        """
        likely = self.probabilities[np.arange(len(self)), np.maximum(self.labels, 0)]
        return np.where(self.labels == NOT_JUDGED, self.scores, self.scores * likely)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, from which from_dict restores the same bits."""
        faces = [
            {
                "box": box,
                "label": name,
                "score": score,
                "probabilities": dict(zip(self.class_names, row, strict=True)),
            }
            for box, name, score, row in zip(
                self.boxes.tolist(),
                self.names(),
                self.scores.tolist(),
                self.probabilities.tolist(),
                strict=True,
            )
        ]
        return {
            "width": self.width,
            "height": self.height,
            "class_names": list(self.class_names),
            "faces": faces,
        }

    @classmethod
    def from_dict(cls, entries: dict[str, Any]) -> Detections:
        """Return the detections that as_dict wrote.

        Args:
            entries: width, height, class_names and faces, as in as_dict.

        Raises:
            UserError: when something is missing or of another type.
        """
        try:
            names = tuple(str(name) for name in entries["class_names"])
            faces = entries["faces"]
            labels = [
                NOT_JUDGED if face["label"] == NOT_JUDGED_NAME else names.index(face["label"])
                for face in faces
            ]
            rows = [[face["probabilities"][name] for name in names] for face in faces]
            return cls(
                np.array([face["box"] for face in faces], np.float32).reshape(-1, 4),
                np.array(labels, np.int64),
                np.array([face["score"] for face in faces], np.float32),
                np.array(rows, np.float32).reshape(-1, len(names)),
                names,
                int(entries["width"]),
                int(entries["height"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                "these are no detections", got=f"{type(error).__name__}: {error}"
            ) from error

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Return the faces as COCO's results, one dictionary a face.

        The score is that of the face times the probability of its class, by which average precision
        should be measured; face_score is that of the face alone. Faces that were not judged have
        category 0 and the score of the face.

        Args:
            image_id: the number of the image, written into every entry.

        Returns:
            Dictionaries whose bbox is left, top, width, height in pixels; category 1 is the first
            class.
        """
        corners = self.boxes.astype(np.float64)
        sizes = corners[:, 2:] - corners[:, :2]
        return [
            {
                "image_id": image_id,
                "category_id": label + 1,
                "bbox": [*corner, *size],
                "area": size[0] * size[1],
                "score": score,
                "face_score": face_score,
            }
            for label, corner, size, score, face_score in zip(
                self.labels.tolist(),
                corners[:, :2].tolist(),
                sizes.tolist(),
                self.confidences().tolist(),
                self.scores.tolist(),
                strict=True,
            )
        ]

    def to_supervision(self) -> Any:
        """Return supervision.Detections; raise UserError when supervision is not installed."""
        try:
            import supervision  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise UserError(
                "to_supervision needs supervision", got=str(error), do="pip install supervision"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.confidences(),
            class_id=self.labels,
            data={"class_name": np.array(self.names(), dtype=str)},
        )
