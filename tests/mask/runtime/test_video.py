import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from unmask.errors import UserError
from unmask.mask.runtime import video as module
from unmask.mask.runtime.encoder import write_video
from unmask.mask.runtime.sources import VideoSource
from unmask.mask.runtime.video import VideoReader


def write(path: Path, count: int = 20) -> Path:
    """Frames whose grey says their number."""
    with write_video(path, 64, 48, 10.0) as add:
        for i in range(count):
            add(np.full((48, 64, 3), (10 * i, 10 * i, 255 - 10 * i), np.uint8))
    return path


def source(path: Path) -> VideoSource:
    return VideoSource(path.name, str(path), False)


def test_frames_come_back_in_order_with_their_colours_and_times(tmp_path: Path) -> None:
    with VideoReader(source(write(tmp_path / "a.mp4"))) as reader:
        frames = list(reader)
    assert (reader.width, reader.height, reader.rate, reader.total) == (64, 48, 10.0, 20)
    assert [frame.number for frame in frames] == list(range(20))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(20) / 10)
    for i, frame in enumerate(frames):
        mean = frame.pixels.mean((0, 1))
        np.testing.assert_allclose(mean, [10 * i, 10 * i, 255 - 10 * i], atol=8)
    assert reader.ended == ""


def test_a_video_that_ends_too_early_says_where(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cv2 = module.opencv()
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(30):
        writer.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with VideoReader(source(path)) as reader:
        count = len(list(reader))
    assert 5 < count < 25
    assert reader.ended.startswith(f"a.avi is cut: it ends after {count} of 30")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"", b"noise" * 1000])
def test_what_is_no_video_is_one_line(
    tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(UserError, match=r"a.mp4 is no video that can be read: got") as error:
        VideoReader(source(tmp_path / "a.mp4"))
    assert ("an empty file" in str(error.value)) == (not content)
    assert capfd.readouterr() == ("", "")


def test_an_unknown_codec_is_one_line(tmp_path: Path) -> None:
    data = write(tmp_path / "a.mp4").read_bytes()
    for name in (b"mp4v", b"esds", b"avc1", b"avcC"):
        data = data.replace(name, b"zzzz")
    (tmp_path / "b.mp4").write_bytes(data)
    with pytest.raises(UserError, match=r"b.mp4 (is no video that can be read|gives no|can't be)"):
        VideoReader(source(tmp_path / "b.mp4"))


@pytest.mark.parametrize(
    ("live", "said"),
    [
        (VideoSource("camera-99", 99, True), "there is no camera 99; is it plugged in"),
        (VideoSource("x", "http://127.0.0.1:9/x", True), "can't open the stream x"),
    ],
)
def test_what_is_not_plugged_in_is_one_line(
    live: VideoSource, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=said):
        VideoReader(live)
    assert capfd.readouterr() == ("", "")


class Camera:
    """A camera that gives frames as the test says, and then is unplugged."""

    def __init__(self, frames: int) -> None:
        self.given = 0
        self.frames = frames
        self.released = False

    def read(self) -> tuple[bool, np.ndarray | None]:
        if self.given == self.frames:
            return False, None
        self.given += 1
        return True, np.full((8, 8, 3), self.given, np.uint8)

    def get(self, _: int) -> float:
        return 0.0

    def release(self) -> None:
        self.released = True


def test_a_camera_that_is_unplugged_ends_the_video_with_a_line() -> None:
    camera = Camera(50)
    with VideoReader(VideoSource("camera-0", 0, True), camera) as reader:
        numbers = [frame.number for frame in reader]
    assert numbers[-1] == 49
    assert numbers == sorted(set(numbers))
    assert reader.ended == "camera-0 stopped giving frames after 50"
    assert camera.released


def test_a_camera_without_a_frame_is_one_line() -> None:
    with pytest.raises(UserError, match="camera-0 gives no frames; is it plugged in"):
        VideoReader(VideoSource("camera-0", 0, True), Camera(0))


def test_the_latest_frame_comes_first_when_looking_takes_longer_than_filming() -> None:
    filmed, looked_at = threading.Event(), threading.Event()

    def frames() -> Iterator[str]:
        yield "first"
        looked_at.wait(10)
        yield from (f"passed over {i}" for i in range(100))
        yield "latest"
        # Asked for more, it knows that the latest was taken in.
        filmed.set()
        looked_at.clear()
        looked_at.wait(10)

    looked = module._latest(frames())
    assert next(looked) == (0, "first")
    looked_at.set()
    assert filmed.wait(10)
    assert next(looked) == (101, "latest")
    looked_at.set()
    assert next(looked, None) is None


def test_without_opencv_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"pip install 'unmask\[video\]'"):
        module.opencv()
