"""What other people's tools export is read as it lies."""

import json
from pathlib import Path

import numpy as np
import pytest

from made_up_annotations import MADE, write_coco, write_picture, write_voc, write_yolo
from unmask.data.detection.dataset import given_parts, left_out, read_annotated
from unmask.errors import UserError

SIZE = (100, 50)


def picture(path: Path, seed: int = 0) -> None:
    write_picture(path, *SIZE, seed)


def roboflow(root: Path) -> Path:
    """As Roboflow exports for YOLO, with an image of each part, and one without a label file."""
    for seed, part in enumerate(("train", "valid", "test")):
        picture(root / part / "images" / f"{part}_jpg.rf.1a2b.png", seed)
        label = root / part / "labels" / f"{part}_jpg.rf.1a2b.txt"
        label.parent.mkdir(parents=True)
        label.write_text("1 0.5 0.5 0.2 0.4\n")
    picture(root / "train" / "images" / "empty.png", 9)
    (root / "README.dataset.txt").write_text("# Masks > 2026-01-01\n1 image of masks\n")
    (root / "README.roboflow.txt").write_text("\nMasks - v1\n=====\n0.5 0.5\n")
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames:\n- Mask\n- No Mask\n"
        "roboflow:\n  workspace: a\n  url: https://universe.example/a?b=c\n"
    )
    return root


def test_an_export_for_yolo_keeps_its_parts_and_its_background(tmp_path: Path) -> None:
    found, warnings = read_annotated(roboflow(tmp_path / "set"))
    assert found.class_names == ("Mask", "No Mask")
    assert [len(boxes) for boxes in found.boxes] == [1, 0, 1, 1]
    assert [path.stem[:5] for path in found.paths] == ["test_", "empty", "train", "valid"]
    assert not left_out(warnings)
    (background,) = [line for line in warnings if "background" in line]
    assert background.endswith(": 1, the first 'train/images/empty.png'")
    parts = given_parts(found)
    assert {name: rows.tolist() for name, rows in parts.items()} == {
        "train": [1, 2],
        "validation": [3],
        "test": [0],
    }


def test_one_part_of_an_export_takes_its_names_from_above(tmp_path: Path) -> None:
    found, warnings = read_annotated(roboflow(tmp_path / "set") / "train")
    assert found.class_names == ("Mask", "No Mask")
    assert found.labels[1].tolist() == [1]
    assert not left_out(warnings)


@pytest.mark.parametrize("line", ["0 10 20 30 60", "0 10 20 30 20 30 60 10 60"])
def test_pixels_for_fractions_are_refused(line: str, tmp_path: Path) -> None:
    for name, content in (("a", line), ("b", "0 0.5 0.5 0.2 0.4")):
        picture(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(content)
    found, warnings = read_annotated(tmp_path)
    assert [path.name for path in found.paths] == ["b.png"]
    assert any("divide pixels by the width and height" in line for line in warnings)


def test_an_image_whose_label_file_is_damaged_is_no_background(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set", MADE)
    (root / "labels" / "a.txt").write_text("0 wide")
    found, warnings = read_annotated(root)
    assert [path.stem for path in found.paths] == ["b", "c"]
    assert left_out(warnings)


@pytest.mark.parametrize(
    ("file", "text", "names"),
    [
        ("mask.yaml", "names:\n  [yes, no]\n", ("yes", "no")),
        ("mask.yaml", "names:\n  '0': 1.0\n  '1': off\n", ("1.0", "off")),
        ("any.yml", "names: &n [a,\n  'b: c']\nmore: *n\n", ("a", "b: c")),
        ("data.yaml", "names: [\n  'a',  # one\n  \"b\"\n]\n", ("a", "b")),
        ("data.yaml", "names: >-\n  a,\n  b\n", ("a", "b")),
        ("data.yaml", "%YAML 1.1\n---\nnames: {1: b, 0: a}\n", ("a", "b")),
        ("_darknet.labels", "a\nb\n", ("a", "b")),
        ("data.yaml", "nc: 2\n", ("class 0", "class 1")),
        ("docker-compose.yml", "services: {}\n", ("class 0", "class 1")),
    ],
)
def test_names_come_in_every_form_of_yaml(
    file: str, text: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    root = write_yolo(tmp_path / "set", MADE)
    (root / "data.yaml").unlink()
    (root / file).write_text(text)
    found, warnings = read_annotated(root)
    assert found.class_names == names
    assert not left_out(warnings)


def test_yaml_makes_no_objects_and_damage_is_named(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set", MADE)
    made = tmp_path / "made"
    (root / "data.yaml").write_text(f"names: !!python/object/apply:os.mkdir ['{made}']\n")
    read_annotated(root)
    assert not made.exists()
    (root / "data.yaml").write_text("names: [a, b\n")
    assert any("'data.yaml' skipped: no YAML" in line for line in read_annotated(root)[1])


def test_of_two_descriptions_the_one_that_counts_is_told(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set", MADE)
    (root / "classes.txt").write_text("masked\nbare\n")
    found, warnings = read_annotated(root)
    assert found.class_names == ("bare", "masked")
    assert any("'classes.txt' names other classes than 'data.yaml'" in line for line in warnings)


@pytest.mark.parametrize(
    ("line", "extra", "box"),
    [
        ("0 0.5 0.5 0.2 0.4 0.93", "", (40, 15, 60, 35)),
        ("0 0.5 0.5 0.2 0.4 0.1 0.1 2 0.9 0.9 2", "kpt_shape: [2, 3]\n", (40, 15, 60, 35)),
        ("0 0.1 0.2 0.3 0.2 0.2 0.8", "", (10, 10, 30, 40)),
        ("0 0.5 0.2 0.7 0.5 0.5 0.8 0.3 0.5", "", (30, 10, 70, 40)),
    ],
)
def test_lines_of_every_task_give_boxes(
    line: str, extra: str, box: tuple[int, ...], tmp_path: Path
) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(line)
    (tmp_path / "data.yaml").write_text(f"names: [face]\n{extra}")
    found, warnings = read_annotated(tmp_path)
    np.testing.assert_allclose(found.boxes[0], [box], atol=1e-3)
    assert not left_out(warnings)


def test_entries_of_coco_that_can_not_be_used_are_named_and_the_others_read(
    tmp_path: Path,
) -> None:
    root = write_coco(tmp_path / "set", MADE)
    path = root / "instances.json"
    content = json.loads(path.read_text())
    # Ids as text on one side only, as some tools write them.
    for entry in content["annotations"]:
        entry["image_id"] = str(entry["image_id"])
    for entry in content["categories"]:
        entry["id"] = str(entry["id"])
    content["images"].append({"id": 99})
    content["categories"] += [{"id": 98}, {"id": 0, "name": "Faces"}]
    for entry in content["categories"][:2]:
        entry["supercategory"] = "Faces"
    content["annotations"] += [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [0, 0, "a", 1]}]
    path.write_text(json.dumps(content))
    found, warnings = read_annotated(root)
    assert found.class_names == ("bare", "masked")
    assert [len(boxes) for boxes in found.boxes] == [2, 1, 0]
    told = "\n".join(warnings)
    assert "1 images without id and file_name, the first {'id': 99}" in told
    assert "categories without an id and a name passed over: 1" in told
    assert "annotations without image_id, category_id or bbox passed over: 1" in told


def test_outlines_of_coco_without_a_box_give_one(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set", {"a": (*SIZE, [("bare", (0, 0, 9, 9))])})
    path = root / "instances.json"
    content = json.loads(path.read_text())
    del content["annotations"][0]["bbox"]
    content["annotations"][0]["segmentation"] = [[10, 10, 30, 12, 20, 40]]
    path.write_text(json.dumps(content))
    np.testing.assert_allclose(read_annotated(root)[0].boxes[0], [[10, 10, 30, 40]])


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><labels><label><name>Mask</name></label></labels></task></meta>
  <image id="0" name="day/a.png" width="100" height="50">
    <box label="Mask" xtl="10" ytl="10" xbr="30" ybr="40" occluded="0"/>
    <box label="Mask" xtl="40" ytl="20" xbr="60" ybr="30" rotation="90.0"/>
    <polygon label="No Mask" points="70.0,5.0;90.0,5.0;80.0,25.0"/>
    <points label="eye" points="1.0,1.0"/>
    <box label="Mask" xtl="10" ytl="10" xbr="wide" ybr="40"/>
    <tag label="day"/>
  </image>
  <image id="1" name="b.png" width="100" height="50"/>
  <image id="2" name="gone.png" width="100" height="50"/>
</annotations>"""


def test_cvat_files_are_read(tmp_path: Path) -> None:
    picture(tmp_path / "images/day/a.png")
    picture(tmp_path / "images/b.png", 1)
    (tmp_path / "annotations.xml").write_text(CVAT)
    found, warnings = read_annotated(tmp_path)
    assert found.class_names == ("Mask", "No Mask")
    by_stem = dict(zip((p.stem for p in found.paths), found.boxes, strict=True))
    boxes = [[10, 10, 30, 40], [45, 15, 55, 35], [70, 5, 90, 25]]
    np.testing.assert_allclose(by_stem["a"], boxes, atol=1e-4)
    assert len(by_stem["b"]) == 0
    told = "\n".join(warnings)
    assert "a box of 'day/a.png'" in told
    assert "gone.png' skipped: its image is missing" in told
    assert warnings.count("outlines and turned boxes taken as the boxes round them: 2") == 1


def test_a_video_of_cvat_is_one_line(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "annotations.xml").write_text("<annotations><track id='0'/></annotations>")
    with pytest.raises(UserError, match="CVAT for images"):
        read_annotated(tmp_path)


def region(label: str, **value: object) -> dict[str, object]:
    value = {"x": 10, "y": 20, "width": 20, "height": 60, "rotation": 0, **value}
    return {
        "type": "rectanglelabels",
        "value": {**value, "rectanglelabels": [label]},
        "original_width": 100,
        "original_height": 50,
    }


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/3/1a2b3c4d-a%20b.png",
        "/data/local-files/?d=day/a b.png",
        "s3://bucket/a b.png",
    ],
)
def test_label_studio_tasks_are_read(address: str, tmp_path: Path) -> None:
    picture(tmp_path / "day" / "a b.png")
    picture(tmp_path / "c.png", 1)
    outline = {"points": [[50, 20], [70, 20], [60, 80]], "polygonlabels": ["No Mask"]}
    tasks = [
        {
            "id": 1,
            "data": {"image": address},
            "annotations": [
                {"was_cancelled": True, "result": [region("Mask")] * 9},
                {
                    "result": [
                        region("Mask"),
                        # About its corner at (60, 10): 20 wide and 30 high become 30 to the left.
                        region("Mask", x=60, rotation=90),
                        {"type": "polygonlabels", "value": outline},
                        {"type": "choices", "value": {"choices": ["day"]}},
                        region("Mask", width="wide"),
                    ]
                },
            ],
        },
        {"id": 2, "data": {"image": "/data/upload/3/5e6f7a8b-c.png"}, "annotations": []},
        {"id": 3, "data": {"image": "gone.png"}, "annotations": []},
        "no task",
    ]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    found, warnings = read_annotated(tmp_path)
    assert found.class_names == ("Mask", "No Mask")
    by_stem = dict(zip((p.stem for p in found.paths), found.boxes, strict=True))
    boxes = [[10, 10, 30, 40], [30, 10, 60, 30], [50, 10, 70, 40]]
    np.testing.assert_allclose(by_stem["a b"], boxes, atol=1e-3)
    assert len(by_stem["c"]) == 0
    told = "\n".join(warnings)
    assert "a region of " in told
    assert "task 3' skipped: its image is missing" in told
    assert "task 4' skipped: no task of Label Studio's" in told
    assert "outlines and turned boxes taken as the boxes round them: 2" in told


def test_the_short_form_of_label_studio_is_read(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    task = {"image": "/data/upload/1/1a2b3c4d-a.png", "id": 1, "annotator": 1}
    value = region("Mask")["value"]
    (tmp_path / "export.json").write_text(json.dumps([{**task, "label": [value]}]))
    found, _ = read_annotated(tmp_path)
    np.testing.assert_allclose(found.boxes[0], [[10, 10, 30, 40]], atol=1e-3)


def test_classes_of_one_name_become_one_and_others_can_be_left_out(tmp_path: Path) -> None:
    found, _ = read_annotated(write_voc(tmp_path / "set", MADE))
    one = found.named(("face", "face"))
    assert (one.class_names, one.counts.tolist()) == (("face",), [3])
    assert found.only(("masked",)).counts.tolist() == [0, 1]
    with pytest.raises(UserError, match="has 2 classes"):
        found.named(("face",))
