"""Frames encoded as video files that browsers play, with the sound of the video they came from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UserError
from unmask.mask.runtime.video import opencv

# The first that is available encodes; all make H.264.
_ENCODERS = ("libx264", "libopenh264", "h264_videotoolbox", "h264_mf")
# Sound that MP4 holds as it is; all other is converted to AAC.
_KEPT = ("aac", "mp3", "ac3", "eac3", "opus", "flac")
_QUALITY = {"libx264": {"preset": "veryfast", "crf": "21"}}

Add = Callable[[NDArray[np.uint8]], None]


def h264() -> str:
    """Return the name of the H.264 encoder that PyAV has here, "" when there is none."""
    try:
        import av  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return ""
    return next((name for name in _ENCODERS if name in av.codecs_available), "")


@contextlib.contextmanager
def write_video(
    path: Path, width: int, height: int, rate: float, *, sound: Path | None = None
) -> Iterator[Add]:
    """Open an MP4 file and give the function that adds a frame, uint8[h, w, 3] in RGB.

    The frames added so far can be played however the block ends. Without PyAV the file is MPEG-4
    Part 2 without sound, which players play and browsers don't.

    Args:
        path: of the file.
        width: of the frames in pixels.
        height: of the frames in pixels.
        rate: frames a second.
        sound: a video whose sound accompanies the frames, as long as they last; None for silence.

    Raises:
        UserError: when the file can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    encoder = h264()
    made = _with_pyav if encoder else _with_opencv
    with contextlib.contextmanager(made)(path, (width, height), rate, encoder, sound) as add:
        yield add


def _with_opencv(
    path: Path, size: tuple[int, int], rate: float, encoder: str, sound: Path | None
) -> Iterator[Add]:
    cv2 = opencv()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    if not writer.isOpened():
        raise _refused(path)
    try:
        yield lambda pixels: writer.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()


def _with_pyav(
    path: Path, size: tuple[int, int], rate: float, encoder: str, sound: Path | None
) -> Iterator[Add]:
    import av

    # Colour has half the resolution, so sides must be even: where they aren't, an edge is doubled.
    odd = (size[1] % 2, size[0] % 2)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(av.open(str(path), "w", options={"movflags": "faststart"}))
            step = Fraction(rate).limit_denominator(1001)
            stream: Any = file.add_stream(encoder, rate=step, options=_QUALITY.get(encoder, {}))
            stream.width, stream.height = size[0] + odd[1], size[1] + odd[0]
            stream.pix_fmt = "yuv420p"
            heard = _Sound(stack, file, sound) if sound else None
            file.start_encoding()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise _refused(path) from error
        count = 0

        def add(pixels: NDArray[np.uint8]) -> None:
            nonlocal count
            if any(odd):
                pixels = np.pad(pixels, ((0, odd[0]), (0, odd[1]), (0, 0)), "edge")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = count, 1 / step
            count += 1
            for packet in stream.encode(frame):
                file.mux(packet)
            if heard:
                heard.play(float(count / step))

        try:
            yield add
        finally:
            for packet in stream.encode():
                file.mux(packet)
            if heard:
                heard.end()


class _Sound:
    """The first sound track of a video, copied into another file as its frames come."""

    def __init__(self, stack: contextlib.ExitStack, file: Any, source: Path) -> None:
        import av

        self._file, self._out, self._encoder = file, None, None
        self._packets: Iterator[Any] = iter(())
        self._waiting: Any = None
        try:
            given = stack.enter_context(av.open(str(source)))
        except (av.error.FFmpegError, OSError, ValueError):
            return
        if not given.streams.audio:
            return
        stream = given.streams.audio[0]
        frames = given.streams.video
        # Time starts at the first frame: sound before it is left out.
        first: Any = frames[0].start_time if frames else None
        base: Any = frames[0].time_base if frames else None
        self._first = float(first * base) if first is not None else 0.0
        if stream.codec_context.name in _KEPT:
            self._out = file.add_stream_from_template(stream)
            self._packets = (p for p in given.demux(stream) if p.pts is not None)
        else:
            self._out = self._encoder = file.add_stream("aac", rate=stream.rate)
            self._packets = (frame for frame in given.decode(stream) if frame.pts is not None)
            self._shape = av.AudioResampler(format="fltp", layout="stereo", rate=stream.rate)

    def play(self, until: float) -> None:
        """Copy the sound before that time, in seconds from the first frame."""
        while self._out is not None:
            if self._waiting is None:
                self._waiting = self._next()
            if self._waiting is None or self._at(self._waiting) >= until:
                return
            if self._at(self._waiting) >= 0:
                self._put(self._waiting)
            self._waiting = None

    def end(self) -> None:
        """Flush the encoder."""
        if self._encoder is not None:
            for packet in self._encoder.encode(None):
                self._file.mux(packet)

    def _next(self) -> Any:
        import av

        try:
            return next(self._packets, None)
        except (av.error.FFmpegError, OSError, ValueError):
            # Damaged sound ends there.
            return None

    def _at(self, packet: Any) -> float:
        return float(packet.pts * packet.time_base) - self._first

    def _put(self, packet: Any) -> None:
        shift = round(self._first / packet.time_base)
        packet.pts -= shift
        if self._encoder is None:
            packet.dts = packet.dts - shift if packet.dts is not None else packet.pts
            packet.stream = self._out
            self._file.mux(packet)
            return
        for frame in self._shape.resample(packet):
            for made in self._encoder.encode(frame):
                self._file.mux(made)


def _refused(path: Path) -> UserError:
    return UserError(f"can't write {path}", do="choose another folder")
