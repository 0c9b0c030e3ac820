import json
import sys
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.errors import UserError
from unmask.mask.runtime.detections import NOT_JUDGED, Detections

NAMES = ("a", "b")


def made(n: int, seed: int = 0) -> Detections:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 50, (n, 2))
    p = rng.uniform(0, 1, (n, 1)).astype(np.float32)
    return Detections(
        np.hstack([corners, corners + rng.uniform(1, 50, (n, 2))]).astype(np.float32),
        rng.integers(-1, 2, n),
        rng.uniform(0, 1, n).astype(np.float32),
        np.hstack([p, 1 - p]),
        NAMES,
        100,
        120,
    )


@given(st.integers(0, 6), st.integers(0, 99))
def test_detections_come_back_from_json_bit_for_bit(n: int, seed: int) -> None:
    found = made(n, seed)
    back = Detections.from_dict(json.loads(json.dumps(found.as_dict())))
    for name in ("boxes", "labels", "scores", "probabilities"):
        np.testing.assert_array_equal(getattr(back, name), getattr(found, name))
        assert getattr(back, name).dtype == getattr(found, name).dtype
    assert (back.class_names, back.width, back.height) == (NAMES, 100, 120)


@given(st.integers(0, 6))
def test_coco_boxes_have_a_corner_and_a_size(n: int) -> None:
    found = made(n)
    for i, entry in enumerate(found.to_coco(7)):
        left, top, width, height = entry["bbox"]
        np.testing.assert_allclose([left, top, left + width, top + height], found.boxes[i])
        assert entry["area"] == pytest.approx(width * height)
        assert (entry["image_id"], entry["category_id"]) == (7, found.labels[i] + 1)


def test_supervision_gets_every_field(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.SimpleNamespace(Detections=lambda **fields: fields)
    monkeypatch.setitem(sys.modules, "supervision", module)
    found = made(5)
    got = found.to_supervision()
    np.testing.assert_array_equal(got["xyxy"], found.boxes)
    np.testing.assert_array_equal(got["confidence"], found.confidences())
    np.testing.assert_array_equal(got["class_id"], found.labels)
    assert got["data"]["class_name"].tolist() == found.names()


def test_supervision_itself_takes_them() -> None:
    # Not among the development packages: it brings a second video library along.
    pytest.importorskip("supervision")
    found = made(5)
    for detections in (found, Detections.none(NAMES, 4, 4)):
        got = detections.to_supervision()
        assert len(got) == len(detections)
    got = found.to_supervision()
    np.testing.assert_allclose(got.area, np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1))
    assert got["class_name"].tolist() == found.names()


def test_without_supervision_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match="pip install supervision"):
        made(1).to_supervision()


def test_arrays_that_disagree_are_refused() -> None:
    empty = Detections.none(NAMES, 4, 5)
    with pytest.raises(UserError, match=r"scores must have the shape \(0,\)"):
        Detections(empty.boxes, empty.labels, np.zeros(1), empty.probabilities, NAMES, 4, 5)
    good = made(1)
    with pytest.raises(UserError, match="labels must lie in -1 to 1"):
        Detections(
            good.boxes, np.array([2]), good.scores, good.probabilities, good.class_names, 9, 9
        )
    with pytest.raises(UserError, match="one pixel or more"):
        Detections.none(NAMES, 0, 5)


@pytest.mark.parametrize("entries", [{}, {"class_names": ["a"], "faces": [{"label": "b"}]}])
def test_other_dictionaries_are_no_detections(entries: dict) -> None:
    with pytest.raises(UserError, match="these are no detections"):
        Detections.from_dict(entries)


def test_a_face_that_was_not_judged_has_no_class() -> None:
    found = made(30)
    assert all(
        (name == "not_judged") == (label == NOT_JUDGED)
        for name, label in zip(found.names(), found.labels, strict=True)
    )
