import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from unmask.data import Images
from unmask.errors import UserError

NAMES = ("cat", "dog", "owl")


def make(n: int = 5, shape: tuple[int, int, int] = (2, 3, 4), seed: int = 0) -> Images:
    generator = np.random.default_rng((seed, n, *shape))
    pixels = generator.integers(0, 256, (n, *shape), dtype=np.uint8)
    return Images(pixels, generator.integers(0, len(NAMES), n), NAMES, "animals")


@given(st.integers(0, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_split_divides_without_loss_or_copy(case: tuple[int, int]) -> None:
    n, count = case
    images = make(n)
    first, rest = images.split(count)
    assert (len(first), len(rest)) == (count, n - count)
    np.testing.assert_array_equal(np.concatenate([first.pixels, rest.pixels]), images.pixels)
    np.testing.assert_array_equal(np.concatenate([first.labels, rest.labels]), images.labels)
    assert all(np.shares_memory(p.pixels, images.pixels) for p in (first, rest) if len(p))


@pytest.mark.parametrize("count", [-1, 6])
def test_split_refuses_more_than_there_is(count: int) -> None:
    with pytest.raises(UserError, match=f"got {count}; give 0 to 5 images"):
        make(5).split(count)


@given(npst.arrays(np.int64, st.integers(0, 8), elements=st.integers(-5, 4)))
def test_an_index_array_chooses_pictures_with_their_labels(index: np.ndarray) -> None:
    images = make(5)
    chosen = images[index]
    np.testing.assert_array_equal(chosen.pixels, images.pixels[index])
    np.testing.assert_array_equal(chosen.labels, images.labels[index])
    assert (chosen.class_names, chosen.name) == (NAMES, "animals")


@given(npst.arrays(np.bool_, 5))
def test_a_mask_is_the_same_as_its_indices(mask: np.ndarray) -> None:
    images = make(5)
    assert images[mask].sha256 == images[np.flatnonzero(mask)].sha256


@given(st.integers(0, 4), st.integers(0, 23), st.integers(1, 255))
def test_the_hash_sees_every_pixel(picture: int, place: int, change: int) -> None:
    images = make(5)
    pixels = images.pixels.copy()
    pixels.reshape(5, -1)[picture, place] ^= change
    assert Images(pixels, images.labels, NAMES, "animals").sha256 != images.sha256


def test_the_hash_is_of_the_content_alone() -> None:
    images = make(6)
    labels, other_labels = images.labels, (images.labels + 1) % 3
    turned = np.asfortranarray(images.pixels)
    assert not turned.flags.c_contiguous
    assert Images(turned, labels.copy(), NAMES, "elsewhere").sha256 == images.sha256
    for other in (
        Images(images.pixels, other_labels, NAMES, "animals"),
        Images(images.pixels, labels, ("cat", "dog", "ape"), "animals"),
        Images(images.pixels.reshape(6, 2, 4, 3), labels, NAMES, "animals"),
        images[:5],
    ):
        assert other.sha256 != images.sha256
    assert len(make(0).sha256) == 64


PIXELS, LABELS = np.zeros((2, 1, 4, 4), np.uint8), np.zeros(2, np.int64)


@pytest.mark.parametrize(
    ("pixels", "labels", "names", "message"),
    [
        (PIXELS.astype(np.float32), LABELS, NAMES, r"pixels must be .* got float32\[2, 1, 4, 4\]"),
        (PIXELS[:, 0], LABELS, NAMES, r"pixels must be uint8\[n, channels, .* got uint8\[2, 4, 4"),
        (PIXELS[..., :0], LABELS, NAMES, r"pixels must be .* got uint8\[2, 1, 4, 0\]"),
        (PIXELS.tolist(), LABELS, NAMES, "pixels must be .* got list"),
        (PIXELS, LABELS.astype(np.uint8), NAMES, r"labels must be int64\[2\].* got uint8\[2\]"),
        (PIXELS, LABELS[:1], NAMES, r"labels must be int64\[2\], .* got int64\[1\]"),
        (PIXELS, LABELS[:, None], NAMES, r"labels must be int64\[2\], .* got int64\[2, 1\]"),
        (PIXELS, np.array([0, 3]), NAMES, "labels must be 0 to 2, for 3 classes: got 3 at index 1"),
        (PIXELS, np.array([-1, 0]), NAMES, "got -1 at index 0"),
        (PIXELS, LABELS, (), "class names must be a tuple of distinct texts: got "),
        (PIXELS, LABELS, ("cat", "cat"), "class names"),
        (PIXELS, LABELS, ("cat", ""), "class names"),
        (PIXELS, LABELS, ["cat"], "class names"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    pixels: object, labels: object, names: object, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Images(pixels, labels, names, "animals")  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_name_is_a_text() -> None:
    with pytest.raises(UserError, match="name"):
        Images(PIXELS, LABELS, NAMES, None)  # type: ignore[arg-type]


def test_importing_images_loads_nothing_heavy() -> None:
    code = (
        "import sys, unmask.data, unmask.data.images, unmask.data.mnist, unmask.data.folder, "
        "unmask.data.fetch; "
        "print(*(m for m in ('PIL', 'requests', 'platformdirs', 'torch') "
        "if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_package_offers_its_names_and_no_others() -> None:
    import unmask.data

    assert dir(unmask.data) == sorted(unmask.data.__all__)
    assert all(hasattr(unmask.data, name) for name in unmask.data.__all__)
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = unmask.data.nothing_of_this_name
