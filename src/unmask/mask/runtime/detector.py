"""The detector as it runs anywhere: an ONNX file and NumPy, without PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unmask.data.detection.boxes import Boxes, clip, nms
from unmask.data.listing import read_file
from unmask.data.picture import as_opened, open_picture
from unmask.errors import UserError
from unmask.mask.runtime.calibration import Calibration, DetectorFacts
from unmask.mask.runtime.decode import decode
from unmask.mask.runtime.detections import Detections
from unmask.mask.runtime.views import View, network_input, stretched, usual_scale, views
from unmask.models.card import ModelCard
from unmask.models.session import open_session
from unmask.runtime import cpu_threads, require_regular

WEIGHTS = Path(__file__).parents[1] / "weights" / "detector.onnx"
# Threads that spin while they wait take the cores from whatever else runs, so they spin only for
# about as long as the next layer takes to come.
THREADS = {"session.intra_op.allow_spinning": "1", "session.intra_op.spin_duration_us": "50"}
# Enlarging an image further adds no information.
_MOST_ENLARGED = 4.0
# Of all views of an image: more is noise, and comparing every pair of boxes would take minutes.
_MOST_BOXES = 5000

Pixels = NDArray[np.uint8]
Progress = Callable[[int, int], None]
Source = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | Pixels


class Session(Protocol):
    """The interface of what runs a detector's network, as ONNX Runtime's sessions do."""

    def run(self, outputs: list[str], inputs: dict[str, NDArray[np.float32]], /) -> Any:
        """Return the named outputs, "scores" and "sides", for the input "pixels".

        Args:
            outputs: their names.
            inputs: "pixels", float32[b, 3, h, w] in [0, 1], see MaskDetector.load.
        """
        ...


class MaskDetector:
    """Finds faces, and predicts what each of them wears.

    Made by load, or from any session that runs a network. One detector may be used from several
    threads.

    Args:
        session: what runs the network.
        facts: class names, scale and calibration.

    Example:
        >>> detector = unmask.MaskDetector.load()
        >>> len(detector.detect(photo).boxes)
        1
    """

    def __init__(self, session: Session, facts: DetectorFacts) -> None:
        self._session = session
        self.facts = facts

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes by their dataset's names, in the order of the probabilities."""
        return self.facts.class_names

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> MaskDetector:
        """Return the detector in an ONNX file, or the one that ships, checked against its card.

        The graph takes "pixels", float32[b, 3, h, w] in [0, 1] with h and w multiples of 32, to
        "scores", float32[b, k, h/4, w/4], zero except at peaks, and "sides", float32[b, 4, h/4,
        w/4]. Its metadata are those that DetectorFacts.parse reads.

        Args:
            path: of the ONNX file; None for the detector that ships.

        Raises:
            UserError: the file is not there, is no ONNX file, or is no such detector.
        """
        file = WEIGHTS if path is None else Path(path)
        require_regular(file)
        if not file.is_file():
            if path is None:
                raise UserError(
                    "this installation holds no detector",
                    do="train one with unmask mask train, or name an ONNX file",
                )
            raise UserError("there is no such detector", got=file, do="name an ONNX file")
        content: bytes = read_file(file)
        if path is None:
            ModelCard.read(file.with_suffix(".json")).check_onnx(content, file)
        try:
            session = open_session(content, threads=_threads(), name=str(file), entries=THREADS)
            facts = _facts(session)
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise UserError(
                f"{file} is no detector of faces and masks",
                got=str(error) or type(error).__name__,
                do="make one with unmask mask export",
            ) from error
        return cls(session, facts)

    def uncalibrated(self) -> MaskDetector:
        """Return the same detector without a calibration: its scores are the network's."""
        plain = Calibration(nms_iou=self.facts.calibration.nms_iou)
        return MaskDetector(self._session, replace(self.facts, calibration=plain))

    def with_classes(self, class_names: tuple[str, ...]) -> MaskDetector:
        """Return the same detector with other names for its classes.

        Args:
            class_names: as many as it has.

        Raises:
            UserError: there are more or fewer.
        """
        if len(class_names) != len(self.class_names):
            raise UserError(f"the detector has {len(self.class_names)} classes", got=class_names)
        return MaskDetector(self._session, replace(self.facts, class_names=class_names))

    @overload
    def detect(
        self,
        image: Source,
        *,
        threshold: float | None = None,
        smallest: float = 10.0,
        progress: Progress | None = None,
    ) -> Detections: ...

    @overload
    def detect(
        self,
        image: list[Source] | tuple[Source, ...],
        *,
        threshold: float | None = None,
        smallest: float = 10.0,
        progress: Progress | None = None,
    ) -> list[Detections]: ...

    def detect(
        self,
        image: Source | list[Source] | tuple[Source, ...],
        *,
        threshold: float | None = None,
        smallest: float = 10.0,
        progress: Progress | None = None,
    ) -> Detections | list[Detections]:
        """Return the faces in an image, or for a list of images those in each.

        Args:
            image: a path, a file's bytes, a file object, a Pillow image in any mode, uint8[h, w, 3]
                in RGB, or a list of such. Large images are processed in tiles.
            threshold: the calibrated score in (0, 1] from which on a box counts as a face; by
                default that in the detector's metadata.
            smallest: side in pixels of the smallest faces to find. Below 10 an image is enlarged;
                above 10 it is scaled down, which is faster.
            progress: called after every view of an image with the number done and the number of
                all.

        Raises:
            UserError: when there is no such image or a number is out of range.
        """
        if isinstance(image, (list, tuple)):
            options: dict[str, Any] = {"threshold": threshold, "smallest": smallest}
            return [self.detect(one, **options, progress=progress) for one in image]
        if threshold is not None and not 0 < threshold <= 1:
            raise UserError("the threshold must lie in 0 to 1", got=threshold, do="try 0.5")
        if not 1 <= smallest < float("inf"):
            raise UserError("the smallest face has one pixel or more", got=smallest, do="try 10")
        opened = _opened(image)
        if self.facts.stretch:
            opened = stretched(opened)
        calibration = self.facts.calibration
        least = calibration.face if threshold is None else threshold
        usual = usual_scale(opened.size, self.facts.scale)
        finest = min(_MOST_ENLARGED, usual * 10.0 / smallest)
        boxes, scores = self._seen(opened, finest, calibration.uncalibrated(least), progress)
        return calibration.judge(
            boxes,
            scores,
            (boxes[:, 2:] - boxes[:, :2]).mean(1) * finest,
            class_names=self.class_names,
            size=opened.size,
            threshold=least,
        )

    def _seen(
        self, image: Image.Image, finest: float, threshold: float, progress: Progress | None
    ) -> tuple[Boxes, NDArray[np.float32]]:
        """Return what is detected in all views, each face once, the highest score first.

        threshold: the least of the network's own scores.
        """
        parts = []
        wanted = views(image.width, image.height, finest)
        for view in wanted:
            parts.append(self._view_seen(image, view, threshold))
            if progress:
                progress(len(parts), len(wanted))
        boxes, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
        if len(boxes) > _MOST_BOXES:
            best = np.argsort(-scores.sum(1), kind="stable")[:_MOST_BOXES]
            boxes, scores = boxes[best], scores[best]
        kept = nms(boxes, scores.sum(1), self.facts.calibration.nms_iou)
        return boxes[kept], scores[kept]

    def _view_seen(
        self, image: Image.Image, view: View, threshold: float
    ) -> tuple[Boxes, NDArray[np.float32]]:
        maps = self._session.run(["scores", "sides"], {"pixels": network_input(image, view)})
        seen, scores = decode(
            maps[0][0], maps[1][0], threshold=threshold, nms_iou=self.facts.calibration.nms_iou
        )
        boxes = clip(view.to_image(seen), image.width, image.height)
        good = view.whole(boxes, image.width, image.height)
        good &= (boxes[:, 2:] > boxes[:, :2]).all(1)
        good &= (seen[:, 2:] - seen[:, :2]).mean(1) >= view.least
        return boxes[good], scores[good]


def _facts(session: Any) -> DetectorFacts:
    """Return what a file's metadata state; raise ValueError where its graph isn't a detector's."""
    inputs = {given.name: given for given in session.get_inputs()}
    outputs = {made.name: made for made in session.get_outputs()}
    if list(inputs) != ["pixels"] or not {"scores", "sides"} <= set(outputs):
        raise ValueError(f"it takes {list(inputs)} to {sorted(outputs)}")
    facts = DetectorFacts.parse(session.get_modelmeta().custom_metadata_map)
    for tensor, channels in (
        (inputs["pixels"], 3),
        (outputs["scores"], len(facts.class_names)),
        (outputs["sides"], 4),
    ):
        shape = tensor.shape
        known = shape[1] if len(shape) == 4 and isinstance(shape[1], int) else channels
        if tensor.type != "tensor(float)" or len(shape) not in (0, 4) or known != channels:
            raise ValueError(
                f"{tensor.name} is {tensor.type}{shape}, where {channels} channels are needed"
            )
    return facts


def _threads() -> int:
    """Return how many threads to use: OMP_NUM_THREADS, or one a core, and never more than that."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(asked), cpu_threads()) if asked.isdigit() and int(asked) else cpu_threads()


def _opened(image: Source) -> Image.Image:
    """Return an image as open_picture would read its file: upright, in 8 bits, RGB."""
    if isinstance(image, Image.Image):
        return as_opened(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise UserError(
                "an array must be uint8[height, width, 3] in red, green, blue",
                got=f"{image.dtype}{list(image.shape)}",
            )
        return Image.fromarray(np.ascontiguousarray(image))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return open_picture(bytes(image))
    if hasattr(image, "read"):
        content = image.read()
        if not isinstance(content, bytes):
            raise UserError("a file object must be open for bytes", do='open it with mode "rb"')
        return open_picture(content)
    if not isinstance(image, (str, os.PathLike)):
        raise UserError(
            "an image is a path, bytes, a file object, an image of Pillow's or an array",
            got=type(image).__name__,
            do="of several give a list",
        )
    return open_picture(read_file(Path(image)))
