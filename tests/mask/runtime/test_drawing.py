import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unmask.mask.runtime.calibration import Calibration
from unmask.mask.runtime.classes import AMBER, GREEN, GREY, RED
from unmask.mask.runtime.detections import Detections
from unmask.mask.runtime.drawing import (
    HIDDEN_CELLS,
    HIDE_RAW,
    HIDE_SCORE,
    LEAST_SIDE,
    draw,
    heads,
    hide,
    hide_threshold,
)

NAMES = ("with_mask", "without_mask", "mask_weared_incorrect")


def found(size: tuple[int, int], *faces: tuple[tuple[int, int, int, int], int]) -> Detections:
    n = len(faces)
    return Detections(
        np.array([box for box, _ in faces], np.float32).reshape(n, 4),
        np.array([label for _, label in faces], np.int64),
        np.ones(n, np.float32),
        np.full((n, 3), 1 / 3, np.float32),
        NAMES,
        *size,
    )


def has(picture: Image.Image, colour: tuple[int, int, int]) -> bool:
    return bool((np.asarray(picture) == colour).all(-1).any())


@pytest.mark.parametrize(("label", "colour"), [(0, GREEN), (1, RED), (2, AMBER), (-1, GREY)])
def test_each_kind_has_its_colour_around_the_face_and_none_on_it(
    label: int, colour: tuple[int, int, int]
) -> None:
    box = (200, 150, 260, 230)
    got = draw(Image.new("RGB", (640, 480), "white"), found((640, 480), (box, label)))
    pixels = np.asarray(got)
    assert (pixels[box[1] : box[3], box[0] : box[2]] == 255).all()
    assert tuple(pixels[190, box[0] - 1]) == tuple(pixels[190, box[2]]) == colour
    assert tuple(pixels[box[1] - 1, 230]) == tuple(pixels[box[3], 230]) == colour


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(-1, 2), st.data())
def test_any_size_of_picture_and_face_can_be_drawn(
    width: int, height: int, label: int, data: st.DataObject
) -> None:
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right = data.draw(st.integers(left + 1, width))
    bottom = data.draw(st.integers(top + 1, height))
    got = draw(
        Image.new("RGB", (width, height)),
        found((width, height), ((left, top, right, bottom), label)),
    )
    assert max(got.size) >= LEAST_SIDE
    assert got.width * height == got.height * width
    # The words' ground is always to be seen.
    assert has(got, (GREEN, RED, AMBER, GREY)[label])


def test_a_crowd_gets_room_for_its_words_and_a_video_keeps_its_size() -> None:
    faces = [((x, y, x + 12, y + 14), 0) for x in range(0, 380, 40) for y in range(0, 280, 40)]
    crowd = found((400, 300), *faces)
    assert draw(Image.new("RGB", (400, 300)), crowd).width >= 800
    assert draw(Image.new("RGB", (400, 300)), crowd, grow=False).size == (400, 300)


def test_words_do_not_cover_other_faces_where_there_is_room() -> None:
    first, second = (300, 200, 340, 240), (300, 150, 340, 190)
    got = draw(Image.new("RGB", (800, 600), "white"), found((800, 600), (first, 0), (second, 1)))
    pixels = np.asarray(got)
    for left, top, right, bottom in (first, second):
        assert (pixels[top:bottom, left:right] == 255).all()


def test_a_hidden_face_holds_no_more_than_its_cells() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)
    box = np.array([[60, 60, 140, 140]], np.float32)
    # A second image with other noise and the same means of every cell hides to the same.
    # Three tenths of the box on either side, nine twentieths above and a fifth below belong to it.
    wide, high = (80 + 48 + 1) // HIDDEN_CELLS, (80 + 52 + 1) // HIDDEN_CELLS
    cell = (slice(60 - 36, 60 - 36 + high), slice(60 - 24, 60 - 24 + wide))
    other = noise.copy()
    other[cell] = noise[cell][::-1]
    hidden = []
    for pixels in (noise, other):
        picture = Image.fromarray(pixels)
        hide(picture, box)
        hidden.append(np.asarray(picture).astype(int))
    inside = (slice(60, 140), slice(60, 140))
    assert np.abs(hidden[0] - hidden[1])[inside].max() <= 12
    assert hidden[0][inside].std() < 0.25 * noise[inside].std()
    np.testing.assert_array_equal(hidden[0][:24], noise[:24])


@pytest.mark.parametrize("box", [(-5, -5, 1, 1), (0, 0, 1, 1), (9, 9, 40, 40)])
def test_faces_at_the_edge_and_of_one_pixel_can_be_hidden(box: tuple[int, int, int, int]) -> None:
    picture = Image.new("RGB", (10, 10), "red")
    hide(picture, np.array([box], np.float32))
    assert picture.size == (10, 10)
    assert (np.asarray(picture) == (255, 0, 0)).all()


def test_what_is_hidden_is_the_head_from_a_low_score_on_and_never_noise() -> None:
    box = np.array([[100, 100, 120, 130]], np.float32)
    head = heads(box)[0]
    assert (head[:2] < box[0, :2]).all()
    assert (head[2:] > box[0, 2:]).all()
    # Hair is more than chin.
    assert box[0, 1] - head[1] > head[3] - box[0, 3]
    # Calibrated as what ships, and not at all.
    assert hide_threshold(Calibration(slope=3.5, offset=-0.27)) == HIDE_SCORE < 0.01
    assert hide_threshold(Calibration()) == pytest.approx(HIDE_RAW)
