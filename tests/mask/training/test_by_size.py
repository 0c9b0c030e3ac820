from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.mask.evaluate.metrics import SIZES
from unmask.mask.training.classifier import by_size
from unmask.stats import wilson

faces = st.lists(st.tuples(st.floats(0.5, 400), st.integers(0, 2), st.booleans()), max_size=60)


@given(faces)
def test_every_face_is_counted_in_its_size_and_in_all(drawn: list[tuple[float, int, bool]]) -> None:
    sides = np.array([side for side, _, _ in drawn], np.float64)
    kinds = np.array([kind for _, kind, _ in drawn], np.int64)
    right = np.array([r for _, _, r in drawn], np.bool_)
    *rows, last = by_size(sides, kinds, right, 3)
    assert len(rows) == len(SIZES) - 1
    for (least, below), row in zip(pairwise(SIZES), rows, strict=True):
        for kind in range(3):
            own = [r for side, k, r in drawn if least <= side < below and k == kind]
            assert row.faces[kind] == len(own)
            assert row.right[kind] == sum(own)
    np.testing.assert_array_equal(last.faces, sum(row.faces for row in rows))
    np.testing.assert_array_equal(last.right, sum(row.right for row in rows))


def test_proportions_have_wilsons_intervals() -> None:
    sides = np.full(10, 15.0)
    kinds = np.array([0] * 6 + [1] * 4)
    right = np.array([True] * 5 + [False] + [True] * 3 + [False])
    row = by_size(sides, kinds, right, 3)[1]
    assert row.name == "12 to 20 px"
    assert row.accuracy == 0.8
    assert row.interval == wilson(8, 10)
    assert row.recall_intervals == [wilson(5, 6), wilson(3, 4), (0.0, 1.0)]
    plain = row.as_dict()
    assert plain["recall"] == [pytest.approx(5 / 6), 0.75, None]
    assert plain["faces"] == [6, 4, 0]


def test_a_size_without_faces_has_no_figures() -> None:
    row = by_size(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.bool_), 2)[0]
    assert np.isnan(row.accuracy)
    assert row.as_dict()["accuracy"] is None
    assert row.interval == (0, 1)
