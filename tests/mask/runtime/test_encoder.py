"""Videos that browsers play, with the sound of those they were made from."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from unmask.errors import UserError
from unmask.mask.runtime.encoder import h264, write_video
from unmask.mask.runtime.sources import VideoSource
from unmask.mask.runtime.video import VideoReader, opencv

av = pytest.importorskip("av")
RATE = 8000


def heard(path: Path, codec: str, seconds: float = 2.0) -> Path:
    """A film of grey frames, ten a second, with a tone in its second half."""
    with av.open(str(path), "w") as file:
        video = file.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = file.add_stream(codec, rate=RATE)
        for i in range(round(10 * seconds)):
            pixels = np.full((48, 64, 3), 10 * i, np.uint8)
            for packet in video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                file.mux(packet)
        time = np.arange(round(RATE * seconds)) / RATE
        wave = np.where(time >= seconds / 2, np.sin(2 * np.pi * 440 * time), 0)
        form = sound.codec_context.format.name
        for start in range(0, len(wave), 1000):
            part = wave[start : start + 1000]
            samples = (part * 20000).astype(np.int16)[None]
            if form.startswith("flt"):
                samples = part.astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(samples, format=form, layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            for packet in sound.encode(frame):
                file.mux(packet)
        for stream in (video, sound):
            for packet in stream.encode():
                file.mux(packet)
    return path


def loudness(path: Path) -> tuple[list[float], float, str]:
    """The sound's mean level in each tenth of a second, its length, and the codec of the frames."""
    with av.open(str(path)) as file:
        codec = file.streams.video[0].codec_context.name
        if not file.streams.audio:
            return [], 0.0, codec
        frames = list(file.decode(audio=0))
        wave = np.concatenate([f.to_ndarray().astype(float).mean(0).ravel() for f in frames])
        rate = frames[0].sample_rate
    tenth = rate // 10
    levels = [float(np.abs(wave[i : i + tenth]).mean()) for i in range(0, len(wave), tenth)]
    return levels, len(wave) / rate, codec


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.avi", "pcm_s16le")])
def test_sound_is_kept_in_time_and_as_long_as_the_frames(
    tmp_path: Path, name: str, codec: str
) -> None:
    film = heard(tmp_path / name, codec)
    with write_video(tmp_path / "o.mp4", 64, 48, 10.0, sound=film) as add:
        for _ in range(15):
            add(np.zeros((48, 64, 3), np.uint8))
    levels, seconds, frames = loudness(tmp_path / "o.mp4")
    assert frames == "h264"
    assert seconds == pytest.approx(1.5, abs=0.35)
    # The tone begins after a second.
    assert np.argmax(np.array(levels) > 0.3 * max(levels)) == pytest.approx(10, abs=2)


def test_without_sound_there_is_none(tmp_path: Path) -> None:
    with write_video(tmp_path / "silent.mp4", 64, 48, 10.0) as add:
        add(np.zeros((48, 64, 3), np.uint8))
    for given in (None, tmp_path / "silent.mp4", tmp_path / "nowhere.mp4"):
        with write_video(tmp_path / "o.mp4", 64, 48, 10.0, sound=given) as add:
            add(np.zeros((48, 64, 3), np.uint8))
        assert loudness(tmp_path / "o.mp4") == ([], 0.0, "h264")


@pytest.mark.parametrize("size", [(63, 47), (64, 47), (2, 2)])
def test_sides_may_be_odd(tmp_path: Path, size: tuple[int, int]) -> None:
    with write_video(tmp_path / "o.mp4", *size, 10.0) as add:
        add(np.full((size[1], size[0], 3), 200, np.uint8))
    with VideoReader(VideoSource("o", str(tmp_path / "o.mp4"), False)) as reader:
        assert (reader.width - size[0] % 2, reader.height - size[1] % 2) == size
        (frame,) = reader
    assert np.abs(frame.pixels.astype(int) - 200).max() < 12


def test_what_was_added_before_a_mistake_can_be_played(tmp_path: Path) -> None:
    def stopped() -> None:
        with write_video(tmp_path / "o.mp4", 64, 48, 10.0) as add:
            for _ in range(7):
                add(np.zeros((48, 64, 3), np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    with VideoReader(VideoSource("o", str(tmp_path / "o.mp4"), False)) as reader:
        assert len(list(reader)) == 7


def test_a_file_that_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "o.mp4").mkdir()
    with pytest.raises(UserError, match="can't write"), write_video(tmp_path / "o.mp4", 64, 48, 10):
        pass


def test_without_pyav_there_is_a_video_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert h264() == ""
    with write_video(tmp_path / "o.mp4", 64, 48, 10.0, sound=tmp_path / "x.mp4") as add:
        add(np.zeros((48, 64, 3), np.uint8))
    with VideoReader(VideoSource("o", str(tmp_path / "o.mp4"), False)) as reader:
        assert len(list(reader)) == 1


_AV1 = """
import sys
import av
import numpy as np
with av.open(sys.argv[1], "w") as file:
    video = file.add_stream("libsvtav1", rate=10)
    video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
    for i in range(4):
        pixels = np.full((64, 64, 3), 50 * i, np.uint8)
        for packet in video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
            file.mux(packet)
    for packet in video.encode():
        file.mux(packet)
"""


def test_av1_is_decoded_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if "libsvtav1" not in av.codecs_available:
        pytest.skip("this PyAV encodes no AV1")
    path = tmp_path / "a.mp4"
    # In a process of its own: this encoder gives the thread that calls it real-time priority, where
    # it may, and threads of later tests inherit that and starve the machine.
    subprocess.run([sys.executable, "-c", _AV1, str(path)], check=True)
    given = VideoSource("a.mp4", str(path), False)
    with VideoReader(given) as reader:
        frames = list(reader)
    assert [round(f.seconds, 3) for f in frames] == [0.0, 0.1, 0.2, 0.3]
    assert [float(f.pixels.mean()) for f in frames] == pytest.approx([0, 50, 100, 150], abs=5)
    monkeypatch.setitem(sys.modules, "av", None)
    cv2 = opencv()
    if cv2.VideoCapture(str(path)).read()[0]:
        pytest.skip("this OpenCV decodes AV1 itself")
    with pytest.raises(UserError, match=r"a.mp4 can't be decoded here: got the codec AV1; .*H.264"):
        VideoReader(given)
