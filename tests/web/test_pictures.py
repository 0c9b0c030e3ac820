import base64
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from unmask.data.mnist import load_mnist
from unmask.errors import UserError
from unmask.models.classifier import Classifier
from unmask.web.pictures import as_digit, from_url, png_url, to_pillow


def drawn(size: int, at: tuple[int, int], scale: int, paper: bool) -> Image.Image:
    ink, ground = (0, 255) if paper else (255, 0)
    picture = Image.new("L", (size, size), ground)
    pencil = ImageDraw.Draw(picture)
    x, y = at
    pencil.line(
        [(x, y), (x + 2 * scale, y), (x + scale, y + 3 * scale)], fill=ink, width=scale // 3
    )
    return picture


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([24, 30, 40]), st.booleans())
def test_a_digit_lies_in_the_middle_wherever_it_was_drawn(x, y, scale, paper) -> None:
    found = as_digit(drawn(280, (20 + x, 20 + y), scale, paper)).astype(float)[0]
    assert found.shape == (28, 28)
    rows, columns = np.nonzero(found > 60)
    assert 18 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 21
    for axis in (0, 1):
        mass = found.sum(axis)
        assert abs((mass * np.arange(28)).sum() / mass.sum() - 13.5) <= 0.75


def test_paper_and_slate_are_the_same_digit() -> None:
    one, other = (as_digit(drawn(200, (50, 40), 30, paper)) for paper in (True, False))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("paper", [False, True])
def test_digits_written_large_and_off_the_middle_are_still_read(paper: bool) -> None:
    test = load_mnist()[1][:200]
    read = []
    for pixels in test.pixels:
        sheet = np.pad(pixels[0], ((0, 30), (20, 0))).repeat(4, 0).repeat(4, 1)
        read.append(as_digit(Image.fromarray(255 - sheet if paper else sheet)))
    with torch.inference_mode():
        logits = Classifier.load("mnist")(torch.tensor(np.stack(read)).float() / 255)
    assert (logits.argmax(1).numpy() == test.labels).mean() > 0.97


@pytest.mark.parametrize("value", [0, 40, 127, 200, 255])
def test_nothing_written_is_told(value: int) -> None:
    with pytest.raises(UserError, match="no digit"):
        as_digit(Image.new("L", (50, 50), value))


@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        "",
        "data:",
        "data:text/html;base64,AAAA",
        "data:image/png,AAAA",
        "/etc/passwd",
        "data:image/png;base64,????",
    ],
)
def test_what_is_no_data_url_is_told(url: object) -> None:
    with pytest.raises(UserError, match="that is no image"):
        from_url(url)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_come_back_from_their_url_to_the_same_bits(channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (channels, 9, 7), np.uint8)
    url = png_url(to_pillow(values.astype(np.float32) / 255))
    content = from_url(url)
    assert content == base64.b64decode(url.partition(",")[2])
    back = np.asarray(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(
        back if channels == 1 else back.transpose(2, 0, 1), values.squeeze()
    )
