"""Decoding is the inverse of the targets, and boxes of one face become one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unmask.mask.runtime.decode import STRIDE, decode
from unmask.mask.training.loss import targets

SIZE = 128


def maps_of(boxes: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """What a network that has learnt its targets exactly would say."""
    wanted = targets([(boxes, labels)], SIZE, SIZE)
    cells = SIZE // STRIDE
    heat = wanted.heat[0].numpy()
    scores = np.zeros((classes, cells, cells), np.float32)
    sides = np.zeros((4, cells, cells), np.float32)
    rows, columns = np.divmod(wanted.cells.numpy(), cells)
    x, y = (columns + 0.5) * STRIDE, (rows + 0.5) * STRIDE
    box = wanted.boxes.numpy()
    sides[:, rows, columns] = np.stack([x - box[:, 0], y - box[:, 1], box[:, 2] - x, box[:, 3] - y])
    scores[wanted.labels.numpy(), rows, columns] = np.where(heat >= 1, heat, 0)[rows, columns]
    return scores, sides


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(0, 3),
            st.floats(9, 30),
            st.floats(9, 30),
            st.integers(0, 2),
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda face: face[:2],
    )
)
def test_decoding_inverts_the_targets(faces: list[tuple[int, int, float, float, int]]) -> None:
    # One face in each 32-pixel square at most, so none overlap.
    corners = np.array([(32 * i, 32 * j) for i, j, *_ in faces], np.float32)
    sides = np.array([face[2:4] for face in faces], np.float32)
    boxes = np.concatenate([corners, corners + sides], 1)
    labels = np.array([face[4] for face in faces])
    found, scores = decode(*maps_of(boxes, labels, 3), threshold=0.5, nms_iou=0.5)
    order, own = np.lexsort(found[:, :2].T), np.lexsort(boxes[:, :2].T)
    np.testing.assert_allclose(found[order], boxes[own], atol=2e-5)
    np.testing.assert_allclose(scores[order], np.eye(3, dtype=np.float32)[labels[own]], atol=1e-6)


def test_two_peaks_of_one_face_become_their_weighted_mean() -> None:
    scores, sides = np.zeros((2, 8, 8), np.float32), np.full((4, 8, 8), 10.0, np.float32)
    scores[:, 4, 3], scores[:, 4, 4] = (0.6, 0.0), (0.0, 0.2)
    boxes, parts = decode(scores, sides, threshold=0.1, nms_iou=0.4)
    # Middles at x = 14 and 18, weighing 3 to 1: x = 15; the face's score stays the higher one's.
    np.testing.assert_allclose(boxes, [[5, 8, 25, 28]], rtol=1e-6)
    np.testing.assert_allclose(parts, [[0.45, 0.15]], rtol=1e-6)


def test_boxes_under_the_threshold_do_not_count() -> None:
    scores, sides = np.zeros((2, 8, 8), np.float32), np.full((4, 8, 8), 4.0, np.float32)
    scores[:, 1, 1], scores[:, 6, 6] = (0.2, 0.1), (0.3, 0.2)
    boxes, parts = decode(scores, sides, threshold=0.4, nms_iou=0.5)
    np.testing.assert_allclose(boxes, [[22, 22, 30, 30]])
    np.testing.assert_allclose(parts, [[0.3, 0.2]])


def test_of_nothing_comes_nothing() -> None:
    empty = np.zeros((3, 4, 4), np.float32)
    boxes, parts = decode(empty, np.ones((4, 4, 4), np.float32), threshold=0.0, nms_iou=0.5)
    assert boxes.shape == (0, 4)
    assert parts.shape == (0, 3)
