import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from unmask.data.detection.dataset import AnnotatedImages
from unmask.errors import UserError
from unmask.mask.evaluate.matching import FaceMatches, matched
from unmask.mask.evaluate.metrics import (
    DetectionMetrics,
    average_precision,
    class_curve,
    measured,
    resampled,
    size_name,
)
from unmask.mask.runtime.detections import Detections
from unmask.stats import wilson

NAMES = ("masked", "bare", "improper")
SIDE = 200


def annotated(boxes: list[Any], labels: list[Any]) -> AnnotatedImages:
    return AnnotatedImages(
        tuple(Path(f"{i}.png") for i in range(len(boxes))),
        np.full((len(boxes), 2), SIDE),
        tuple(np.array(own, np.float32).reshape(-1, 4) for own in boxes),
        tuple(np.array(own, np.int64) for own in labels),
        NAMES,
        "made up",
    )


def found(boxes: Any, labels: Any, scores: Any, probabilities: Any = None) -> Detections:
    labels = np.array(labels, np.int64)
    if probabilities is None:
        probabilities = np.where(labels[:, None] < 0, 1 / 3, np.eye(3)[labels])
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        labels,
        np.array(scores, np.float32),
        np.array(probabilities, np.float32).reshape(-1, 3),
        NAMES,
        SIDE,
        SIDE,
    )


def random_pictures(seed: int, pictures: int) -> tuple[AnnotatedImages, list[Detections]]:
    """Crowded boxes on a coarse grid and detections near some, with equal scores among them."""
    rng = np.random.default_rng(seed)

    def some(n: int) -> NDArray[np.float64]:
        corners = 8.0 * rng.integers(0, 12, (n, 2))
        return np.hstack([corners, corners + 8.0 * rng.integers(1, 8, (n, 2))])

    boxes = [some(int(n)) for n in rng.integers(0, 8, pictures)]
    labels = [rng.integers(0, 3, len(own)) for own in boxes]
    detections = []
    for own in boxes:
        near = own[rng.random(len(own)) < 0.8] + rng.integers(-1, 2, 4) * 4.0
        drawn = np.vstack([near, near[: len(near) // 2], some(int(rng.integers(0, 5)))])
        drawn = np.maximum(drawn, 0)
        n = len(drawn)
        shares = rng.dirichlet(np.ones(3), n).reshape(n, 3)
        scores = rng.integers(1, 6, n) / 5
        detections.append(found(drawn, rng.integers(-1, 3, n), scores, shares))
    return annotated(boxes, labels), detections


def by_pycocotools(pictures: AnnotatedImages, detections: list[Detections]) -> list[float]:
    images = [{"id": i, "width": SIDE, "height": SIDE} for i in range(len(pictures))]
    truths: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for i, given_ in enumerate(detections):
        for (x1, y1, x2, y2), label in zip(
            pictures.boxes[i].tolist(), pictures.labels[i].tolist(), strict=True
        ):
            bbox = [x1, y1, x2 - x1, y2 - y1]
            area = bbox[2] * bbox[3]
            truths.append(
                {"id": len(truths) + 1, "image_id": i, "category_id": label, "bbox": bbox}
                | {"area": area, "iscrowd": 0}
            )
        for k in range(3):
            scores = given_.scores.astype(np.float64) * given_.probabilities[:, k]
            for (x1, y1, x2, y2), score in zip(given_.boxes.tolist(), scores, strict=True):
                bbox = [x1, y1, x2 - x1, y2 - y1]
                results.append({"image_id": i, "category_id": k, "bbox": bbox, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": images,
            "annotations": truths,
            "categories": [{"id": k, "name": name} for k, name in enumerate(NAMES)],
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(results), "bbox")
        judge.params.maxDets = [10_000]
        judge.params.iouThrs = np.array([0.5])
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][0, :, :, 0, 0]
    return [float(column.mean()) if column.min() >= 0 else math.nan for column in precision.T]


def by_class(pictures: AnnotatedImages, detections: list[Detections]) -> list[float]:
    curves = [class_curve(pictures, detections, k) for k in range(3)]
    return [average_precision(hits, truths.sum()) for hits, _, truths in curves]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_average_precision_is_that_of_pycocotools(seed: int, count: int) -> None:
    pictures, detections = random_pictures(seed, count)
    assume(any(len(d) for d in detections))
    np.testing.assert_allclose(
        by_class(pictures, detections), by_pycocotools(pictures, detections), atol=1e-9
    )


def test_average_precision_by_hand() -> None:
    hits = np.array([True, False, True])
    # Precision 1 at the 51 recalls up to 0.5, 2/3 at the 50 above.
    assert average_precision(hits, 2) == pytest.approx((51 + 50 * 2 / 3) / 101)
    # Of four to find, the recalls over 0.5 are never reached.
    assert average_precision(hits, 4) == pytest.approx((26 + 25 * 2 / 3) / 101)
    assert average_precision(hits[:0], 3) == 0
    assert math.isnan(average_precision(hits, 0))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=20), st.integers(0, 5))
def test_a_detection_that_counts_twice_is_two_detections(
    drawn: list[tuple[bool, int]], more: int
) -> None:
    hits = np.array([hit for hit, _ in drawn], bool)
    times = np.array([count for _, count in drawn], int)
    truths = int(times[hits].sum()) + more
    assume(truths)
    repeated = np.repeat(hits, times)
    assert average_precision(hits, truths, times) == pytest.approx(
        average_precision(repeated, truths)
    )


def test_resampled_pictures_are_those_drawn() -> None:
    # One image is perfect and one all wrong, so that what is drawn decides: with both, one of
    # two faces is found, first; with the perfect one alone all; with the other none.
    box = [10, 10, 30, 30]
    pictures = annotated([[box], [box]], [[0], [0]])
    detections = [found([box], [0], [0.9]), found([[100, 100, 130, 130]], [0], [0.8])]
    draws = resampled([class_curve(pictures, detections, 0)], 2)[:, 0]
    values, counts = np.unique(draws.round(9), return_counts=True)
    np.testing.assert_allclose(values, [0, 51 / 101, 1], atol=1e-8)
    # A quarter, a half and a quarter of 1000 draws: four standard deviations are 55 and 63.
    np.testing.assert_allclose(counts, [250, 500, 250], atol=63)


def test_perfect_detections_have_no_spread() -> None:
    pictures, _ = random_pictures(3, 10)
    perfect = [
        found(own, labels, np.ones(len(own)))
        for own, labels in zip(pictures.boxes, pictures.labels, strict=True)
    ]
    metrics = measured(pictures, perfect, threshold=0.5)
    assert metrics.ap.tolist() == [1, 1, 1]
    assert metrics.ap_intervals.tolist() == [[1, 1]] * 3
    assert (metrics.mean_ap, metrics.mean_ap_interval, metrics.face_ap) == (1, (1, 1), 1)
    assert metrics.overall.recall == metrics.overall.precision == metrics.overall.accuracy == 1
    np.testing.assert_array_equal(metrics.confusion[:3, :3], np.diag(pictures.counts))
    assert metrics.confusion[3].sum() == metrics.confusion[:, 3:].sum() == 0


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000))
def test_intervals_hold_the_figure_and_rows_add_up(seed: int) -> None:
    pictures, detections = random_pictures(seed, 12)
    assume(pictures.counts.min() > 0)
    metrics = measured(pictures, detections, threshold=0.5)
    for figure, (low, high) in zip(metrics.ap, metrics.ap_intervals, strict=True):
        assert 0 <= low <= high <= 1
        # What is resampled is spread about what was measured.
        assert low - 0.05 <= figure <= high + 0.05
    for group in ("size", "class", "crowding"):
        rows = [row for row in metrics.rows if row.group == group]
        for name in ("faces", "found", "judged", "right"):
            total = sum(getattr(row, name) for row in rows)
            assert total == getattr(metrics.overall, name), (group, name)
        unjudged = metrics.confusion[3, 3] if group == "class" else 0
        assert sum(row.alarms for row in rows) + unjudged == metrics.overall.alarms
    assert metrics.confusion[:3].sum(1).tolist() == pictures.counts.tolist()
    assert metrics.confusion[:3, 4].sum() == metrics.overall.faces - metrics.overall.found
    assert json.loads(json.dumps(metrics.as_dict(), allow_nan=False))["faces"] == len(
        np.concatenate(pictures.labels)
    )


def by_hand() -> DetectionMetrics:
    """One face of 10 px that is missed, one of 30 px found and right, one of 50 px found, wrong."""
    small, middle, large = [0, 0, 10, 10], [20, 20, 50, 50], [60, 60, 110, 110]
    pictures = annotated([[small, middle], [large], []], [[0, 0], [1], []])
    detections = [
        found([middle], [0], [0.9]),
        found([large, [120, 120, 135, 135]], [2, -1], [0.8, 0.7]),
        found([[0, 0, 90, 90], small], [1, 1], [0.6, 0.1]),
    ]
    return measured(pictures, detections, threshold=0.5)


def test_tables_by_hand() -> None:
    metrics = by_hand()
    rows = {row.name: row for row in (metrics.overall, *metrics.rows)}
    table = {
        name: (row.faces, row.found, row.judged, row.right, row.alarms)
        for name, row in rows.items()
        if row.faces or row.alarms
    }
    assert table == {
        "all faces": (3, 2, 2, 1, 2),
        "under 12 px": (1, 0, 0, 0, 0),
        "12 to 20 px": (0, 0, 0, 0, 1),
        "20 to 40 px": (1, 1, 1, 1, 0),
        "40 to 80 px": (1, 1, 1, 0, 0),
        "80 px and more": (0, 0, 0, 0, 1),
        "masked": (2, 1, 1, 1, 0),
        "bare": (1, 1, 1, 0, 1),
        "1 face": (1, 1, 1, 0, 2),
        "2 to 5 faces": (2, 1, 1, 1, 0),
    }
    assert metrics.overall.recall == 2 / 3
    assert metrics.overall.precision == metrics.overall.accuracy == 0.5
    assert metrics.confusion.tolist() == [
        [1, 0, 0, 0, 1],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 1, 0, 1, 0],
    ]
    assert math.isnan(metrics.ap[2])
    # Of the faces, both boxes at the top are right; the third face is never found.
    assert metrics.face_ap == pytest.approx(67 / 101)
    assert metrics.mean_ap == pytest.approx(metrics.ap[:2].mean())


def test_a_row_tells_its_intervals() -> None:
    entries = by_hand().overall.as_dict()
    assert entries["recall_interval_95"] == wilson(2, 3)
    assert entries["precision_interval_95"] == wilson(2, 4)
    assert entries["accuracy_interval_95"] == wilson(1, 2)


def test_sizes_in_words() -> None:
    assert size_name(0, 12) == "under 12 px"
    assert size_name(80, math.inf) == "80 px and more"


def test_the_surest_box_takes_the_face_and_the_next_the_next_best() -> None:
    truth = np.array([[0, 0, 20, 20], [0, 4, 20, 24]])
    boxes = np.array([[0, 1, 20, 21], [0, 0, 20, 20], [0, 0, 20, 20], [90, 0, 99, 9]])
    scores = np.array([0.5, 0.9, 0.7, 0.8])
    assert matched(truth, boxes, scores).tolist() == [-1, 0, 1, -1]
    assert matched(truth[:0], boxes, scores).tolist() == [-1] * 4


def test_of_faces_overlapped_as_much_the_last_is_taken_as_pycocotools_does() -> None:
    pictures = annotated([[[0, 0, 20, 20], [0, 8, 20, 28]]], [[0, 0]])
    # The surest lies half way; the next can only be the first, and the third only the last.
    middle, first, last = [0, 4, 20, 24], [0, 0, 20, 18], [0, 10, 20, 28]
    for second in (first, last):
        detections = [found([middle, second], [0, 0], [0.9, 0.8])]
        np.testing.assert_allclose(
            by_class(pictures, detections)[0], by_pycocotools(pictures, detections)[0]
        )
    boxes = np.array([middle, first, last])
    assert matched(pictures.boxes[0], boxes, np.array([0.9, 0.8, 0.7])).tolist() == [1, 0, -1]


@settings(deadline=None)
@given(st.integers(0, 999), st.sampled_from([0.3, 0.5, 0.9]), st.sampled_from([0.0, 20.0]))
def test_recall_at_a_precision_is_the_best_of_all_thresholds(
    seed: int, precision: float, least: float
) -> None:
    pictures, detections = random_pictures(seed, 4)
    matches = FaceMatches.of(pictures, detections)
    recall, threshold = matches.recall_at(precision, least_side=least)
    faces = matches.face_side >= least
    best = 0.0
    for t in np.unique(matches.score):
        chosen = matches.score >= t
        hit = chosen & (matches.face >= 0)
        true = sum(bool(faces[f]) for f in matches.face[hit])
        false = np.count_nonzero(chosen & (matches.face < 0) & (matches.side >= least))
        if true and true / (true + false) >= precision:
            best = max(best, true / faces.sum())
            if t == pytest.approx(threshold):
                assert recall == pytest.approx(true / faces.sum())
    assert recall == pytest.approx(best)
    assert (threshold <= 1) == (recall > 0)


def test_detections_of_other_pictures_are_refused() -> None:
    pictures = annotated([[[0, 0, 9, 9]]], [[0]])
    other_size = Detections.none(NAMES, 10, 10)
    other_classes = Detections.none(("a", "b"), SIDE, SIDE)
    for wrong, words in (
        ([], "needs its detections"),
        ([other_size], "another size"),
        ([other_classes], "different classes"),
    ):
        with pytest.raises(UserError, match=words):
            measured(pictures, wrong, threshold=0.5)
    with pytest.raises(UserError, match="no annotated images"):
        measured(pictures[[]], [], threshold=0.5)
