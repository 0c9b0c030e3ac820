import os
from pathlib import Path

import numpy as np
import pytest

from unmask.data.detection.boxes import iou
from unmask.data.detection.corrections import (
    COLUMNS,
    FACE_CORRECTIONS,
    Correction,
    apply_corrections,
    read_copies,
    read_corrections,
    write_corrections,
)
from unmask.data.detection.dataset import FACE_CLASSES, load_faces
from unmask.errors import UserError

FACES = Path(os.environ.get("UNMASK_DATA", "../shared/data")) / "faces"
BOXES = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], np.float32)
LABELS = np.array([0, 1, 2])
HEADER = ",".join(COLUMNS)


def test_each_action_changes_what_it_names() -> None:
    made = apply_corrections(
        BOXES,
        LABELS,
        [
            Correction("a", "remove", (0, 0, 10, 10)),
            Correction("a", "class", (20, 0, 30, 10), "without_mask"),
            Correction("a", "class", (40, 0, 50, 10), "with_mask"),
            Correction("a", "box", (40, 0, 50, 10), new_box=(41, 1, 52, 12)),
            Correction("a", "add", (60, 0, 70, 10), "without_mask"),
            Correction("a", "ignore", (80, 0, 85, 5)),
        ],
        FACE_CLASSES,
    )
    np.testing.assert_array_equal(
        made.boxes, np.array([[20, 0, 30, 10], [41, 1, 52, 12], [60, 0, 70, 10]], np.float32)
    )
    np.testing.assert_array_equal(made.labels, [1, 0, 1])
    np.testing.assert_array_equal(made.ignored, np.array([[80, 0, 85, 5]], np.float32))
    assert (made.boxes.dtype, made.labels.dtype) == (np.float32, np.int64)


def test_an_annotated_box_that_is_ignored_is_no_face_any_more() -> None:
    ignore = Correction("a", "ignore", (20, 0, 30, 10))
    made = apply_corrections(BOXES, LABELS, [ignore], FACE_CLASSES)
    np.testing.assert_array_equal(made.boxes, BOXES[[0, 2]])
    np.testing.assert_array_equal(made.labels, [0, 2])
    np.testing.assert_array_equal(made.ignored, BOXES[[1]])


def test_no_corrections_change_nothing_and_the_arrays_given_stay() -> None:
    made = apply_corrections(BOXES, LABELS, [], FACE_CLASSES)
    np.testing.assert_array_equal(made.boxes, BOXES)
    assert made.ignored.shape == (0, 4)
    before = BOXES.copy()
    box = Correction("a", "box", (0, 0, 10, 10), new_box=(1, 1, 9, 9))
    apply_corrections(BOXES, LABELS, [box], FACE_CLASSES)
    np.testing.assert_array_equal(BOXES, before)


def test_an_image_without_annotations_takes_additions() -> None:
    none = np.zeros((0, 4), np.float32)
    add = Correction("a", "add", (1, 2, 3, 4), "with_mask")
    made = apply_corrections(none, np.zeros(0, np.int64), [add], FACE_CLASSES)
    np.testing.assert_array_equal(made.boxes, np.array([[1, 2, 3, 4]], np.float32))
    np.testing.assert_array_equal(made.labels, [0])


def test_a_box_cut_to_its_image_is_still_the_one_named() -> None:
    # The set has boxes that end a pixel beyond the image; two pixels off is another box.
    cut = np.array([[390, 5, 400, 20]], np.float32)
    remove = Correction("a", "remove", (390, 5, 401, 20))
    assert not len(apply_corrections(cut, np.array([0]), [remove], FACE_CLASSES).boxes)
    other = Correction("a", "remove", (388, 5, 400, 20))
    with pytest.raises(UserError, match="no box of a is annotated there"):
        apply_corrections(cut, np.array([0]), [other], FACE_CLASSES)


def test_unknown_classes_are_named() -> None:
    add = Correction("a", "add", (1, 2, 3, 4), "helmet")
    with pytest.raises(UserError, match="helmet"):
        apply_corrections(BOXES, LABELS, [add], FACE_CLASSES)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    rows = [
        Correction("b", "box", (1, 2, 3, 4), new_box=(2, 3, 4, 5), reason="half, of the face"),
        Correction("a", "add", (1, 2, 3, 4), "with_mask", reason="missed"),
        Correction("a", "ignore", (0, 2, 3, 4)),
    ]
    write_corrections(tmp_path / "c.csv", rows)
    assert read_corrections(tmp_path / "c.csv") == {"a": [rows[2], rows[1]], "b": [rows[0]]}
    assert list(read_corrections(tmp_path / "c.csv")) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,action\na,add\n", "columns"),
        (f"{HEADER}\na,move,1,2,3,4,,,,,,\n", "line 2.*move"),
        (f"{HEADER}\na,remove,1,2,x,4,,,,,,\n", "line 2.*x"),
        (f"{HEADER}\na,remove,3,2,1,4,,,,,,\n", "line 2.*empty box"),
        (f"{HEADER}\na,add,1,2,3,4,,,,,,\n", "line 2.*class"),
        (f"{HEADER}\na,remove,1,2,3,4,with_mask,,,,,\n", "line 2.*class"),
        (f"{HEADER}\na,box,1,2,3,4,,,,,,\n", "line 2.*new box"),
        (f"{HEADER}\na,remove,1,2,3,4,,1,2,3,4,\n", "line 2.*new box"),
        (f"{HEADER}\na,remove,1,2\n", "line 2"),
        (f"{HEADER}\n,remove,1,2,3,4,,,,,,\n", "line 2.*names its image"),
    ],
)
def test_rows_that_are_no_corrections_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_corrections(tmp_path / "c.csv")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"c\.csv"):
        read_corrections(tmp_path / "c.csv")


def test_the_corrections_that_ship_are_sorted_and_give_reasons(tmp_path: Path) -> None:
    found = read_corrections()
    everything = [c for own in found.values() for c in own]
    write_corrections(tmp_path / "c.csv", everything)
    assert (tmp_path / "c.csv").read_bytes() == FACE_CORRECTIONS.read_bytes()
    assert all(c.reason for c in everything)
    assert len({(c.image, c.action, c.box) for c in everything}) == len(everything)
    assert {c.class_name for c in everything} <= {"", *FACE_CLASSES}


def test_copies_are_grouped(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("group,image\n1,a\n2,b\n1,c\n2,d\n")
    assert read_copies(tmp_path / "c.csv") == [("a", "c"), ("b", "d")]
    (tmp_path / "c.csv").write_text("image\na\n")
    with pytest.raises(UserError, match="columns"):
        read_copies(tmp_path / "c.csv")


def test_the_copies_that_ship_are_groups_without_a_common_image() -> None:
    groups = read_copies()
    assert all(len(group) > 1 for group in groups)
    images = [image for group in groups for image in group]
    assert len(set(images)) == len(images)


@pytest.mark.data
@pytest.mark.skipif(not FACES.exists(), reason="needs the face mask set; set UNMASK_DATA")
def test_the_corrections_that_ship_fit_the_set() -> None:
    faces = load_faces(FACES)
    of_stem = {path.stem: i for i, path in enumerate(faces.paths)}
    found = read_corrections()
    assert set(found) <= set(of_stem)
    assert {image for group in read_copies() for image in group} <= set(of_stem)
    for stem, own in found.items():
        i = of_stem[stem]
        width, height = faces.sizes[i]
        # Every named box is annotated, or this raises.
        made = apply_corrections(faces.boxes[i], faces.labels[i], own, faces.class_names)
        for c in own:
            for box in (c.box, c.new_box):
                # One pixel, as the set's own boxes.
                assert box is None or (box[2] <= width + 1 and box[3] <= height + 1), c
        # No face is annotated twice by what was added.
        first = len(made.boxes) - sum(c.action == "add" for c in own)
        overlaps = iou(made.boxes[first:], made.boxes)
        np.fill_diagonal(overlaps[:, first:], 0)
        assert overlaps.max(initial=0) < 0.5, stem
