"""Two looks at one picture, by hand and by their symmetries."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unmask.data.boxes import iou
from unmask.mask.mirroring import Seen, averaged


def seen(*rows: tuple[tuple[float, float, float, float], tuple[float, float]]) -> Seen:
    boxes = np.array([box for box, _ in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in rows], np.float32).reshape(-1, 2)
    return Seen(boxes, scores, (boxes[:, 2:] - boxes[:, :2]).mean(1))


def test_one_face_seen_twice_and_one_seen_once_by_hand() -> None:
    one = seen(((0, 0, 10, 10), (0.6, 0.0)), ((50, 50, 60, 60), (0.1, 0.3)))
    other = seen(((2, 0, 12, 10), (0.1, 0.1)))
    found = averaged(one, other, 0.5)
    assert found.boxes.tolist() == [[0.5, 0, 10.5, 10], [50, 50, 60, 60]]
    np.testing.assert_allclose(found.scores, [[0.35, 0.05], [0.05, 0.15]], rtol=1e-6)
    assert found.sides.tolist() == [10, 10]


def test_what_overlaps_less_is_two_faces() -> None:
    one, other = seen(((0, 0, 10, 10), (0.6, 0.0))), seen(((6, 0, 16, 10), (0.2, 0.0)))
    found = averaged(one, other, 0.5)
    assert found.boxes.tolist() == [[0, 0, 10, 10], [6, 0, 16, 10]]
    np.testing.assert_allclose(found.scores[:, 0], [0.3, 0.1], rtol=1e-6)


def test_of_nothing_comes_nothing() -> None:
    assert len(averaged(seen(), seen(), 0.5).boxes) == 0
    alone = seen(((0, 0, 9, 9), (0.5, 0.25)))
    for pair in ((alone, seen()), (seen(), alone)):
        assert averaged(*pair, 0.5).scores.tolist() == [[0.25, 0.125]]


places = st.lists(
    st.tuples(st.integers(0, 90), st.integers(0, 90), st.integers(4, 40), st.integers(4, 40)),
    max_size=6,
)


@given(places, places, st.integers(0, 2**32 - 1))
def test_mirror_images_and_exchanged_looks_come_to_the_same(
    a: list[tuple[int, int, int, int]], b: list[tuple[int, int, int, int]], seed: int
) -> None:
    random = np.random.default_rng(seed)
    one, other = (
        seen(*(((x, y, x + w, y + h), tuple(random.uniform(0.05, 0.5, 2))) for x, y, w, h in part))
        for part in (a, b)
    )
    found = averaged(one, other, 0.5)
    back = averaged(one.mirrored(200), other.mirrored(200), 0.5).mirrored(200)
    for name in ("boxes", "scores", "sides"):
        np.testing.assert_allclose(getattr(found, name), getattr(back, name), atol=1e-4)
        swapped = getattr(averaged(other, one, 0.5), name)
        np.testing.assert_allclose(getattr(found, name), swapped, atol=1e-4)
    # No face is more certain than in the surer of the looks.
    surest = max(look.scores.sum(1).max(initial=0) for look in (one, other))
    assert found.scores.sum(1).max(initial=0) <= surest + 1e-6
    assert (np.diff(found.scores.sum(1)) <= 1e-6).all()


def test_a_look_with_itself_is_itself() -> None:
    alone = seen(((0, 0, 10, 10), (0.6, 0.1)), ((20, 0, 30, 14), (0.2, 0.3)))
    found = averaged(alone, alone, 0.5)
    for name in ("boxes", "scores", "sides"):
        np.testing.assert_allclose(getattr(found, name), getattr(alone, name), rtol=1e-6)
    assert (iou(found.boxes, alone.boxes).diagonal() == 1).all()
