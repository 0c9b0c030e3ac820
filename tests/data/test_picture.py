import io
import logging
import struct
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image, features

from unmask.data.picture import (
    MAX_PIXELS,
    MAX_SCANS,
    decode_picture,
    missing_plugin,
    open_frames,
    open_picture,
    plugin_formats,
)
from unmask.errors import UserError

COLOURS = npst.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))


def encode(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def noise(height: int, width: int, *rest: int) -> np.ndarray:
    generator = np.random.default_rng((height, width))
    return generator.integers(0, 256, (height, width, *rest), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
@settings(max_examples=20)
@given(pixels=COLOURS)
def test_lossless_pictures_of_the_wanted_size_are_kept_bit_for_bit(
    kind: str, pixels: np.ndarray
) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(Image.fromarray(pixels), kind, **options)
    got = decode_picture(data, size=pixels.shape[:2], channels=3)
    np.testing.assert_array_equal(got, pixels.transpose(2, 0, 1))
    assert got.dtype == np.uint8


# How a camera stores an upright image, by the number it writes into its EXIF data.
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_pictures_are_turned_upright(kind: str, orientation: int) -> None:
    upright = noise(5, 7, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    data = encode(stored, kind, exif=exif)
    got = decode_picture(data, size=(5, 7), channels=3)
    np.testing.assert_array_equal(got, upright.transpose(2, 0, 1))


@given(COLOURS)
def test_grey_is_the_luma_of_the_colours(pixels: np.ndarray) -> None:
    data = encode(Image.fromarray(pixels))
    got = decode_picture(data, size=pixels.shape[:2], channels=1)
    luma = pixels.astype(np.float64) @ [0.299, 0.587, 0.114]  # ITU-R 601
    assert np.abs(got[0] - luma).max() <= 0.51


def test_a_grey_picture_has_three_equal_colours_when_colours_are_wanted() -> None:
    grey = noise(6, 6)
    got = decode_picture(encode(Image.fromarray(grey)), size=(6, 6), channels=3)
    np.testing.assert_array_equal(got, np.broadcast_to(grey, (3, 6, 6)))


@given(npst.arrays(np.uint8, (4, 5, 4)))
def test_transparent_pictures_lie_on_white(pixels: np.ndarray) -> None:
    got = decode_picture(encode(Image.fromarray(pixels)), size=(4, 5), channels=3)
    opacity = pixels[..., 3:] / 255
    expected = opacity * pixels[..., :3] + (1 - opacity) * 255
    assert np.abs(got.transpose(1, 2, 0) - expected).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_wholly_transparent_is_white_in_every_kind_of_file(channels: int) -> None:
    black = Image.new("L", (3, 3), 0)
    for data in (
        encode(Image.merge("LA", (black, black))),
        encode(black.convert("P"), transparency=0),
        encode(black.convert("RGB"), transparency=(0, 0, 0)),
        encode(black.convert("P"), "GIF", transparency=0),
    ):
        assert (decode_picture(data, size=(3, 3), channels=channels) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
@given(values=npst.arrays(np.uint16, (3, 4)))
def test_of_sixteen_bits_the_high_byte_is_kept(kind: str, values: np.ndarray) -> None:
    data = encode(Image.fromarray(values), kind)
    got = decode_picture(data, size=(3, 4), channels=1)
    np.testing.assert_array_equal(got[0], values >> 8)


@pytest.mark.parametrize(
    "values",
    [np.ones((2, 2), np.float32), np.full((2, 2), 70000, np.int32), np.full((1, 1), -1, np.int32)],
)
def test_values_without_a_known_range_are_refused(values: np.ndarray) -> None:
    with pytest.raises(UserError, match="the range is unknown"):
        decode_picture(encode(Image.fromarray(values), "TIFF"), size=(2, 2), channels=1)


def test_ink_printing_colours_and_black_and_white_are_read() -> None:
    cyan = encode(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "TIFF")
    assert decode_picture(cyan, size=(8, 8), channels=3)[:, 0, 0].tolist() == [0, 255, 255]
    bits = noise(8, 8) > 127
    got = decode_picture(encode(Image.fromarray(bits)), size=(8, 8), channels=1)
    np.testing.assert_array_equal(got[0], bits * 255)


SIDES = st.integers(1, 40)


@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 255))
def test_an_even_picture_stays_even_at_any_size(
    height: int, width: int, wanted_height: int, wanted_width: int, value: int
) -> None:
    data = encode(Image.new("L", (width, height), value))
    got = decode_picture(data, size=(wanted_height, wanted_width), channels=3)
    assert got.shape == (3, wanted_height, wanted_width)
    assert (got == value).all()


def test_a_wide_picture_is_cut_about_its_middle() -> None:
    thirds = np.repeat(np.eye(3, dtype=np.uint8) * 255, 10, axis=0)[None].repeat(10, axis=0)
    got = decode_picture(encode(Image.fromarray(thirds)), size=(10, 10), channels=3)
    assert got.max(axis=(1, 2)).tolist() == got.min(axis=(1, 2)).tolist() == [0, 255, 0]


def test_a_large_photograph_is_scaled_faithfully() -> None:
    ramp = np.linspace(0, 255, 1024)
    data = encode(Image.fromarray(np.tile(ramp.astype(np.uint8), (1024, 1))), "JPEG", quality=95)
    got = decode_picture(data, size=(32, 32), channels=1)[0]
    expected = ramp.reshape(32, 32).mean(axis=1)
    assert np.abs(got[:, 1:-1] - expected[1:-1]).max() <= 2


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "extent", [(20000, 20000), (8192, MAX_PIXELS // 8192 + 1), (2**31 - 1, 2**31 - 1)]
)
def test_pictures_too_large_to_unpack_are_refused(extent: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=f"the image is too large.*{MAX_PIXELS}"):
        decode_picture(png_header(*extent), size=(8, 8), channels=3)


def test_a_photograph_of_too_many_scans_is_refused_and_not_unpacked() -> None:
    data = encode(Image.fromarray(noise(64, 64, 3)), "JPEG", progressive=True)
    assert decode_picture(data, size=(8, 8), channels=3).shape == (3, 8, 8)
    start = data.rindex(b"\xff\xda")
    last = data[start:-2]
    bomb = data[:-2] + MAX_SCANS * last + data[-2:]
    with pytest.raises(UserError, match=r"long to unpack.*scans"):
        decode_picture(bomb, size=(8, 8), channels=3)


def test_a_program_for_a_printer_is_no_picture() -> None:
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    with pytest.raises(UserError, match="no image in a format of BMP, GIF, JPEG"):
        decode_picture(script, size=(8, 8), channels=3)


WHOLE = {
    kind: encode(Image.fromarray(noise(12, 12, 3)), kind)
    for kind in ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
}


@pytest.mark.parametrize("kind", WHOLE)
@given(data=st.data())
def test_a_damaged_file_gives_pixels_or_one_clear_error(kind: str, data: st.DataObject) -> None:
    content = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    try:
        got = decode_picture(bytes(content), size=(6, 6), channels=3)
    except UserError as error:
        line = str(error)
    else:
        assert got.shape == (3, 6, 6)
        line = "read"
    assert line
    assert "\n" not in line


def test_a_cut_photograph_is_not_half_accepted() -> None:
    with pytest.raises(UserError, match=r"a damaged image: got .*truncated"):
        decode_picture(WHOLE["JPEG"][:-60], size=(6, 6), channels=3)


def test_damage_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    data = WHOLE["TIFF"]
    header = int.from_bytes(data[4:8], "little")
    entry = data.index(struct.pack("<HH", 277, 3), header)  # The number of samples a pixel.
    damaged = data[: entry + 8] + struct.pack("<I", 2048) + data[entry + 12 :]
    handlers = logging.getLogger().handlers[:]
    logging.getLogger().handlers.clear()
    try:
        with pytest.raises(UserError):
            decode_picture(damaged, size=(6, 6), channels=3)
    finally:
        logging.getLogger().handlers.extend(handlers)
    assert capfd.readouterr() == ("", "")


FRAMES = [Image.new("RGB", (20, 10), (60 * k, 0, 0)) for k in range(4)]


@pytest.mark.parametrize(("kind", "options"), [
    ("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}),
])  # fmt: skip
def test_every_frame_comes_when_asked(kind: str, options: dict[str, bool]) -> None:
    file = io.BytesIO()
    FRAMES[0].save(file, kind, save_all=True, append_images=FRAMES[1:], **options)
    found = [np.asarray(frame) for frame in open_frames(file.getvalue())]
    assert [frame[5, 5].tolist() for frame in found] == [[60 * k, 0, 0] for k in range(4)]
    np.testing.assert_array_equal(np.asarray(open_picture(file.getvalue())), found[0])


def test_an_image_is_one_frame_and_damage_is_met_where_it_is() -> None:
    file = io.BytesIO()
    FRAMES[3].save(file, "BMP")
    assert len(list(open_frames(file.getvalue()))) == 1
    with pytest.raises(UserError, match="an empty file"):
        next(open_frames(b""))
    file = io.BytesIO()
    noise = [Image.effect_noise((64, 64), 90 + k) for k in range(3)]
    noise[0].save(file, "TIFF", save_all=True, append_images=noise[1:])
    frames = open_frames(file.getvalue()[:-6000])
    with pytest.raises(UserError):
        list(frames)


@pytest.mark.parametrize(("kind", "suffix"), [("HEIF", ".heic"), ("AVIF", ".avif")])
def test_formats_by_plugin_are_read_or_the_plugin_is_named(
    kind: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind not in plugin_formats():
        pytest.skip("the plugin is not installed")
    assert missing_plugin("a" + suffix.upper()) == ""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 30, 30)).save(file, kind)
    found = np.asarray(open_picture(file.getvalue()))
    assert found.shape == (48, 64, 3)
    np.testing.assert_allclose(found[20, 20], (200, 30, 30), atol=12)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(UserError, match="which needs a plugin; pip install"):
        open_picture(file.getvalue())
    assert "pip install" in missing_plugin("a" + suffix)
