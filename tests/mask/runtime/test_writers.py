import csv
import json
from pathlib import Path

import numpy as np
import pytest

from unmask.errors import UserError
from unmask.mask.runtime.detections import Detections
from unmask.mask.runtime.gate import Summary, require_mask_class
from unmask.mask.runtime.writers import FORMATS, Record, write_records

NAMES = ("with_mask", "without_mask")


def found(*labels: int) -> Detections:
    n = len(labels)
    return Detections(
        np.arange(4 * n, dtype=np.float32).reshape(n, 4) + np.float32([0, 0, 10, 10]),
        np.array(labels, np.int64),
        np.full(n, 0.75, np.float32),
        np.full((n, 2), 0.5, np.float32),
        NAMES,
        64,
        48,
    )


RECORDS = [
    Record("a,b.jpg", found(0, -1)),
    Record("empty.jpg", found()),
    Record("v.mp4", found(1), 3, 0.12, np.array([7])),
]


def written(folder: Path, kind: str, records: list[Record]) -> str:
    with write_records(folder, kind, NAMES) as add:
        for record in records:
            add(record)
    return (folder / FORMATS[kind][0]).read_text("utf-8")


def test_json_and_json_lines_hold_the_same_and_give_it_back(tmp_path: Path) -> None:
    whole = json.loads(written(tmp_path, "json", RECORDS))
    lines = [json.loads(line) for line in written(tmp_path, "jsonl", RECORDS).splitlines()]
    assert whole == lines == [record.as_dict() for record in RECORDS]
    for entries, record in zip(whole, RECORDS, strict=True):
        back = Detections.from_dict(entries)
        np.testing.assert_array_equal(back.boxes, record.found.boxes)
    assert (whole[2]["frame"], whole[2]["seconds"]) == (3, 0.12)
    assert whole[2]["faces"][0]["track"] == 7
    assert json.loads(written(tmp_path, "json", [])) == []


def test_csv_has_a_line_a_face(tmp_path: Path) -> None:
    rows = list(csv.DictReader(written(tmp_path, "csv", RECORDS).splitlines()))
    assert [row["file"] for row in rows] == ["a,b.jpg", "a,b.jpg", "v.mp4"]
    assert [row["label"] for row in rows] == ["with_mask", "not_judged", "without_mask"]
    assert [float(rows[1][side]) for side in ("left", "top", "right", "bottom")] == [4, 5, 16, 17]
    assert (rows[2]["frame"], rows[2]["track"], rows[0]["frame"]) == ("3", "7", "")
    assert float(rows[0]["with_mask"]) == 0.5


def test_coco_joins_by_its_numbers(tmp_path: Path) -> None:
    got = json.loads(written(tmp_path, "coco", RECORDS))
    images = {image["id"]: image for image in got["images"]}
    names = {category["id"]: category["name"] for category in got["categories"]}
    seen = [
        (images[a["image_id"]]["file_name"], names[a["category_id"]]) for a in got["annotations"]
    ]
    assert seen == [
        ("a,b.jpg", "with_mask"),
        ("a,b.jpg", "not_judged"),
        ("v.mp4#3", "without_mask"),
    ]
    assert len(images) == 3
    assert len({a["id"] for a in got["annotations"]}) == 3


def test_a_run_that_fails_leaves_no_half_file(tmp_path: Path) -> None:
    broken = [RECORDS[0], None]
    with pytest.raises(AttributeError):
        written(tmp_path, "json", broken)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="did you mean 'json'"),
        write_records(tmp_path, "jsn", NAMES),
    ):
        pass


def test_the_summary_counts_in_plain_words() -> None:
    summary = Summary(NAMES, pictures=2)
    assert summary.line() == "2 images: no faces"
    summary.add(["with_mask", "with_mask", "not_judged"])
    summary.add(["without_mask"])
    assert summary.line() == (
        "2 images: 4 faces: 2 with mask, 1 without mask, 1 not clear enough to judge"
    )
    assert summary.as_dict()["faces"] == {"with_mask": 2, "without_mask": 1, "not_judged": 1}
    summary.passed_over.append("a.heic")
    assert summary.line().endswith("; 1 not looked at or not whole")


def test_masks_are_required_only_where_they_are_known() -> None:
    require_mask_class(NAMES)
    with pytest.raises(UserError, match="needs a detector with the class 'with_mask'"):
        require_mask_class(("cat", "dog"))


def test_scores_of_coco_are_of_the_face_and_its_class_so_that_others_measure_the_same(
    tmp_path: Path,
) -> None:
    # One face of each class: by the face's score alone the wrong box of the first would lead.
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], np.float32)
    scores = np.array([0.6, 0.9, 0.8], np.float32)
    rows = np.array([[0.95, 0.05], [0.55, 0.45], [0.1, 0.9]], np.float32)
    said = Detections(boxes, np.array([0, 0, 1]), scores, rows, NAMES, 64, 48)
    entries = json.loads(written(tmp_path, "coco", [Record("a.png", said)]))["annotations"]
    np.testing.assert_allclose([e["score"] for e in entries], [0.57, 0.495, 0.72], atol=1e-6)
    np.testing.assert_allclose([e["face_score"] for e in entries], scores)
    order = sorted(entries[:2], key=lambda e: -e["score"])
    assert order[0]["bbox"] == [0, 0, 10, 10]
