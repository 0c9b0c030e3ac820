import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.mask.runtime.views import OVERLAP, STEP, TILE, WHOLE, View, views

SIDES = st.integers(1, 7000)


@settings(max_examples=40)
@given(SIDES, SIDES, st.floats(0.1, 4), st.data())
def test_every_face_is_whole_in_a_view_and_seen_large_enough(
    width: int, height: int, finest: float, data: st.DataObject
) -> None:
    side = data.draw(st.integers(1, min(width, height)))
    left = data.draw(st.integers(0, width - side))
    top = data.draw(st.integers(0, height - side))
    box = np.array([[left, top, left + side, top + side]], np.float32)
    best = 0.0
    for view in views(width, height, finest):
        inside = left >= view.left and top >= view.top
        inside &= left + side <= view.right and top + side <= view.bottom
        scale = view.width / (view.right - view.left)
        if inside and view.whole(box, width, height)[0] and scale * side >= view.least:
            best = max(best, view.width / (view.right - view.left))
    # Seen at the finest scale, or at least as large as what the next finer tiles cut; a margin for
    # the edge and for rounding.
    wanted = min(finest * side, (OVERLAP - 6) / STEP)
    assert best * side >= 0.9 * wanted - 1


@settings(max_examples=40)
@given(SIDES, SIDES, st.floats(0.1, 4))
def test_no_view_is_larger_than_memory_allows(width: int, height: int, finest: float) -> None:
    first, *tiles = views(width, height, finest)
    assert (first.left, first.top, first.right, first.bottom) == (0, 0, width, height)
    assert max(first.width, first.height) <= WHOLE + 1
    for view in tiles:
        assert max(view.width, view.height) <= TILE + 4
        assert 0 <= view.left < view.right <= width
        assert 0 <= view.top < view.bottom <= height


def test_a_small_picture_is_seen_as_it_is_and_a_quarter_as_large() -> None:
    assert views(640, 480, 1.0) == [
        View(0, 0, 640, 480, 640, 480),
        View(0, 0, 640, 480, 160, 120, least=32),
    ]


@settings(max_examples=40)
@given(SIDES, SIDES, st.floats(0.1, 4))
def test_a_face_that_fills_any_picture_is_seen_no_larger_than_faces_in_training(
    width: int, height: int, finest: float
) -> None:
    coarsest = views(width, height, finest)[-1]
    assert (coarsest.left, coarsest.top, coarsest.right, coarsest.bottom) == (0, 0, width, height)
    assert max(coarsest.width, coarsest.height) <= WHOLE / STEP + 1


def test_boxes_go_to_the_pictures_pixels() -> None:
    view = View(100, 50, 300, 150, 400, 100)
    boxes = view.to_image(np.array([[0, 0, 400, 100], [40, 10, 80, 20]], np.float32))
    np.testing.assert_array_equal(boxes, [[100, 50, 300, 150], [120, 60, 140, 70]])
