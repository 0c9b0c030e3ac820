import zipfile
from pathlib import Path

import pytest
from PIL import Image

from unmask.errors import UserError
from unmask.mask.runtime.sources import Sources, VideoSource, open_sources


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # A folder without siblings: other tests have theirs beside tmp_path.
    tmp_path = tmp_path / "tree"
    (tmp_path / "in" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name in ("in/b.png", "in/a.jpg", "in/deep/c.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    (tmp_path / "in/v.mp4").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "in/b.png", "x/b.png")
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(text: str) -> tuple[list[str], list[str]]:
    with open_sources(text) as found:
        assert all(file.read() for file in found.pictures)
        return ["/".join(file.path) for file in found.pictures], [v.name for v in found.videos]


@pytest.mark.parametrize(
    ("text", "pictures", "videos"),
    [
        ("in", ["a.jpg", "b.png", "deep/c.png"], ["v.mp4"]),
        ("all.zip", ["x/b.png"], []),
        ("in/a.jpg", ["in/a.jpg"], []),
        ("in/*.png", ["in/b.png"], []),
        ("in/**/*.png", ["in/b.png", "in/deep/c.png"], []),
        ("in/[av].*", ["in/a.jpg"], ["in/v.mp4"]),
        ("in/v.mp4", [], ["in/v.mp4"]),
        ("in/../in/a.jpg", ["in/in/a.jpg"], []),
    ],
)
def test_what_is_named_is_found(
    tree: Path, text: str, pictures: list[str], videos: list[str]
) -> None:
    assert names(text) == (pictures, videos)


def test_no_name_leads_out_of_a_folder(tree: Path) -> None:
    assert names(str(tree / "in" / "a.jpg")) == (["a.jpg"], [])
    assert names("../*/in/a.jpg")[0][0].startswith(tree.name)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("0", VideoSource("camera-0", 0, True)),
        (
            "rtsp://me:secret@host:554/one?key=1",
            VideoSource("host-554-one", "rtsp://me:secret@host:554/one?key=1", True),
        ),
    ],
)
def test_cameras_and_streams_are_live_and_their_names_hold_no_secret(
    tree: Path, text: str, source: VideoSource
) -> None:
    with open_sources(text) as found:
        assert found.videos == [source]


def test_a_file_with_a_number_for_a_name_is_no_camera(tree: Path) -> None:
    Image.new("RGB", (2, 2)).save("7", "PNG")
    assert names("7") == (["7"], [])


def test_of_several_sources_no_two_files_are_named_alike(tree: Path) -> None:
    with open_sources("in") as one, open_sources("in/deep") as two, open_sources("in") as three:
        camera = VideoSource("v", 0, True)
        joined = Sources.joined([one, two, three, Sources([], [camera, camera], ["said"])])
        paths = ["/".join(file.path) for file in joined.pictures]
        assert all(file.read() for file in joined.pictures)
    assert paths == ["a.jpg", "b.png", "deep/c.png", "c.png", "2/a.jpg", "2/b.png", "2/deep/c.png"]
    assert [v.name for v in joined.videos] == ["v.mp4", "2/v.mp4", "v", "2/v"]
    assert joined.warnings == [*one.warnings, *two.warnings, *three.warnings, "said"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("empty", "no images in empty: got nothing"),
        ("in/*.bmp", "no file fits the pattern"),
        ("nowhere.jpg", "there is no such source: got nowhere.jpg"),
    ],
)
def test_what_is_not_there_is_one_line(tree: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("*", r"\*")), open_sources(text):
        pass
