"""One image file becomes pixels, whatever its format, colours and orientation."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
    | {".pbm", ".pgm", ".pnm", ".ppm"}
)
# Formats that Pillow reads only with a plugin or in a newer version.
PLUGIN_SUFFIXES = frozenset({".avif", ".heic", ".heif"})
# Formats of several frames or pages.
_MANY = ("AVIF", "GIF", "HEIF", "PNG", "TIFF", "WEBP")
MAX_PIXELS = 1 << 26
MAX_FRAMES = 10_000
# The EXIF tag of the camera's orientation.
_ORIENTATION = 0x0112
# Cameras and encoders write about ten; each is a pass over all pixels.
MAX_SCANS = 100

_NOWHERE = logging.NullHandler()


def decode_picture(data: bytes, *, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """Return the image in a file's bytes as an array of the wanted size.

    The image is cropped about its middle to the wanted aspect ratio and scaled with a bicubic
    filter wide enough not to alias; a JPEG of twice the size or more is halved while it is decoded.
    open_picture describes how orientation, transparency and depth are treated.

    Args:
        data: the file's bytes.
        size: (height, width) in pixels.
        channels: 1 (luma) or 3 (red, green, blue).

    Returns:
        uint8[channels, height, width], 0..255.

    Raises:
        UserError: as open_picture does.
    """
    from PIL import Image, ImageOps

    height, width = size
    mode = "L" if channels == 1 else "RGB"
    plain = open_picture(data, mode=mode, enough=2 * max(size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = ImageOps.fit(plain, (width, height), Image.Resampling.BICUBIC)
    return np.asarray(fitted).reshape(height, width, channels).transpose(2, 0, 1)


def open_picture(data: bytes, *, mode: str = "RGB", enough: int | None = None) -> Picture:
    """Return the image in a file's bytes, decoded to 8 bits.

    It is turned upright by its EXIF orientation, and transparent images are laid on white. Of
    16-bit values the high byte is kept, of an animation the first frame.

    Args:
        data: the file's bytes.
        mode: Pillow's mode of the result, "RGB" or "L".
        enough: a JPEG both of whose sides stay above so many pixels may be decoded at a half, a
            quarter or an eighth of its size; None keeps every size.

    Returns:
        A Pillow image.

    Raises:
        UserError: when the bytes are no image in FORMATS, are damaged, hold more than MAX_PIXELS
            pixels, or are a JPEG of more than MAX_SCANS scans, which is never decoded, so that
            memory and time stay bounded.
    """
    return next(_pictures(data, mode, enough, every=False))


def open_frames(data: bytes, *, mode: str = "RGB") -> Iterator[Picture]:
    """Yield every frame or page of an animation or a document, each as open_picture returns one.

    Args:
        data: the file's bytes; a file of one image yields one frame.
        mode: Pillow's mode of the frames, "RGB" or "L".

    Yields:
        Pillow images, upright and in 8 bits.

    Raises:
        UserError: as open_picture does, and for more than MAX_FRAMES frames.
    """
    return _pictures(data, mode, None, every=True)


def plugin_formats() -> tuple[str, ...]:
    """Return which of AVIF and HEIF can be read here."""
    from PIL import features

    found = ["AVIF"] if features.check("avif") else []
    try:
        from pillow_heif import register_heif_opener  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return tuple(found)
    register_heif_opener()
    return (*found, "HEIF")


def missing_plugin(name: str) -> str:
    """Return what to install to read a file of PLUGIN_SUFFIXES, "" when nothing is needed."""
    kind = "AVIF" if name.lower().endswith(".avif") else "HEIF"
    return "" if kind in plugin_formats() else _PLUGINS[kind]


_PLUGINS = {"HEIF": "pip install 'unmask[heic]'", "AVIF": "pip install -U 'pillow>=11.3'"}
# The brand that follows "ftyp" at byte 4 of a file.
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIF", b"heix": "HEIF", b"mif1": "HEIF"}


def _pictures(data: bytes, mode: str, enough: int | None, *, every: bool) -> Iterator[Picture]:
    """Yield the first or all of a file's frames."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    formats: tuple[str, ...] = FORMATS
    kind = _BRANDS.get(data[8:12]) if data[4:8] == b"ftyp" else None
    if kind:
        formats = plugin_formats()
        if kind not in formats:
            name = "HEIC" if kind == "HEIF" else kind
            raise UserError(f"an image in {name}, which needs a plugin", do=_PLUGINS[kind])
    # Pillow's warnings are either harmless or handled below, and libraries don't print. Users who
    # configure logging still get its log.
    logging.getLogger("PIL").addHandler(_NOWHERE)
    try:
        # Without a list of formats a file could also start an interpreter for PostScript.
        with _quiet():
            opened = Image.open(io.BytesIO(data), formats=formats)
        with opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise _too_large(f"{opened.width} x {opened.height}")
            # Within a scan the marker's first byte is always followed by 0.
            scans = data.count(b"\xff\xda") if opened.format == "JPEG" else 0
            if scans > MAX_SCANS:
                raise UserError(
                    "a JPEG that would take long to unpack",
                    got=f"{scans} scans",
                    do=f"the limit is {MAX_SCANS}",
                )
            # JPEG can leave out detail while it is decoded: many times faster for photographs.
            if enough is not None:
                opened.draft(None, (enough, enough))
            with _quiet():
                count = _frames(opened) if every else 1
            for frame in range(count):
                with _quiet():
                    if frame:
                        opened.seek(frame)
                        if opened.width * opened.height > MAX_PIXELS:
                            raise _too_large(f"{opened.width} x {opened.height}")
                    if every:
                        upright = ImageOps.exif_transpose(opened) or opened
                    else:
                        ImageOps.exif_transpose(opened, in_place=True)
                        upright = opened
                    plain = _eight_bits(upright)
                    plain.load()
                    # Converting copies even an image that has the mode already: skipping it saves a
                    # quarter of a large image's memory.
                    same = plain.mode == mode and (plain is not opened or not every)
                    made = plain if same else plain.convert(mode)
                yield made
    except UserError:
        raise
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise UserError(f"no image in a format of {known}" if data else "an empty file") from None
    except Image.DecompressionBombError:
        raise _too_large(f"over {MAX_PIXELS}") from None
    except Exception as error:  # Decoders raise nearly any exception for damage.
        reason = str(error) or type(error).__name__
        raise UserError("a damaged image", got=reason) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _frames(opened: Picture) -> int:
    """Return the number of frames or pages of a file in a format that can have several."""
    frames = int(getattr(opened, "n_frames", 1)) if opened.format in _MANY else 1
    if frames > MAX_FRAMES:
        raise UserError("an animation that is too long", got=f"{frames} frames")
    return frames


def as_opened(image: Picture, mode: str = "RGB") -> Picture:
    """Return a Pillow image as open_picture would have read it from its file.

    Args:
        image: any Pillow image, loaded or not.
        mode: Pillow's mode of the result, "RGB" or "L".

    Raises:
        UserError: for values of unknown range, and for an image that can't be read.
    """
    from PIL import ImageOps

    try:
        image.load()
        turned = image.getexif().get(_ORIENTATION, 1) != 1
        plain = _eight_bits((ImageOps.exif_transpose(image) or image) if turned else image)
        return plain if plain.mode == mode else plain.convert(mode)
    except UserError:
        raise
    except Exception as error:  # A damaged file that is opened lazily raises what its decoder does.
        raise UserError(
            "an image that can't be read as RGB", got=f"{image.mode}: {error}"
        ) from error


def _too_large(extent: str) -> UserError:
    return UserError(
        "the image is too large", got=f"{extent} pixels", do=f"the limit is {MAX_PIXELS} in all"
    )


def _eight_bits(picture: Picture) -> Picture:
    from PIL import Image

    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise UserError("an image of 32 bits, of which the range is unknown")
        return Image.fromarray((values >> 8).astype(np.uint8))
    if picture.mode == "F":
        raise UserError("an image of floating-point values, of which the range is unknown")
    if picture.mode == "LAB":
        from PIL import ImageCms

        space = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(picture, *space, outputMode="RGB") or picture
    if picture.has_transparency_data:
        colours = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    return picture
