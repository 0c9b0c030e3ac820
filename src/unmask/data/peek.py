"""The size and the colours of image files, read from their headers without decoding any."""

from __future__ import annotations

import contextlib
import io
import warnings
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
