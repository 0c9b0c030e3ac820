"""Frames read from video files, cameras and streams."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UserError
from unmask.mask.runtime.sources import VideoSource

# The length that a container states is off by a frame or by rounding.
_TOLERATED = 0.02
_USUAL_RATE = 25.0


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video.

    Args:
        pixels: uint8[h, w, 3] in RGB.
        number: from 0.
        seconds: its time from the first frame.
    """

    pixels: NDArray[np.uint8]
    number: int
    seconds: float


def opencv() -> Any:
    """Return OpenCV, set to print nothing; raise UserError when it is not installed."""
    # Both are read when it is imported; without them it prints messages about a damaged file.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            "video needs OpenCV", got=str(error), do="pip install 'unmask[video]'"
        ) from error
    # Neither was read if it was imported before.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


class VideoReader:
    """The frames of a video in their order; of a live one the latest at each step.

    Args:
        source: what to open.
        capture: an open capture with OpenCV's interface, in place of the source's.

    Attributes:
        width: of the frames in pixels.
        height: of the frames in pixels.
        rate: frames a second, as the video states it.
        total: how many frames there should be, or None.
        ended: why reading stopped too early, "" at the video's end.

    Raises:
        UserError: when it can't be opened or gives no frame.
    """

    def __init__(self, source: VideoSource, capture: Any = None) -> None:
        self._cv2 = opencv()
        self.source = source
        self.ended = ""
        self._capture = capture or _opened(self._cv2, source)
        self._stamp = -1.0
        ok, first = self._read()
        if not ok and not source.live and capture is None:
            # OpenCV's build may lack the codec that PyAV's has.
            codec = _codec(int(self._capture.get(self._cv2.CAP_PROP_FOURCC)))
            self._capture.release()
            self._capture = _Decoder.of(self._cv2, source, codec)
            ok, first = self._read()
        if not ok:
            self._capture.release()
            do = "is it plugged in, and free?" if source.live else "it may be damaged"
            raise UserError(f"{source.name} gives no frames", do=do)
        self._first: NDArray[np.uint8] | None = first
        self.height, self.width = first.shape[:2]
        rate = float(self._capture.get(self._cv2.CAP_PROP_FPS))
        self.rate = rate if 1 <= rate <= 1000 else _USUAL_RATE
        total = float(self._capture.get(self._cv2.CAP_PROP_FRAME_COUNT))
        self.total = int(total) if not source.live and 1 <= total < 1e9 else None

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; afterwards, ended states why a video stopped too early."""
        pictures = _latest(self._every()) if self.source.live else enumerate(self._every())
        count, first, before = 0, max(self._stamp, 0.0), -1.0
        for number, picture in pictures:
            count = number + 1
            pixels = self._cv2.cvtColor(picture, self._cv2.COLOR_BGR2RGB)
            seconds = number / self.rate
            if not self.source.live:
                # The container's time, since frames may be further apart than the rate states.
                stamp = self._stamp - first
                seconds = stamp if stamp > before else before + 1 / self.rate
                before = seconds
            yield Frame(pixels, number, seconds)
        if self.source.live:
            self.ended = f"{self.source.name} stopped giving frames after {count}"
        elif self.total and count < self.total * (1 - _TOLERATED) - 1:
            self.ended = f"{self.source.name} is cut: it ends after {count} of {self.total} frames"

    def _every(self) -> Iterator[NDArray[np.uint8]]:
        assert self._first is not None, "a video is gone through once"
        picture, self._first = self._first, None
        ok = True
        while ok:
            yield picture
            ok, picture = self._read()
            # A stream may change its size, which no video file can hold.
            if ok and picture.shape[:2] != (self.height, self.width):
                picture = self._cv2.resize(picture, (self.width, self.height))

    def _read(self) -> tuple[bool, Any]:
        try:
            ok, picture = self._capture.read()
            if ok and not self.source.live:
                self._stamp = float(self._capture.get(self._cv2.CAP_PROP_POS_MSEC)) / 1000
            return ok, picture
        except self._cv2.error:
            return False, None


class _Decoder:
    """A video file decoded by PyAV, with the methods of OpenCV's captures."""

    def __init__(self, cv2: Any, path: str) -> None:
        import av

        self._cv2 = cv2
        self._file = av.open(path)
        self._stream = self._file.streams.video[0]
        self._frames = self._file.decode(self._stream)
        self._seconds = 0.0

    @classmethod
    def of(cls, cv2: Any, source: VideoSource, codec: str) -> _Decoder:
        """Return the decoder of a file, or raise UserError that names the codec."""
        try:
            return cls(cv2, str(source.address))
        except ImportError:
            do = "pip install 'unmask[video]', or convert it to H.264 in .mp4"
        except (OSError, ValueError, IndexError):
            do = "it may be damaged; or convert it to H.264 in .mp4"
        raise UserError(f"{source.name} can't be decoded here", got=codec, do=do)

    def read(self) -> tuple[bool, Any]:
        """Return whether there is another frame, and it, uint8[h, w, 3] in blue, green, red."""
        import av

        try:
            frame = next(self._frames)
        except (StopIteration, av.error.FFmpegError, OSError, ValueError):
            return False, None
        self._seconds = float(frame.time or 0.0)
        pixels = frame.to_ndarray(format="bgr24")
        return True, np.ascontiguousarray(np.rot90(pixels, getattr(frame, "rotation", 0) // 90))

    def get(self, what: int) -> float:
        """Return one of OpenCV's properties."""
        known = {
            self._cv2.CAP_PROP_FPS: float(self._stream.average_rate or 0),
            self._cv2.CAP_PROP_FRAME_COUNT: float(self._stream.frames),
            self._cv2.CAP_PROP_POS_MSEC: 1000 * self._seconds,
        }
        return known.get(what, 0.0)

    def release(self) -> None:
        """Close the file."""
        self._file.close()


_CODECS = {"av01": "AV1", "hev1": "H.265", "hvc1": "H.265", "vp09": "VP9", "avc1": "H.264"}


def _codec(number: int) -> str:
    """Return a codec's name by the four letters in OpenCV's number."""
    letters = number.to_bytes(4, "little", signed=number < 0).decode("latin-1")
    name = _CODECS.get(letters.lower(), letters if letters.isprintable() else "")
    return f"the codec {name}" if name.strip() else "an unknown codec"


def _opened(cv2: Any, source: VideoSource) -> Any:
    try:
        capture = cv2.VideoCapture(source.address)
    except (cv2.error, UnicodeError, SystemError):
        capture = None
    if capture is not None and capture.isOpened():
        return capture
    if isinstance(source.address, int):
        raise UserError(
            f"there is no camera {source.address}",
            do="is it plugged in, and used by nothing else?"
            + (" the first one has the number 0" if source.address else ""),
        )
    if source.live:
        raise UserError(f"can't open the stream {source.name}", do="check its address")
    size = Path(source.address).stat().st_size
    raise UserError(
        f"{source.name} is no video that can be read",
        got="an empty file" if not size else "damage or an unknown codec",
        do="convert it to H.264 in .mp4",
    )


def _latest(pictures: Iterator[Any]) -> Iterator[tuple[int, Any]]:
    """Yield the latest frame and its number, each time one is requested.

    Frames that came in between are dropped. A thread reads them as they come, so that no camera's
    buffer grows old.
    """
    changed = threading.Condition()
    state: dict[str, Any] = {"number": -1, "picture": None, "over": False, "left": False}

    def take() -> None:
        try:
            for number, picture in enumerate(pictures):
                with changed:
                    state.update(number=number, picture=picture)
                    changed.notify()
                    if state["left"]:
                        return
        finally:
            with changed:
                state["over"] = True
                changed.notify()

    taker = threading.Thread(target=take, daemon=True)
    taker.start()
    last = -1
    try:
        while True:
            with changed:
                while state["number"] <= last and not state["over"]:
                    changed.wait()
                if state["number"] <= last:
                    return
                last, picture = state["number"], state["picture"]
            yield last, picture
    finally:
        with changed:
            state["left"] = True
        # A camera that hangs is not waited for.
        taker.join(timeout=2.0)
