import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from made_up_annotations import (
    CLASSES,
    MADE,
    WRITERS,
    Made,
    voc_text,
    write_coco,
    write_picture,
    write_voc,
    write_yolo,
)
from unmask.data.detection.dataset import FACE_CLASSES, AnnotatedImages, load_faces, read_annotated
from unmask.errors import UserError

FACES = Path(os.environ.get("UNMASK_DATA", "../shared/data")) / "faces"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def zipped(folder: Path) -> Path:
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as into:
        for path in sorted(folder.rglob("*.*")):
            into.write(path, path.relative_to(folder))
    return archive


def check_made(found: AnnotatedImages, made: Made = MADE) -> None:
    assert found.class_names == CLASSES
    assert [path.stem for path in found.paths] == list(made)
    for i, (width, height, things) in enumerate(made.values()):
        assert found.sizes[i].tolist() == [width, height]
        assert [CLASSES[k] for k in found.labels[i]] == [name for name, _ in things]
        expected = np.array([box for _, box in things], np.float32).reshape(-1, 4)
        np.testing.assert_allclose(found.boxes[i], expected, atol=1e-4)
        assert found.pixels(i).shape == (height, width, 3)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_boxes_that_were_written_are_read(
    write: Callable[[Path, Made], Path], packed: bool, tmp_path: Path
) -> None:
    root = write(tmp_path / "set", MADE)
    found, warnings = read_annotated(zipped(root) if packed else root)
    check_made(found)
    assert not [line for line in warnings if "skipped, not images" not in line]
    assert found.counts.tolist() == [2, 1]
    assert found.name == "set"


def test_all_kinds_say_the_same(tmp_path: Path) -> None:
    read = [read_annotated(write(tmp_path / kind, MADE))[0] for kind, write in WRITERS.items()]
    for other in read[1:]:
        assert other.class_names == read[0].class_names
        for ours, theirs in zip(read[0].boxes, other.boxes, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
        for mine, its in zip(read[0].labels, other.labels, strict=True):
            np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_boxes_that_cannot_be_used_are_cut_or_dropped_and_told(
    write: Callable[[Path, Made], Path], tmp_path: Path
) -> None:
    amiss: list[tuple[tuple[float, float, float, float], str]] = [
        ((-5, 4, 10, 12), "1 box cut to the image"),
        ((12, 4, 8, 12), "1 box dropped as inverted or empty"),
        ((8, 4, 8, 12), "1 box dropped as inverted or empty"),
        ((70, 4, 80, 12), "1 box dropped as outside the image"),
        ((float("nan"), 4, 80, 12), "1 box dropped as not finite"),
        ((4, 4, float("inf"), 12), "1 box dropped as not finite"),
        ((4, 4, 1e300, 12), "1 box dropped as not finite"),
    ]
    good = ("masked", (2.0, 2.0, 20.0, 20.0))
    made: Made = {f"p{i}": (64, 48, [("bare", box), good]) for i, (box, _) in enumerate(amiss)}
    found, warnings = read_annotated(write(tmp_path / "set", made))
    assert len(found) == len(amiss)
    np.testing.assert_allclose(found.boxes[0], [[0, 4, 10, 12], [2, 2, 20, 20]], atol=1e-4)
    for i, (_, words) in enumerate(amiss):
        name = "instances.json" if write is write_coco else f"p{i}."
        assert any(name in line and words in line for line in warnings), (i, warnings)
        if i:
            assert [CLASSES[k] for k in found.labels[i]] == ["masked"]
            np.testing.assert_allclose(found.boxes[i], [[2, 2, 20, 20]], atol=1e-4)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_missing_picture_is_told_and_the_rest_is_read(
    write: Callable[[Path, Made], Path], tmp_path: Path
) -> None:
    root = write(tmp_path / "set", MADE)
    (root / "images/b.png").unlink()
    found, warnings = read_annotated(root)
    check_made(found, {name: MADE[name] for name in ("a", "c")})
    assert any("its image is missing" in line and "'b" in line for line in warnings)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_damaged_picture_is_told_and_the_rest_is_read(
    write: Callable[[Path, Made], Path], tmp_path: Path
) -> None:
    root = write(tmp_path / "set", MADE)
    (root / "images/a.png").write_bytes(b"")
    found, warnings = read_annotated(root)
    assert [path.stem for path in found.paths] == ["b", "c"]
    assert any("a.png" in line and "0 bytes" in line for line in warnings)


def test_pictures_that_nothing_annotates_are_told(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set", MADE)
    write_picture(root / "images/more.png", 8, 8)
    found, warnings = read_annotated(root)
    assert len(found) == 3
    assert warnings == ("images passed over as not annotated: 1, the first 'images/more.png'",)


def test_of_pictures_with_one_stem_the_nearest_is_taken(tmp_path: Path) -> None:
    # As sets split into parts lie: images/train, images/val, labels/train, labels/val.
    for seed, part in enumerate(("train", "val")):
        write_picture(tmp_path / "images" / part / "1.png", 32, 32, seed)
        path = tmp_path / "labels" / part / "1.txt"
        path.parent.mkdir(parents=True)
        path.write_text(f"{seed} 0.5 0.5 0.5 0.5")
    found, warnings = read_annotated(tmp_path)
    assert [path.parent.name for path in found.paths] == ["train", "val"]
    assert [labels.tolist() for labels in found.labels] == [[0], [1]]
    assert not warnings


def test_a_name_that_climbs_is_looked_up_inside(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set", MADE)
    write_picture(tmp_path / "secret.png", 64, 48)
    path = root / "instances.json"
    for name, count in (("../secret.png", 2), ("/elsewhere/images/a.jpg", 3)):
        content = json.loads(path.read_text())
        content["images"][0]["file_name"] = name
        path.write_text(json.dumps(content))
        found, warnings = read_annotated(root)
        assert len(found) == count
        assert all(p.is_relative_to(root) for p in found.paths)
        assert any("'../secret.png'" in line for line in warnings) == (count == 2)


def test_an_annotation_of_a_picture_of_another_size_is_left_out(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set", MADE)
    write_picture(root / "images/a.png", 10, 10)
    found, warnings = read_annotated(root)
    assert len(found) == 2
    assert "64 x 48 there and 10 x 10 here" in warnings[0]


def test_a_picture_is_annotated_once(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set", MADE)
    (root / "annotations/z").mkdir()
    (root / "annotations/z/a.xml").write_text(voc_text("a", 64, 48, []))
    found, warnings = read_annotated(root)
    check_made(found)
    assert "annotates its image already" in warnings[0]


@pytest.mark.parametrize("kind", ["nothing", "pictures", "text"])
def test_a_folder_without_annotations_is_a_clear_line(kind: str, tmp_path: Path) -> None:
    if kind == "pictures":
        write_picture(tmp_path / "a.png", 8, 8)
    if kind == "text":
        (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(UserError, match="no annotated images in"):
        read_annotated(tmp_path)


def test_annotations_without_a_box_are_a_clear_line(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set", {"a": (8, 8, [])})
    with pytest.raises(UserError, match="no box can be used"):
        read_annotated(root)


LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<annotation>" + "<a>" * 300_000, "no XML"),
        (f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><annotation>&l9;</annotation>', "unsafe"),
        (
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
            "unsafe",
        ),
        ('<!DOCTYPE a SYSTEM "http://localhost:9/a.dtd"><annotation/>', "unsafe"),
        ("<annotation>&nbsp;</annotation>", "no XML"),
        ("<annotation><object>", "no XML"),
        ("", "an empty file"),
        ("<" + "a>" * 50, "no XML"),
        ("<html></html>", "no PASCAL VOC annotation"),
        (voc_text("a", 64, 48, [("bare", (1, 2, 3, 4))]).replace("2<", "two<"), "ymin"),
        (voc_text("a", 64, 48, [("", (1, 2, 3, 4))]), "a class is named"),
        (voc_text("a", 64, 48, []).replace("64", "nan"), "width is no number"),
    ],
)
def test_an_xml_file_made_to_do_harm_or_damaged_is_told_and_skipped(
    text: str, words: str, tmp_path: Path
) -> None:
    root = write_voc(tmp_path / "set", MADE)
    (root / "annotations/a.xml").write_text(text)
    found, warnings = read_annotated(root)
    assert [path.stem for path in found.paths] == ["b", "c"]
    assert "'annotations/a.xml' skipped" in warnings[0]
    assert words in warnings[0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0.5 0.5 0.1", "class x y width height"),
        ("0 0.5 0.5 0.1 wide", "class x y width height"),
        ("-1 0.5 0.5 0.1 0.1", "classes are numbered"),
        ("9 0.5 0.5 0.1 0.1", "there are names for 2 classes only"),
        ("\udcff", "no text in UTF-8"),
    ],
)
def test_a_damaged_text_file_is_told_and_skipped(line: str, words: str, tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set", MADE)
    (root / "labels/a.txt").write_bytes(line.encode(errors="surrogateescape"))
    found, warnings = read_annotated(root)
    assert [path.stem for path in found.paths] == ["b", "c"]
    assert any("'labels/a.txt' skipped" in w and words in w for w in warnings)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("data.yaml", "names:\n  - bare\n  - 'masked'\nnc: 2\n"),
        ("data.yaml", 'path: x\nnames:\n  0: bare  # none\n  1: "masked"\n'),
        ("data.yaml", "names: {0: bare, 1: masked}\n"),
        ("classes.txt", "bare\nmasked\n"),
        ("obj.names", "bare\r\nmasked"),
    ],
)
def test_names_of_yolo_classes_come_in_many_forms(file: str, text: str, tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set", MADE)
    (root / "data.yaml").unlink()
    (root / file).write_text(text)
    check_made(read_annotated(root)[0])


def test_yolo_classes_without_names_are_numbered(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set", MADE)
    (root / "data.yaml").unlink()
    assert read_annotated(root)[0].class_names == ("class 0", "class 1")


def test_one_bad_annotation_of_coco_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set", MADE)
    path = root / "instances.json"
    content = json.loads(path.read_text())
    content["annotations"].insert(0, {"image_id": 1, "category_id": 7})
    path.write_text(json.dumps(content))
    found, warnings = read_annotated(root)
    check_made(found, MADE)
    assert any("passed over: 1, the first" in line for line in warnings)


def test_outlines_and_turned_boxes_of_yolo_become_the_boxes_round_them(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set", {"a": (100, 50, [("bare", (10, 10, 30, 40))])})
    label = next(root.rglob("a.txt"))
    label.write_text("0 0.1 0.2 0.3 0.2 0.3 0.8 0.1 0.8\n0.0 0.5 0.5 0.6 0.9 0.4 0.7\n")
    (root / "README.txt").write_text("Exported from a labelling tool\n")
    (root / "train.txt").write_text("images/a.png\n")
    found, warnings = read_annotated(root)
    np.testing.assert_allclose(found.boxes[0], [[10, 10, 30, 40], [40, 25, 60, 45]], atol=1e-4)
    assert [line for line in warnings if "skipped" in line] == []
    assert "outlines and turned boxes taken as the boxes round them: 2" in warnings


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": 3}, "no COCO annotations"),
        ({"categories": [{"id": 1}]}, "categories without an id and a name"),
        ({"images": [{"file_name": "a.png"}]}, "images without id and file_name"),
    ],
)
def test_a_damaged_coco_file_is_told(change: dict[str, object], words: str, tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set", MADE)
    path = root / "instances.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"no annotated images in|no box can be used in") as caught:
        read_annotated(root)
    assert words in str(caught.value)


def test_boxes_round_crowds_are_passed_over(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set", MADE)
    path = root / "instances.json"
    content = json.loads(path.read_text())
    crowd = {"image_id": 1, "category_id": 7, "bbox": [0, 0, 9, 9], "iscrowd": 1}
    path.write_text(json.dumps(content | {"annotations": [*content["annotations"], crowd]}))
    found, warnings = read_annotated(root)
    check_made(found)
    assert warnings == ("'instances.json': boxes round crowds passed over: 1",)


def test_a_zip_archive_writes_nothing_outside_its_folder(tmp_path: Path, cache: Path) -> None:
    root = write_voc(tmp_path / "set", MADE)
    archive = zipped(root)
    with zipfile.ZipFile(archive, "a") as into:
        for name in ("../climbed.png", "/climbed.png", "a/../../climbed.xml", "C:\\climbed.png"):
            into.writestr(name, (root / "images/a.png").read_bytes())
    check_made(read_annotated(archive)[0])
    assert not list(tmp_path.rglob("*climbed*"))
    # Told apart by content, and unpacked once.
    (folder,) = (cache / "unmask/unpacked").iterdir()
    before = folder.stat().st_mtime_ns
    check_made(read_annotated(archive)[0])
    assert folder.stat().st_mtime_ns == before


def test_what_is_no_zip_archive_is_a_clear_line(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(UserError, match="no readable zip archive"):
        read_annotated(tmp_path / "set.zip")
    with pytest.raises(UserError, match="can't read"):
        read_annotated(tmp_path / "none")


def test_parts_keep_what_belongs_together(tmp_path: Path) -> None:
    found = read_annotated(write_voc(tmp_path / "set", MADE))[0]
    part = found[np.array([1, 0])]
    assert [path.stem for path in part.paths] == ["b", "a"]
    np.testing.assert_array_equal(part.boxes[1], found.boxes[0])
    assert len(found[[]]) == 0
    assert found[[]].counts.tolist() == [0, 0]


def test_the_checksum_knows_pixels_boxes_and_labels(tmp_path: Path) -> None:
    read = {
        "same": read_annotated(write_voc(tmp_path / "one", MADE))[0].sha256,
        "again": read_annotated(write_coco(tmp_path / "two", MADE))[0].sha256,
    }
    assert read["same"] == read["again"]
    moved = MADE | {"b": (40, 80, [("bare", (0, 0, 40, 79))])}
    named = MADE | {"b": (40, 80, [("masked", (0, 0, 40, 80))])}
    others = [
        read_annotated(write_voc(tmp_path / f"m{i}", m))[0] for i, m in enumerate((moved, named))
    ]
    painted = write_voc(tmp_path / "painted", MADE)
    write_picture(painted / "images/a.png", 64, 48, seed=99)
    others.append(read_annotated(painted)[0])
    assert len({read["same"], *(o.sha256 for o in others)}) == 4


def test_classes_are_numbered_as_asked(tmp_path: Path) -> None:
    found = read_annotated(write_voc(tmp_path / "set", MADE))[0]
    renamed = found.with_classes(("masked", "other", "bare"))
    assert [k.tolist() for k in renamed.labels] == [[0, 2], [2], []]
    with pytest.raises(UserError, match="bare"):
        found.with_classes(("masked", "other"))
    with pytest.raises(UserError, match="bare"):
        load_faces(tmp_path / "set")


def test_arrays_that_do_not_fit_are_refused() -> None:
    size, box = np.array([[9, 9]]), np.zeros((1, 4), np.float32)
    label = np.zeros(1, np.int64)

    def made(
        boxes: np.ndarray = box, labels: np.ndarray = label, names: tuple[str, ...] = ("a",)
    ) -> AnnotatedImages:
        return AnnotatedImages((Path("a"),), size, (boxes,), (labels,), names, "x")

    assert len(made()) == 1
    for wrong in (
        lambda: made(boxes=box[:0]),
        lambda: made(boxes=box.astype(np.float64)),
        lambda: made(labels=label + 1),
        lambda: made(labels=label - 1),
        lambda: made(names=()),
        lambda: made(names=("a", "a")),
        lambda: AnnotatedImages((), size, (), (), ("a",), "x"),
    ):
        with pytest.raises(UserError):
            wrong()


@pytest.mark.data
@pytest.mark.skipif(not FACES.is_dir(), reason="the face mask set is not there")
def test_the_face_mask_set_is_read_whole() -> None:
    found, warnings = read_annotated(FACES)
    faces = found.with_classes(FACE_CLASSES)
    assert len(faces) == 725
    assert faces.counts.tolist() == [2680, 606, 107]
    assert all("cut to the image" in line for line in warnings)
    for boxes, (width, height) in zip(faces.boxes, faces.sizes, strict=True):
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] <= [width, height]).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
