import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from made_up_detector import IMPROPER, WITH, WITHOUT, build, paint
from unmask.cli import mask_detect
from unmask.cli.main import main
from unmask.mask.runtime import video
from unmask.mask.runtime.classes import GREEN, RED
from unmask.mask.runtime.encoder import write_video
from unmask.mask.runtime.sources import VideoSource
from unmask.mask.runtime.video import VideoReader

FACES = [((40, 40, 80, 90), WITH), ((150, 60, 190, 110), WITHOUT)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build(tmp_path_factory.mktemp("model") / "rectangles.onnx"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    paint((240, 160), FACES).save("two.png")
    paint((240, 160), FACES[:1]).save("masked.png")
    return tmp_path


def film(path: Path, count: int = 12) -> None:
    with write_video(path, 240, 160, 10.0) as add:
        for i in range(count):
            # In the fifth frame the mask seems to be off.
            colour = WITHOUT if i == 5 else WITH
            face = (20 + 4 * i, 40, 60 + 4 * i, 90)
            add(np.asarray(paint((240, 160), [(face, colour), ((180, 60, 220, 110), IMPROPER)])))


def test_a_picture_is_drawn_written_and_summed_up(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mask", "detect", "two.png", "--model", model, "--out", "o"]) == 0
    out, err = capsys.readouterr()
    assert out == "1 image: 2 faces: 1 with mask, 1 without mask\ndrawn and written: o\n"
    assert err == ""
    (entries,) = json.loads((here / "o/detections.json").read_text())
    assert entries["file"] == "two.png"
    assert sorted(face["box"] for face in entries["faces"]) == [list(box) for box, _ in FACES]
    drawn = np.asarray(Image.open(here / "o/drawn/two.png").convert("RGB"))
    for colour in (GREEN, RED):
        assert (drawn == colour).all(-1).sum() > 200


def test_patterns_that_the_shell_put_in_full_are_many_sources(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["two.png", "masked.png", "two.png", "--model", model, "--out", "o"]
    assert main(["mask", "detect", *arguments]) == 0
    assert capsys.readouterr().out.startswith("3 images: ")
    drawn = {path.relative_to(here / "o/drawn").as_posix() for path in here.glob("o/drawn/**/*.*")}
    assert drawn == {"two.png", "masked.png", "2/two.png"}


def test_json_holds_the_faces_and_the_summary(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mask", "detect", "two.png", "--model", model, "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert [face["label"] for face in got["pictures"][0]["faces"]].count("with_mask") == 1
    assert got["summary"]["faces"] == {
        "with_mask": 1,
        "without_mask": 1,
        "mask_weared_incorrect": 0,
        "not_judged": 0,
    }


@pytest.mark.parametrize(("picture", "status"), [("two.png", 1), ("masked.png", 0)])
def test_masks_can_be_required(
    here: Path, model: str, capsys: pytest.CaptureFixture[str], picture: str, status: int
) -> None:
    assert main(["mask", "detect", picture, "--model", model, "--require-masks"]) == status
    err = capsys.readouterr().err
    assert ("two.png: without mask" in err) == bool(status)
    assert err.endswith("not every face wears a mask as it should\n") == bool(status)


def test_a_gate_stays_shut_for_what_was_passed_over(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = ["mask", "detect", "in", "--model", model, "--require-masks", "--json"]
    (here / "in").mkdir()
    paint((240, 160), FACES[:1]).save(here / "in" / "a.png")
    (here / "in" / "notes.txt").write_text("no image")
    assert main(gate) == 0
    (here / "in" / "b.psd").write_bytes(b"an image that is not opened")
    capsys.readouterr()
    assert main(gate) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["summary"]["passed_over"] == ["b.psd"]
    assert "1 not read" in err
    assert main([*gate, "--skip-unreadable"]) == 0
    paint((240, 160), FACES).save(here / "in" / "c.png")
    assert main([*gate, "--skip-unreadable"]) == 1


def test_an_image_by_plugin_is_opened_or_the_plugin_named(
    here: Path, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    (here / "in").mkdir()
    paint((240, 160), FACES).save(here / "in" / "a.HEIC", quality=95)
    paint((240, 160), FACES[:1]).save(here / "in" / "b.png")
    command = ["mask", "detect", "in", "--model", model, "--json"]
    assert main(command) == 0
    assert len(json.loads(capsys.readouterr().out)["pictures"][0]["faces"]) == 2
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert main([*command, "--require-masks"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["summary"]["passed_over"] == ["a.HEIC"]
    assert "pip install 'unmask[heic]'" in err
    assert main(["mask", "detect", "in/a.HEIC", "--model", model]) == 2
    assert "an image in HEIC, which needs a plugin" in capsys.readouterr().err


def test_every_frame_of_an_animation_is_looked_at_when_asked_and_by_a_gate(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [paint((240, 160), FACES[: 1 + k]) for k in range(2)]
    frames[0].save("a.png", save_all=True, append_images=frames[1:])
    command = ["mask", "detect", "a.png", "--model", model, "--json", "--out", "o"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["faces"]["without_mask"] == 0
    assert main([*command, "--all-frames"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(entry["frame"], len(entry["faces"])) for entry in told["pictures"]] == [(0, 1), (1, 2)]
    assert told["summary"]["frames"] == 2
    drawn = sorted(path.name for path in (here / "o/drawn").iterdir())
    assert drawn == ["a.png", "a.png.1.png"]
    assert main([*command, "--require-masks"]) == 1
    assert "a.png, frame 1: without mask" in capsys.readouterr().err


def test_names_that_are_no_utf_8_end_no_run(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        paint((240, 160), FACES).save(name)
    except OSError:
        pytest.skip("the file system takes no such names")
    (here / "in").mkdir()
    paint((240, 160), FACES).save(here / "in" / "b.png")
    (here / "in" / name).write_bytes((here / name).read_bytes())
    kinds = ["--formats", "json", "jsonl", "csv", "coco", "--out", os.fsdecode(b"o\xff")]
    assert main(["mask", "detect", name, "--model", model, *kinds]) == 0
    assert "2 faces" in capsys.readouterr().out
    assert main(["mask", "detect", "in", "--model", model, "--require-masks", *kinds]) == 1
    out, err = capsys.readouterr()
    assert "1 image: 2 faces" in out
    assert "its name holds characters that can't be shown" in err


def test_a_jpeg_keeps_its_name(here: Path, model: str) -> None:
    paint((240, 160), FACES).save("groot.jpeg")
    assert main(["mask", "detect", "groot.jpeg", "--model", model, "--out", "o"]) == 0
    assert [path.name for path in (here / "o/drawn").iterdir()] == ["groot.jpeg"]


def test_a_gate_is_shut_for_a_video_in_a_folder(here: Path, model: str) -> None:
    (here / "in").mkdir()
    film(here / "in" / "v.mp4")
    gate = ["mask", "detect", "in", "--model", model, "--require-masks"]
    assert main(gate) == 1
    assert main([*gate, "--tolerate", "60"]) == 0


def test_mirrored_is_gone(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mask", "detect", "two.png", "--model", model, "--mirrored"]) == 2
    assert "--mirrored is gone" in capsys.readouterr().err


def test_blurred_faces_can_not_be_told(here: Path, model: str) -> None:
    assert main(["mask", "detect", "two.png", "--model", model, "--blur", "--out", "o"]) == 0
    drawn = np.asarray(Image.open("o/drawn/two.png").convert("RGB").resize((240, 160)))
    # The painted edge is gone: what was a step is a slope.
    row = drawn[65, 30:60].astype(int).max(-1)
    assert np.abs(np.diff(row[12:])).max() < 40
    faces = json.loads((here / "o/detections.json").read_text())[0]["faces"]
    assert len(faces) == 2


def test_bad_files_are_named_and_skipped_and_the_status_says_so(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = here / "in"
    folder.mkdir()
    for i in range(3):
        paint((240, 160), FACES).save(folder / f"{i}.png")
    Image.new("RGB", (1, 1)).save(folder / "pixel.png")
    (folder / "text.jpg").write_bytes(b"this is no image")
    (folder / "zero.png").write_bytes(b"")
    Image.effect_noise((300, 300), 50).convert("RGB").save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:5000])
    Image.new("1", (30000, 30000)).save(folder / "bomb.png")
    assert main(["mask", "detect", "in", "--model", model, "--out", "o"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith(
        "4 images: 6 faces: 3 with mask, 3 without mask; 4 not looked at or not whole\n"
    )
    lines = err.splitlines()
    assert len(lines) == 5
    for line, name, reason in zip(
        lines,
        ("bomb.png", "cut.jpg", "text.jpg", "zero.png"),
        (
            "the image is too large",
            "a damaged image",
            "no image in a format",
            "an empty file",
        ),
        strict=False,
    ):
        assert line.startswith(f"unmask: '{name}' skipped: {reason}")
    assert lines[4] == "unmask: 4 could not be read, or not completely; all others were"
    assert len(json.loads((here / "o/detections.json").read_text())) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["text.jpg"], "text.jpg: no image in a format of BMP"),
        (["nowhere.jpg"], "there is no such source: got nowhere.jpg"),
        (["97"], "there is no camera 97"),
        (["empty"], "no images in empty: got nothing"),
        (["two.png", "nowhere.jpg"], "there is no such source: got nowhere.jpg"),
        (["text.mp4"], "text.mp4 is no video that can be read"),
        (["two.png", "--formats", "xml"], "unknown format: got 'xml'"),
        (["two.png", "--threshold", "7"], "--threshold takes a number from above 0 to 1: got '7'"),
        (["two.png", "--seconds", "0"], "--seconds takes a number from above 0 to 1e+09"),
        (["two.png", "--model", "x.onnx"], "there is no such detector: got x.onnx"),
    ],
)
def test_a_mistake_is_one_line(
    here: Path, model: str, capfd: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    (here / "text.jpg").write_bytes(b"this is no image")
    (here / "text.mp4").write_bytes(b"this is no video")
    (here / "empty").mkdir()
    chosen = [] if "--model" in arguments else ["--model", model]
    assert main(["mask", "detect", *arguments, *chosen]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"unmask: {said}")
    assert err.count("\n") == 1


def test_in_a_video_faces_are_followed_and_voted_on(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    film(here / "v.mp4")
    command = ["mask", "detect", "v.mp4", "--model", model, "--out", "o", "--formats", "jsonl"]
    assert main(command) == 0
    assert capsys.readouterr().out.startswith(
        "12 frames of 1 video: 2 faces: 1 with mask, 1 mask worn improperly\n"
    )
    frames = [json.loads(line) for line in (here / "o/detections.jsonl").read_text().splitlines()]
    assert [frame["frame"] for frame in frames] == list(range(12))
    boxes = sorted(face["box"] for face in frames[0]["faces"])
    np.testing.assert_allclose(boxes, [[20, 40, 60, 90], [180, 60, 220, 110]], atol=2)
    tracks: dict[int, set[str]] = {}
    for frame in frames:
        for face in frame["faces"]:
            tracks.setdefault(face["track"], set()).add(face["label"])
    assert sorted(map(sorted, tracks.values())) == [["mask_weared_incorrect"], ["with_mask"]]
    with VideoReader(VideoSource("v", "o/drawn/v.mp4", False)) as drawn:
        assert (drawn.width, drawn.height, len(list(drawn))) == (240, 160, 12)


def test_the_sound_of_a_video_is_kept_where_faces_are_hidden(here: Path, model: str) -> None:
    av = pytest.importorskip("av")
    with av.open("v.avi", "w") as file:
        frames, sound = file.add_stream("mpeg4", rate=10), file.add_stream("pcm_s16le", rate=8000)
        frames.width, frames.height, frames.pix_fmt = 240, 160, "yuv420p"
        for i in range(10):
            pixels = np.asarray(paint((240, 160), FACES))
            for packet in frames.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                file.mux(packet)
            noise = np.random.default_rng(i).integers(-9000, 9000, (1, 800)).astype(np.int16)
            heard = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
            heard.sample_rate, heard.pts = 8000, 800 * i
            for packet in sound.encode(heard):
                file.mux(packet)
        for stream in (frames, sound):
            for packet in stream.encode():
                file.mux(packet)
    assert main(["mask", "detect", "v.avi", "--model", model, "--blur", "--out", "o"]) == 0
    with av.open("o/drawn/v.avi.mp4") as file:
        assert file.streams.video[0].codec_context.name == "h264"
        wave = np.concatenate([f.to_ndarray().ravel() for f in file.decode(audio=0)])
    assert np.abs(wave).mean() > 0.01


def test_a_video_may_be_stopped_early(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    film(here / "v.mp4")
    assert main(["mask", "detect", "v.mp4", "--model", model, "--seconds", "0.45"]) == 0
    assert capsys.readouterr().out.startswith("5 frames of 1 video: 2 faces")


def test_a_video_that_is_cut_is_looked_at_to_its_end_and_named(
    here: Path, model: str, capfd: pytest.CaptureFixture[str]
) -> None:
    cv2 = video.opencv()
    writer = cv2.VideoWriter("a.avi", cv2.VideoWriter.fourcc(*"MJPG"), 10, (240, 160))
    for _ in range(20):
        writer.write(np.asarray(paint((240, 160), FACES))[:, :, ::-1])
    writer.release()
    (here / "a.avi").write_bytes((here / "a.avi").read_bytes()[: 3 * 10**4])
    (here / "text.mp4").write_bytes(b"this is no video")
    assert main(["mask", "detect", "a.avi", "text.mp4", "--model", model, "--out", "o"]) == 2
    out, err = capfd.readouterr()
    assert "2 faces: 1 with mask, 1 without mask" in out
    lines = err.splitlines()
    assert lines[0].startswith("unmask: a.avi is cut: it ends after ")
    assert lines[1].startswith("unmask: text.mp4 is no video that can be read")
    assert lines[2] == "unmask: 2 could not be read, or not completely; all others were"
    with VideoReader(VideoSource("v", "o/drawn/a.avi.mp4", False)) as drawn:
        assert len(list(drawn)) == int(out.split(" frames")[0])


def test_a_camera_that_is_unplugged_ends_with_a_line_and_what_was_seen(
    here: Path, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Camera:
        given = 0

        def read(self) -> tuple[bool, np.ndarray | None]:
            self.given += 1
            if self.given > 30:
                return False, None
            # Slow enough for some of the frames to be looked at.
            time.sleep(0.02)
            return True, np.asarray(paint((240, 160), FACES))[:, :, ::-1].copy()

        def get(self, _: int) -> float:
            return 0.0

        def release(self) -> None:
            pass

    with monkeypatch.context() as patch:
        patch.setattr(video, "_opened", lambda *_: Camera())
        assert main(["mask", "detect", "0", "--model", model, "--out", "o"]) == 2
    out, err = capsys.readouterr()
    assert " frame" in out
    assert err.splitlines()[0] == "unmask: camera-0 stopped giving frames after 30"
    with VideoReader(VideoSource("v", "o/drawn/camera-0.mp4", False)) as drawn:
        assert len(list(drawn)) >= 1


def test_ctrl_c_keeps_what_was_seen(
    here: Path, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "in").mkdir()
    for i in range(4):
        paint((240, 160), FACES).save(here / f"in/{i}.png")
    look = mask_detect._look_at_picture

    def interrupted(file: object, job: object) -> None:
        if job.summary.pictures == 2:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        look(file, job)  # type: ignore[arg-type]

    monkeypatch.setattr(mask_detect, "_look_at_picture", interrupted)
    assert main(["mask", "detect", "in", "--model", model, "--out", "o"]) == 130
    assert capsys.readouterr().out.startswith("2 images: 4 faces")
    assert len(json.loads((here / "o/detections.json").read_text())) == 2


def test_neither_torch_nor_matplotlib_is_loaded(here: Path, model: str) -> None:
    code = (
        "import sys; from unmask.cli.main import main; "
        f"status = main(['mask', 'detect', 'two.png', '--model', {model!r}]); "
        "print(status, [m for m in ('torch', 'matplotlib', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
