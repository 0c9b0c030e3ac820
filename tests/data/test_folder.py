import io
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unmask.data import folder as folder_module
from unmask.data import listing as listing_module
from unmask.data.folder import PictureFolder, load_folder
from unmask.errors import UserError


def png(value: int) -> bytes:
    """An image of which every pixel has the one value."""
    file = io.BytesIO()
    Image.new("L", (4, 4), value).save(file, "PNG")
    return file.getvalue()


TREE = {
    "dog/2.png": png(3),
    "cat/b.PNG": png(2),
    "cat/a.png": png(1),
    "cat/more/kitten.png": png(4),
    "owl/1.png": png(5),
}


def write_folder(root: Path, tree: dict[str, bytes]) -> Path:
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_zip(path: Path, tree: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return path


def load(path: Path) -> PictureFolder:
    return load_folder(path, size=(4, 4), channels=1)


def values(found: PictureFolder) -> list[int]:
    return [int(v) for v in found.train.pixels[:, 0, 0, 0]]


Write = Callable[[dict[str, bytes]], Path]


@pytest.fixture(params=["folder", "zip"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Write:
    if request.param == "folder":
        return lambda tree: write_folder(tmp_path / "animals", tree)
    return lambda tree: write_zip(tmp_path / "animals.zip", tree)


def test_pictures_come_in_the_order_of_their_paths_with_their_classes(write: Write) -> None:
    found = load(write(TREE))
    assert found.train.class_names == ("cat", "dog", "owl")
    assert values(found) == [1, 2, 4, 3, 5]
    assert found.train.labels.tolist() == [0, 0, 0, 1, 2]
    assert (found.validation, found.test, found.warnings) == (None, None, ())
    assert found.train.name == "animals train"


@given(st.permutations(list(TREE)))
@settings(max_examples=10, deadline=None)
def test_the_order_in_an_archive_changes_nothing(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        tree = {name: TREE[name] for name in names}
        in_zip = load(write_zip(Path(temporary, "a.zip"), tree))
        in_folder = load(write_folder(Path(temporary, "a"), TREE))
    assert in_zip.train.sha256 == in_folder.train.sha256


@pytest.mark.parametrize("wrapper", ["", "animals/", "very/deep/animals/"])
@pytest.mark.parametrize(
    ("validation", "test"), [("val", "test"), ("valid", "Test"), ("validation", "testing")]
)
def test_parts_are_told_by_the_names_of_their_folders(
    wrapper: str, validation: str, test: str, write: Write
) -> None:
    tree = {f"{wrapper}train/{name}": content for name, content in TREE.items()}
    tree |= {f"{wrapper}{validation}/dog/x.png": png(8), f"{wrapper}{test}/owl/x.png": png(9)}
    found = load(write(tree))
    assert values(found) == [1, 2, 4, 3, 5]
    assert found.validation is not None
    assert found.test is not None
    assert (found.validation.labels.tolist(), found.test.labels.tolist()) == ([1], [2])
    assert (found.validation.pixels.max(), found.test.pixels.max()) == (8, 9)
    assert found.train.class_names == found.validation.class_names == found.test.class_names


def test_train_may_also_be_the_name_of_a_class(write: Write) -> None:
    found = load(write({"train/1.png": png(1), "bus/1.png": png(2), "test/1.png": png(3)}))
    assert found.train.class_names == ("bus", "test", "train")


def test_what_is_in_no_class_or_part_is_left_out_with_a_warning(write: Write) -> None:
    tree = {f"train/{name}": content for name, content in TREE.items()}
    tree |= {"test/1.png": png(7), "all.png": png(7), "spare/cat/1.png": png(7)}
    tree |= {".DS_Store": b"", "__MACOSX/train/cat/a.png": b"", "train/cat/.a.png": b""}
    tree |= {"read.me": b"", "train/cat/a.heic": b""}
    found = load(write(tree))
    assert found.test is None
    assert len(found.train) == len(TREE)
    assert sorted(found.warnings) == [
        "'all.png' skipped: it lies in no class's folder",
        "'spare/cat/1.png' skipped: it is neither training nor test data",
        "'test/1.png' skipped: it lies in no class's folder",
        "skipped, not images: 2, the first 'read.me'",
    ]


def test_a_broken_picture_is_named_and_left_out(write: Write) -> None:
    file = io.BytesIO()
    Image.effect_noise((16, 16), 99).save(file, "PNG")
    broken = {"cat/aa.png": file.getvalue()[:200], "owl/0.jpg": b"nothing", "emu/1.png": b""}
    found = load(write(TREE | broken))
    assert values(found) == [1, 2, 4, 3, 5]
    assert found.train.class_names == ("cat", "dog", "owl")
    first, second, third = found.warnings
    assert first.startswith("'cat/aa.png' skipped: a damaged image")
    assert second == "'emu/1.png' skipped: an empty file"
    assert third.startswith("'owl/0.jpg' skipped: no image in a format of")


def test_one_picture_too_large_does_not_cost_the_others(write: Write) -> None:
    header = bytearray(png(0))
    header[16:24] = struct.pack(">II", 20000, 20000)
    header[29:33] = struct.pack(">I", zlib.crc32(bytes(header[12:29])))
    found = load(write(TREE | {"cat/huge.png": bytes(header)}))
    assert values(found) == [1, 2, 4, 3, 5]
    assert found.warnings[0].startswith("'cat/huge.png' skipped: the image is too large")


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"cat/notes.txt": b""}, "no training images in .*: got skipped, not images: 1"),
        ({"cat/1.png": b"", "dog/1.png": b""}, "no training images in .*: got 'cat/1.png' skip"),
        ({"1.png": png(1), "a.csv": b""}, "got '1.png' skipped: it lies in no class.*1 more"),
        ({"cat/Thumbs.db": b"x", "dog/desktop.ini": b"x"}, "no training images in .*: got nothing"),
        ({"cat/inner.zip": b"x"}, "unpack the archives inside it"),
        ({"1.png": png(1)}, "no training images in .*: got '1.png' skipped: it lies in no class"),
        ({"cat/1.png": png(1)}, "needs two classes or more: got only 'cat'; put the images"),
        ({"cat/1.png": png(1), "dog/1.png": b""}, "needs two classes or more: got only 'cat'"),
        (
            {f"train/{name}": content for name, content in TREE.items()}
            | {"test/emu/1.png": png(1)},
            "the test images of .* lack: got 'emu'; add training images",
        ),
    ],
)
def test_a_tree_that_is_no_training_set_is_refused(
    tree: dict[str, bytes], message: str, write: Write
) -> None:
    with pytest.raises(UserError, match=message):
        load(write(tree))


@pytest.mark.parametrize("tree", [{}, {".hidden/1.png": png(1)}])
def test_an_empty_tree_is_refused(tree: dict[str, bytes], tmp_path: Path) -> None:
    write_folder(tmp_path / "empty", tree).mkdir(exist_ok=True)
    with pytest.raises(UserError, match=r"no training images in .*: got nothing; put"):
        load(tmp_path / "empty")


def test_what_is_neither_folder_nor_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"can't read .*nowhere: got No such file .*; give a folder"
    ):
        load(tmp_path / "nowhere")
    (tmp_path / "a.zip").write_bytes(b"PK\3\4 but no more")
    with pytest.raises(
        UserError, match=r"a\.zip is no readable zip archive: got File is not a zip"
    ):
        load(tmp_path / "a.zip")
    with pytest.raises(UserError, match="/dev/null is neither a folder nor a file; give a folder"):
        load(Path("/dev/null"))


@pytest.mark.parametrize("size", [(0, 4), (4, 5000), (4,), (4.0, 4), (-1, 4)])
def test_sizes_must_make_sense(size: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the size must be \(height, width\)"):
        load_folder(tmp_path, size=size, channels=3)


def test_channels_are_one_or_three(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"channels must be 1 .* got 4"):
        load_folder(tmp_path, size=(4, 4), channels=4)


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder(tmp_path, TREE)
    monkeypatch.setattr(folder_module, "MAX_BYTES", 5 * 3 * 6 * 7)
    assert load_folder(root, size=(6, 7), channels=3).train.pixels.shape == (5, 3, 6, 7)
    with pytest.raises(UserError, match="too much memory: got 735 bytes; choose a smaller size"):
        load_folder(root, size=(7, 7), channels=3)


def test_progress_counts_every_picture(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    root = write_folder(tmp_path, TREE | {"cat/bad.png": b""})
    load_folder(root, size=(4, 4), channels=3, progress=lambda *counts: seen.append(counts))
    assert seen == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize("limit", [4, 5])
def test_the_number_of_files_is_bounded(
    limit: int, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "MAX_MEMBERS", limit)
    path = write(TREE)
    if limit == len(TREE):
        assert len(load(path).train) == len(TREE)
    else:
        with pytest.raises(UserError, match="holds more than 4 files"):
            load(path)


def test_a_file_too_large_is_left_out(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_module, "MAX_FILE_BYTES", 1000)
    found = load(write(TREE | {"cat/fat.png": png(1) + bytes(1000)}))
    assert values(found) == [1, 2, 4, 3, 5]
    assert found.warnings[0].startswith("'cat/fat.png' skipped: the file is too large; the limit")


def test_names_that_can_not_be_shown_are_left_out_and_escaped(write: Write) -> None:
    found = load(write(TREE | {"c\x1b[31mat/1.png": png(9)}))
    assert found.train.class_names == ("cat", "dog", "owl")
    assert found.warnings == (
        "'c\\x1b[31mat/1.png' skipped: its name holds characters that can't be shown",
    )


OUTSIDE = ["../cat/1.png", "/cat/1.png", "cat/../../1.png", "..\\cat\\1.png", "C:\\cat\\1.png"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_members_whose_path_leads_out_are_left_out(name: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    found = load(write_zip(inside / "a.zip", TREE | {name: png(9)}))
    assert values(found) == [1, 2, 4, 3, 5]
    assert len(found.warnings) == 1
    assert found.warnings[0].endswith("skipped: its path leads out of the archive")
    assert [p.name for p in tmp_path.rglob("*")] == ["inside", "a.zip"]


def test_backslashes_part_folders_as_windows_writes_them(tmp_path: Path) -> None:
    tree = {name.replace("/", "\\"): content for name, content in TREE.items()}
    assert values(load(write_zip(tmp_path / "a.zip", tree))) == [1, 2, 4, 3, 5]


def test_a_member_without_a_name_is_passed_over(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", TREE | {"cat/c.png": png(9)})
    # Names are cut at a zero byte.
    path.write_bytes(path.read_bytes().replace(b"cat/c.png", b"\0at/c.png"))
    found = load(path)
    assert values(found) == [1, 2, 4, 3, 5]
    assert found.warnings == ("skipped, not images: 1, the first ''",)


def test_links_in_an_archive_are_left_out(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", TREE)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("cat/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    found = load(path)
    assert values(found) == [1, 2, 4, 3, 5]
    assert found.warnings == ("'cat/link.png' skipped: it is a link",)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_bound_are_left_out(method: int, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", TREE)
    with zipfile.ZipFile(path, "a", method) as archive:
        archive.writestr("cat/c.png", png(9))
    found = load(path)
    assert values(found) == [1, 2, 4, 3, 5]
    assert found.warnings[0].endswith("it is compressed by another method than deflate")


def test_an_archive_that_would_grow_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = write_zip(tmp_path / "a.zip", TREE | {"cat/z.bmp": bytes(1 << 20)})
    packed = bomb.stat().st_size
    assert (1 << 20) / packed > listing_module.MAX_ARCHIVE_RATIO
    assert len(load(bomb).train) == len(TREE)
    monkeypatch.setattr(listing_module, "RATIO_COUNTS_FROM_BYTES", 1 << 20)
    with pytest.raises(UserError, match=rf"would grow too much .* got \d+ bytes in {packed}; unp"):
        load(bomb)


def test_the_whole_size_of_an_archive_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_zip(tmp_path / "a.zip", TREE, zipfile.ZIP_STORED)
    total = sum(map(len, TREE.values()))
    monkeypatch.setattr(listing_module, "MAX_ARCHIVE_BYTES", total)
    assert len(load(archive).train) == len(TREE)
    monkeypatch.setattr(listing_module, "MAX_ARCHIVE_BYTES", total - 1)
    with pytest.raises(UserError, match="would grow too much"):
        load(archive)


def test_members_that_lie_about_their_size_or_are_locked_are_left_out(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", TREE | {"cat/liar.png": bytes(5000)})
    content = bytearray(path.read_bytes())
    for name, offset, value in (("cat/liar.png", 24, 100), ("owl/1.png", 8, 1)):
        # The entry in the directory: its uncompressed size, or its flags of which 1 is encryption.
        entry = content.rindex(name.encode()) - 46
        assert content[entry : entry + 4] == b"PK\1\2"
        struct.pack_into("<H", content, entry + offset, value)
    path.write_bytes(content)
    found = load(path)
    assert values(found) == [1, 2, 4, 3]
    liar, locked = found.warnings
    assert liar.startswith("'cat/liar.png' skipped: the archive is damaged or locked here: got Bad")
    assert locked.startswith("'owl/1.png' skipped: the archive is damaged or locked here")
    assert "encrypted" in locked


@given(data=st.data())
def test_a_damaged_archive_gives_pictures_or_one_clear_error(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        path = write_zip(Path(temporary, "a.zip"), TREE)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 5))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        try:
            found = load(path)
        except UserError as error:
            outcome = str(error)
        else:
            assert set(values(found)) <= {1, 2, 3, 4, 5}
            outcome = "\t".join(found.warnings)
    assert "\n" not in outcome


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "tree", TREE)
    elsewhere = write_folder(tmp_path / "elsewhere", {"1.png": png(6)})
    (root / "emu").symlink_to(elsewhere, target_is_directory=True)
    (root / "cat" / "loop").symlink_to(root, target_is_directory=True)
    (root / "dog" / "self").symlink_to("self")
    (root / "owl" / "gone.png").symlink_to(tmp_path / "gone.png")
    found = load(root)
    assert found.train.class_names == ("cat", "dog", "emu", "owl")
    assert values(found) == [1, 2, 4, 3, 6, 5]
    assert found.warnings == (
        "'cat/loop' skipped: it links to '.', which was read already",
        "'dog/self' skipped: it is no regular file",
        "'owl/gone.png' skipped: it is no regular file",
    )


def test_links_to_folders_of_links_do_not_multiply(tmp_path: Path) -> None:
    root = write_folder(tmp_path, TREE)
    for level in range(40):
        (root / f"level{level}").mkdir()
        for name in ("left", "right"):
            (root / f"level{level}" / name).symlink_to(root / f"level{level + 1}")
    assert len(load(root).train) == len(TREE)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    root = write_folder(tmp_path, TREE)
    os.mkfifo(root / "cat" / "pipe.png")
    assert load(root).warnings == ("'cat/pipe.png' skipped: it is no regular file",)


def test_a_folder_without_images_beside_the_classes_is_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path, TREE)
    (root / "zebra").mkdir()
    assert "'zebra' holds no image, so it is no class" in load(root).warnings
