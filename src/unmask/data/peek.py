"""The size and the colours of image files, read from their headers without decoding any."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
import zlib
from pathlib import Path

from unmask.data.listing import list_pictures
from unmask.data.picture import FORMATS, MAX_PIXELS
from unmask.errors import UserError
from unmask.runtime import open_regular

LARGEST_SIDE = 64
_LOOKED_AT = 64
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")
_ORIENTATION = 0x0112
_FIRST_TURNED = 5
_DETAILS, _MAKE, _MODEL, _EXPOSURE, _SENSITIVITY = 0x8769, 0x010F, 0x0110, 0x829A, 0x8827
# What the columns of file_traits are, and where each kind ends.
TRAITS = {"file size": slice(0, 1), "image size": slice(1, 3), "EXIF": slice(3, 15)}


def natural_shape(root: Path) -> tuple[int, int, int]:
    """Return the shape at which to read the images of a folder or zip archive.

    The headers of about 64 images, spread over the tree, decide; none is decoded.

    Args:
        root: the folder or zip archive.

    Returns:
        (channels, height, width). Images of one size keep it up to a side of 64 pixels; all others
        become squares of 64. One channel if all are grey, else three.

    Raises:
        UserError: when root is neither a folder nor a zip archive.
    """
    from PIL import Image

    sizes: set[tuple[int, int]] = set()
    modes: set[str] = set()
    with list_pictures(root) as listing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in listing.files[:: max(1, len(listing.files) // _LOOKED_AT)]:
            # Files that can't be read are named when the whole tree is read.
            with (
                contextlib.suppress(Exception),
                Image.open(io.BytesIO(file.read()), formats=FORMATS) as picture,
            ):
                sizes.add((picture.height, picture.width))
                modes.add(picture.mode)
    channels = 1 if modes and modes <= set(_GREY_MODES) else 3
    (height, width), *others = sizes or {(LARGEST_SIDE, LARGEST_SIDE)}
    if others or max(height, width) > LARGEST_SIDE:
        height = width = LARGEST_SIDE
    return channels, height, width


def file_traits(data: bytes) -> tuple[float, ...]:
    """Return what a file tells before any pixel is read: numbers that must not tell a class.

    Args:
        data: the bytes of an image file.

    Returns:
        As many numbers as TRAITS has columns: the logarithm of its size in bytes, width and height
        in pixels, and of EXIF the logarithm of its size, the orientation, the logarithms of the
        exposure time and of the sensitivity, and the camera as one of eight.
    """
    from PIL import Image

    width = height = 0
    tags: dict[int, object] = {}
    length = 0
    with (
        contextlib.suppress(Exception),
        warnings.catch_warnings(),
        Image.open(io.BytesIO(data), formats=FORMATS) as picture,
    ):
        warnings.simplefilter("ignore")
        width, height = picture.size
        length = len(picture.info.get("exif", b""))
        exif = picture.getexif()
        tags = {**exif, **exif.get_ifd(_DETAILS)}

    def logarithm(tag: int) -> float:
        try:
            return math.log(float(tags[tag]))  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError, ArithmeticError):
            return 0.0

    camera = f"{tags.get(_MAKE, '')}/{tags.get(_MODEL, '')}".encode(errors="replace")
    which = zlib.crc32(camera) % 8 if camera != b"/" else -1
    turned = tags.get(_ORIENTATION, 0)
    return (
        math.log(max(1, len(data))),
        float(width),
        float(height),
        math.log(1 + length),
        float(turned) if isinstance(turned, int) else 0.0,
        logarithm(_EXPOSURE),
        logarithm(_SENSITIVITY),
        *(float(k == which) for k in range(8)),
    )


def upright_size(file: Path) -> tuple[int, int]:
    """Return an image's (width, height) in pixels after its EXIF orientation has been applied.

    Args:
        file: the image file; only its header is read.

    Raises:
        UserError: when the file can't be read, is no image, or has more than MAX_PIXELS pixels.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with open_regular(file) as opened, Image.open(opened, formats=FORMATS) as picture:
                width, height = picture.size
                turned = picture.getexif().get(_ORIENTATION, 1) >= _FIRST_TURNED
        except UserError:
            raise
        except Exception as error:  # Decoders raise nearly any exception for damage.
            raise UserError("no readable image", got=_reason(file, error)) from error
    if width * height > MAX_PIXELS:
        raise UserError("the image is too large", got=f"{width} x {height} pixels")
    return (height, width) if turned else (width, height)


def _reason(file: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"nothing in a format of {', '.join(FORMATS)}" if file.stat().st_size else "0 bytes"
