"""Augmentation against loops over single images, and what an epoch's draws promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.data.augment import Augmentation, augmented, draw, mixed
from unmask.errors import UserError


def pictures(count: int, height: int, width: int, channels: int = 3) -> torch.Tensor:
    shape = (count, height, width, channels)
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def plain(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.permute(0, 3, 1, 2).float() / 255


@given(
    height=st.integers(4, 9),
    width=st.integers(4, 9),
    shift=st.integers(0, 3),
    flip=st.sampled_from(["none", "random", "alternating"]),
    channels=st.sampled_from([1, 3]),
    epoch=st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_flips_and_shifts_are_those_of_numpy(
    height: int, width: int, shift: int, flip: str, channels: int, epoch: int
) -> None:
    augmentation = Augmentation(flip=flip, shift=shift)  # type: ignore[arg-type]
    pixels = pictures(6, height, width, channels)
    draws = draw(augmentation, 6, seed=1, epoch=epoch)
    got = augmented(pixels, augmentation, draws)
    for i in range(6):
        picture = pixels[i].numpy()[:, ::-1] if draws.flip[i] else pixels[i].numpy()
        padded = np.pad(picture, ((shift, shift), (shift, shift), (0, 0)), mode="reflect")
        down, right = (shift - int(s) for s in draws.shift[i])
        expected = padded[down : down + height, right : right + width]
        np.testing.assert_array_equal(got[i].numpy(), plain(torch.tensor(expected)[None])[0])


def test_what_comes_out_lies_in_memory_as_convolutions_want_it() -> None:
    for augmentation in (Augmentation(), Augmentation("random", 2, 0.5, 3)):
        draws = draw(augmentation, 4, seed=0, epoch=0)
        out = augmented(pictures(4, 8, 8), augmentation, draws)
        assert out.shape == (4, 3, 8, 8)
        assert out.is_contiguous(memory_format=torch.channels_last)


def test_alternating_flips_show_each_side_in_turn() -> None:
    augmentation = Augmentation(flip="alternating")
    first, second, third = (draw(augmentation, 1000, seed=0, epoch=e).flip for e in range(3))
    assert torch.equal(first, ~second)
    assert torch.equal(first, third)
    assert 400 < int(first.sum()) < 600


def test_draws_depend_on_seed_and_epoch_alone() -> None:
    augmentation = Augmentation("random", 2, 0.5, 3, 0.5)

    def drawn(seed: int, epoch: int) -> torch.Tensor:
        d = draw(augmentation, 50, seed=seed, epoch=epoch)
        whole = torch.stack([d.flip.long(), d.mate], 1)
        return torch.cat([whole, d.shift, d.crop, d.erase, d.square], 1)

    torch.manual_seed(5)
    once = drawn(3, 7)
    torch.manual_seed(6)
    assert torch.equal(once, drawn(3, 7))
    assert not torch.equal(once, drawn(3, 8))
    assert not torch.equal(once, drawn(4, 7))


def test_shifts_reach_every_offset_alike() -> None:
    shift = draw(Augmentation(shift=2), 50_000, seed=0, epoch=0).shift
    for axis in (0, 1):
        counts = torch.bincount(shift[:, axis] + 2, minlength=5)
        assert len(counts) == 5
        # Five standard deviations of a binomial count of mean 10,000.
        assert (counts - 10_000).abs().max() < 5 * 90


def test_the_whole_picture_is_a_crop_of_itself() -> None:
    pixels = pictures(3, 7, 9)
    draws = draw(Augmentation(), 3, seed=0, epoch=0)
    whole = replace(draws, crop=torch.tensor([[1.0, 0.3, 0.8]] * 3))
    out = augmented(pixels, Augmentation(crop=0.5), whole)
    torch.testing.assert_close(out, plain(pixels), atol=1e-5, rtol=0)


def test_a_crop_magnifies_its_corner() -> None:
    height = width = 8
    ramp = (torch.arange(height) * 16).to(torch.uint8)[None, :, None, None].expand(1, 8, 8, 1)
    still = draw(Augmentation(), 1, seed=0, epoch=0)
    corner = replace(still, crop=torch.tensor([[0.5, 1.0, 0.0]]))
    out = augmented(ramp.contiguous(), Augmentation(crop=0.25), corner)[0, 0]
    # Row i of the lower half, twice as high, lies at 4 + (i + 1/2) / 2 - 1/2 of the whole.
    expected = ((4 + (torch.arange(8) + 0.5) / 2 - 0.5).clamp(max=7) * 16 / 255)[:, None]
    torch.testing.assert_close(out, expected.expand(8, width), atol=1e-5, rtol=0)


def test_erasing_sets_one_square_to_the_mean() -> None:
    pixels = pictures(200, 10, 10)
    augmentation = Augmentation(erase=3)
    draws = draw(augmentation, 200, seed=0, epoch=0)
    before, after = plain(pixels), augmented(pixels, augmentation, draws)
    changed = (before != after).any(1)
    for i in range(200):
        rows, columns = changed[i].any(1).nonzero().flatten(), changed[i].any(0).nonzero().flatten()
        assert 1 <= len(rows) <= 3
        assert 1 <= len(columns) <= 3
        square = after[i][:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        mean = before[i].mean((1, 2), keepdim=True)
        torch.testing.assert_close(square, mean.expand_as(square))
    counts = changed.sum(0)
    assert counts.min() > 0, "every pixel is erased now and then"


@given(height=st.integers(3, 12), width=st.integers(3, 12), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_mixed_picture_is_its_own_but_for_a_square_of_its_mate(
    height: int, width: int, seed: int
) -> None:
    square = draw(Augmentation(cutmix=0.7), 20, seed=seed, epoch=0).square
    own, mates = torch.zeros(20, 3, height, width), torch.ones(20, 3, height, width)
    out, share = mixed(own, mates, square)
    for i in range(20):
        side = float(square[i, 0])
        rows, columns = (round(float(square[i, 0] * n)) for n in (height, width))
        pasted = out[i, 0].nonzero()
        assert len(pasted) == rows * columns
        assert float(share[i]) == pytest.approx(1 - rows * columns / (height * width))
        assert (side == 0) <= (len(pasted) == 0)
        if len(pasted):
            (top, left), (bottom, right) = pasted.amin(0).tolist(), pasted.amax(0).tolist()
            assert (bottom - top + 1, right - left + 1) == (rows, columns)
        assert torch.equal(out[i, 0], out[i, 2])


def test_squares_are_pasted_as_often_and_as_large_as_asked() -> None:
    square = draw(Augmentation(cutmix=0.3), 50_000, seed=0, epoch=0).square
    pasted = square[:, 0] > 0
    assert int(pasted.sum()) == pytest.approx(15_000, abs=5 * 102)
    # The area's part is uniform (Yun et al., 2019, with a Beta of 1 and 1).
    area = (square[pasted, 0] ** 2).double().sort().values
    uniform = torch.arange(1, len(area) + 1) / len(area)
    assert float((area - uniform).abs().max()) < 1.95 / len(area) ** 0.5
    assert draw(Augmentation(), 100, seed=0, epoch=0).square[:, 0].abs().max() == 0


@pytest.mark.parametrize(
    ("wrong", "settings"),
    [
        ("flip", {"flip": "sideways"}),
        ("shift", {"shift": -1}),
        ("erase", {"erase": 1.5}),
        ("crop", {"crop": 0.0}),
        ("crop", {"crop": float("nan")}),
        ("cutmix", {"cutmix": 1.5}),
    ],
)
def test_settings_out_of_range_are_named(wrong: str, settings: dict[str, object]) -> None:
    with pytest.raises(UserError, match=wrong):
        Augmentation(**settings)  # type: ignore[arg-type]


def test_a_shift_beyond_the_picture_is_refused() -> None:
    augmentation = Augmentation(shift=4)
    with pytest.raises(UserError, match="shift"):
        augmented(pictures(1, 4, 9), augmentation, draw(augmentation, 1, seed=0, epoch=0))
