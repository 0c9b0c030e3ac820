import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from unmask.data.detection.boxes import area, clip, iou, nms

SIDE = 12


def boxes_of(corners: list[tuple[int, int, int, int]]) -> NDArray[np.float32]:
    return np.array(corners, np.float32).reshape(-1, 4)


corner = st.integers(-2, SIDE + 2)
some_boxes = st.lists(st.tuples(corner, corner, corner, corner), max_size=8).map(boxes_of)


def cells(box: NDArray[np.float32]) -> set[tuple[int, int]]:
    """The whole pixels inside a box of whole corners: an area is their number."""
    x1, y1, x2, y2 = (int(v) for v in box)
    return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}


def test_overlaps_by_hand() -> None:
    a = boxes_of([(0, 0, 4, 4)])
    b = boxes_of([(0, 0, 4, 4), (2, 0, 6, 4), (4, 0, 8, 4), (1, 1, 3, 3), (3, 3, 1, 1)])
    np.testing.assert_allclose(iou(a, b), [[1, 8 / 24, 0, 4 / 16, 0]], rtol=1e-6)


@given(some_boxes, some_boxes)
def test_overlaps_are_those_of_the_pixels_inside(
    a: NDArray[np.float32], b: NDArray[np.float32]
) -> None:
    got = iou(a, b)
    assert got.shape == (len(a), len(b))
    for i, one in enumerate(a):
        assert area(a)[i] == len(cells(one))
        for j, other in enumerate(b):
            union = len(cells(one) | cells(other))
            expected = len(cells(one) & cells(other)) / union if union else 0
            assert got[i, j] == pytest.approx(expected, abs=1e-6)


@given(some_boxes)
def test_clipping_keeps_the_pixels_inside_the_picture(a: NDArray[np.float32]) -> None:
    inside = {(x, y) for x in range(SIDE) for y in range(SIDE - 3)}
    for before, after in zip(a, clip(a, SIDE, SIDE - 3), strict=True):
        assert cells(after) == cells(before) & inside


@given(some_boxes, st.integers(0, 99), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_suppression_keeps_the_best_of_what_overlaps(
    boxes: NDArray[np.float32], seed: int, threshold: float
) -> None:
    # Few scores, so that some are equal.
    scores = np.random.default_rng(seed).integers(0, 4, len(boxes)).astype(np.float32)
    kept = nms(boxes, scores, threshold).tolist()
    overlaps = iou(boxes, boxes)
    assert kept == sorted(kept, key=lambda i: (-scores[i], i))
    assert all(overlaps[i, j] <= threshold for i in kept for j in kept if i != j)
    for i in set(range(len(boxes))) - set(kept):
        assert any(overlaps[i, j] > threshold and (-scores[j], j) < (-scores[i], i) for j in kept)
    again = nms(boxes[kept], scores[kept], threshold)
    assert again.tolist() == list(range(len(kept)))
