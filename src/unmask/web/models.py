"""The models behind the page and the API, and the limit on their work at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from unmask.data.picture import decode_picture
from unmask.errors import UserError, unknown
from unmask.mask.runtime.detector import MaskDetector
from unmask.models.classifier import Classifier, shipped
from unmask.runtime import cpu_threads
from unmask.web.limits import Limits, RefusedError
from unmask.web.pictures import opened, require_fit

R = TypeVar("R")


class Models:
    """A mask detector and the classifiers that ship.

    Args:
        detector: an ONNX file, or None for the one that ships.
        limits: of requests.

    Raises:
        UserError: for a file that is no detector.
    """

    def __init__(self, detector: Path | None, limits: Limits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._classifiers: dict[str, Classifier] = {}
        self.detector: MaskDetector | None = None
        self.no_detector = ""
        try:
            self.detector = MaskDetector.load(detector)
        except UserError as error:
            if detector is not None:
                raise
            self.no_detector = f"{error}, with unmask serve --detector FILE"

    @cached_property
    def _places(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(cpu_threads())

    async def work(self, function: Callable[..., R], *arguments: Any) -> R:
        """Return the result of a function that runs in a thread, once a core is free for it.

        Args:
            function: runs to its end once it has begun, and keeps its core until then.
            arguments: of the function.

        Raises:
            RefusedError: when it takes longer than the limit.
        """
        seconds = self.limits.seconds
        try:
            async with asyncio.timeout(seconds):
                await self._places.acquire()
                task = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
                task.add_done_callback(self._leave)
                return await asyncio.shield(task)
        except TimeoutError:
            raise RefusedError(503, f"no answer within {seconds:g} s; try again later") from None

    def _leave(self, task: asyncio.Future[Any]) -> None:
        self._places.release()
        # Retrieved, since asyncio would log the exception of a task that nobody awaits.
        task.cancelled() or task.exception()

    def classifier(self, name: str) -> Classifier:
        """Return a classifier that ships.

        Args:
            name: as `unmask models` lists it.

        Raises:
            UserError: for another name.
        """
        if name not in shipped():
            raise unknown("model", name, shipped())
        with self._lock:
            if name not in self._classifiers:
                self._classifiers[name] = Classifier.load(name)
            return self._classifiers[name]

    def detect(self, data: bytes, threshold: float | None, smallest: float) -> dict[str, Any]:
        """Return the faces in an image as plain values.

        Args:
            data: the file's bytes.
            threshold: the score from which a box counts as a face, the model's if None.
            smallest: the side of the smallest face, in pixels.

        Raises:
            UserError: when there is no detector, or the image or a setting can't be used.
        """
        if self.detector is None:
            raise UserError(self.no_detector)
        picture = opened(data, self.limits.pixels)
        found = self.detector.detect(picture, threshold=threshold, smallest=smallest)
        return found.as_dict()

    def classify(self, data: bytes, name: str) -> dict[str, Any]:
        """Return a classifier's prediction for an image as plain values.

        Args:
            data: the file's bytes.
            name: of a classifier that ships.

        Raises:
            UserError: when there is no such classifier, or the image can't be used.
        """
        classifier = self.classifier(name)
        require_fit(data, self.limits.pixels)
        channels, *size = classifier.card.input_shape
        pixels = decode_picture(data, size=(size[0], size[1]), channels=channels)
        with torch.inference_mode():
            logits = classifier(torch.tensor(pixels)[None].float() / 255)[0]
        chances = logits.double().softmax(0).tolist()
        best = int(logits.argmax())
        return {
            "model": name,
            "class": classifier.class_names[best],
            "probability": chances[best],
            "probabilities": dict(zip(classifier.class_names, chances, strict=True)),
        }
