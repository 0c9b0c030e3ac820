"""Corruptions against their formulas, imagecorruptions, and what they promise of seed and size."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from natural import STATISTICS, natural, statistics
from PIL import Image

from unmask.errors import UserError
from unmask.shift.corruptions import CORRUPTIONS, corrupt, corruption, corruptions
from unmask.shift.corruptions.filters import disk, gaussian_blur, plasma
from unmask.shift.corruptions.registry import Draw

NAMES = sorted(corruptions())
REFERENCE = json.loads(Path(__file__).with_name("imagecorruptions.json").read_text())
# Of a statistic: the relative and the absolute difference that are taken for the same corruption.
LOOSE = {
    # Frost is made, not photographed; drops are drawn by another edge detector.
    "frost": (0.25, 0.06),
    "spatter": (0.25, 0.03),
    # One plasma an image, eight images.
    "fog": (0.15, 0.03),
    "snow": (0.15, 0.02),
    "glass_blur": (0.15, 0.01),
}


def tensor(images: np.ndarray) -> torch.Tensor:
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 255


def flat(value: float, side: int = 64, channels: int = 3) -> torch.Tensor:
    return torch.full((2, channels, side, side), value)


def test_there_are_the_nineteen_of_the_paper_and_the_seven_of_mnist_c() -> None:
    assert set(REFERENCE["table"]) <= set(NAMES)
    assert len(REFERENCE["table"]) == 19
    mnist_c = {"translate", "scale", "rotate", "shear", "stripe", "dotted_line", "zigzag"}
    assert mnist_c <= set(NAMES)


@pytest.mark.parametrize("name", sorted(REFERENCE["table"]))
def test_statistics_agree_with_imagecorruptions(name: str) -> None:
    images = natural(8, 224)
    clean = images / 255.0
    relative, absolute = LOOSE.get(name, (0.06, 0.006))
    for severity in (1, 3, 5):
        made = corrupt(tensor(images), name, severity).permute(0, 2, 3, 1).numpy()
        ours = statistics(clean, np.floor(made * 255) / 255)
        theirs = REFERENCE["table"][name][severity - 1]
        for what, a, b in zip(STATISTICS, ours, theirs, strict=True):
            assert a == pytest.approx(b, rel=relative, abs=absolute), (severity, what)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 28, 28), (3, 40, 33)])
def test_any_size_and_the_same_draw_in_any_batch(
    name: str, channels: int, height: int, width: int
) -> None:
    if CORRUPTIONS[name].colour and channels == 1:
        with pytest.raises(UserError, match="colour"):
            corrupt(torch.rand(1, 1, height, width), name)
        return
    x = torch.rand(3, channels, height, width, generator=torch.Generator().manual_seed(1))
    y = corrupt(x, name, 4, seed=7)
    assert y.shape == x.shape
    assert bool(y.isfinite().all())
    assert 0 <= float(y.min()) <= float(y.max()) <= 1
    torch.testing.assert_close(corrupt(x, name, 0), x)
    alone = corrupt(x[2:], name, 4, seed=7, rows=[2])
    torch.testing.assert_close(alone, y[2:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "saturate"])
def test_damage_grows_with_the_severity(name: str) -> None:
    x = tensor(natural(2, 96, seed=3))
    damage = [float((corrupt(x, name, s) - x).abs().mean()) for s in (0, 0.05, 1, 5)]
    assert damage[0] == 0
    # Even a little is a step from nothing for those that work in whole pixels or bits.
    assert damage[1] <= damage[2] + 0.02
    assert damage[2] < damage[3] or name in ("snow", "spatter", "motion_blur", "frost")


def test_noise_has_the_moments_of_its_formula() -> None:
    x = flat(0.5, 128)
    n = x.numel()
    noise = corrupt(x, "gaussian_noise", 1) - x
    assert float(noise.mean()) == pytest.approx(0, abs=4 * 0.08 / n**0.5)
    assert float(noise.std()) == pytest.approx(0.08, rel=0.02)
    counts = corrupt(x, "shot_noise", 1) * 60
    torch.testing.assert_close(counts, counts.round(), atol=1e-3, rtol=0)
    assert float(counts.mean()) == pytest.approx(30, abs=4 * (30 / n) ** 0.5)
    assert float(counts.var()) == pytest.approx(30, rel=0.05)
    hit = corrupt(x, "impulse_noise", 5)
    assert float((hit == 0).float().mean()) == pytest.approx(0.135, abs=0.01)
    assert float((hit == 1).float().mean()) == pytest.approx(0.135, abs=0.01)
    speckled = corrupt(flat(0.25, 128), "speckle_noise", 1)
    assert float(speckled.std()) == pytest.approx(0.25 * 0.15, rel=0.02)


@pytest.mark.parametrize(
    "name", ["gaussian_blur", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "contrast"]
)
def test_blurs_and_contrast_leave_a_plain_image_alone(name: str) -> None:
    torch.testing.assert_close(corrupt(flat(0.3), name, 5), flat(0.3), atol=1e-5, rtol=0)


def test_a_point_becomes_the_kernel() -> None:
    point = torch.zeros(1, 1, 224, 224)
    point[0, 0, 112, 112] = 1
    y = corrupt(point, "gaussian_blur", 2)[0, 0]
    assert float(y[112, 114] / y[112, 112]) == pytest.approx(np.exp(-0.5), rel=1e-3)
    lens = corrupt(point, "defocus_blur", 1)[0, 0]
    k = disk(3, 0.1, torch.device("cpu"))[0]
    half = k.shape[0] // 2
    torch.testing.assert_close(
        lens[112 - half : 113 + half, 112 - half : 113 + half], k, atol=1e-6, rtol=0
    )
    assert float(corrupt(point, "motion_blur", 3).sum()) == pytest.approx(1, abs=1e-4)


def test_light_and_colour_follow_hsv() -> None:
    import colorsys

    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    brighter, stronger = corrupt(x, "brightness", 2), corrupt(x, "saturate", 4)
    for i in range(8):
        h, s, v = colorsys.rgb_to_hsv(*x[0, :, i, 0].tolist())
        expected = colorsys.hsv_to_rgb(h, s, min(1, v + 0.2))
        assert brighter[0, :, i, 0].tolist() == pytest.approx(expected, abs=1e-5)
        expected = colorsys.hsv_to_rgb(h, min(1, 5 * s + 0.1), v)
        assert stronger[0, :, i, 0].tolist() == pytest.approx(expected, abs=1e-5)
    mean = x.mean((2, 3), keepdim=True)
    torch.testing.assert_close(corrupt(x, "contrast", 1), mean + 0.4 * (x - mean))


@pytest.mark.parametrize("side", [96, 75])
def test_jpeg_is_near_to_what_pillow_writes(side: int) -> None:
    images = natural(2, side, seed=5)
    for severity, quality in ((1, 25), (5, 7)):
        ours = corrupt(tensor(images), "jpeg_compression", severity)
        for image, made in zip(images, ours, strict=True):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG", quality=quality)
            theirs = tensor(np.asarray(Image.open(file))[None])[0]
            lost = float((theirs - tensor(image[None])[0]).abs().mean())
            assert float((made - theirs).abs().mean()) < 0.2 * lost


def test_pixelate_averages_boxes() -> None:
    x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    y = corrupt(x, "pixelate", 5)
    torch.testing.assert_close(y[0, 0, :4, :4], x[0, 0, :4, :4].mean().expand(4, 4))


def test_moves_are_those_of_their_names() -> None:
    x = torch.zeros(1, 1, 41, 41)
    x[0, 0, 20, 30] = 1
    turned = corrupt(x, "rotate", 3)[0, 0]
    row, column = divmod(int(turned.argmax()), 41)
    angle = np.degrees(np.arctan2(row - 20, column - 20))
    assert abs(angle) == pytest.approx(30, abs=5)
    shrunk = corrupt(x, "scale", 3)[0, 0]
    assert divmod(int(shrunk.argmax()), 41) == (20, 20 + round(10 / 1.35))
    striped = corrupt(flat(0.2, 28, 1), "stripe", 5)
    assert float((striped > 0.5).float().mean()) == pytest.approx(0.5)


def test_fog_is_scaled_to_the_range_that_was_and_plasma_fills_its_own() -> None:
    draw = Draw(["a", "b"], torch.device("cpu"))
    clouds = plasma(torch.zeros(2, 1, 64, 64), 2.0, draw)
    assert clouds.amin((1, 2, 3)).tolist() == [0, 0]
    assert clouds.amax((1, 2, 3)).tolist() == [1, 1]
    assert float(corrupt(flat(0.4), "fog", 5).max()) <= 0.4 + 1e-6


def test_blurring_keeps_the_mean_of_noise() -> None:
    x = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    blurred = gaussian_blur(x, 2.0)
    assert float(blurred.mean()) == pytest.approx(float(x.mean()), abs=0.02)
    assert float(blurred.std()) < 0.3 * float(x.std())


def test_a_corruption_of_your_own_is_registered_by_a_decorator() -> None:
    try:

        @corruption("dim", family="digital", paper="", levels=(0.9, 0.8, 0.6, 0.4, 0.2), none=1.0)
        def dim(x: torch.Tensor, p: tuple[float, ...], draw: Draw) -> torch.Tensor:
            return x * p[0]

        assert float(corrupt(flat(1.0), "dim", 2.5).mean()) == pytest.approx(0.7)
        with pytest.raises(UserError, match="already registered"):
            corruption("dim", family="digital", paper="", levels=(1,) * 5, none=1)(dim)
    finally:
        CORRUPTIONS.pop("dim", None)


@pytest.mark.parametrize(
    ("pixels", "name", "severity", "match"),
    [
        (torch.rand(1, 3, 32, 32), "frog", 3, "did you mean 'fog'"),
        (torch.rand(1, 3, 32, 32), "fog", 6, "severity"),
        (torch.rand(1, 2, 32, 32), "fog", 3, "channels"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "fog", 3, "uint8"),
        (torch.rand(1, 3, 4, 32), "fog", 3, "4 x 32"),
    ],
)
def test_mistakes_are_told_in_one_line(
    pixels: torch.Tensor, name: str, severity: float, match: str
) -> None:
    with pytest.raises(UserError, match=match):
        corrupt(pixels, name, severity)
