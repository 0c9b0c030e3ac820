"""Images on their way between a browser and the models; none of them touches a disk."""

from __future__ import annotations

import base64
import binascii
import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unmask.data.picture import FORMATS, open_picture
from unmask.errors import UserError

_SIDE, _INK = 28, 20
_THUMBNAIL = 160
# A background above this counts as paper; MNIST's is black.
_PAPER = 127


def require_fit(data: bytes, pixels: int) -> None:
    """Check that a file's bytes hold an image of at most so many pixels, before it is decoded.

    Args:
        data: the file's bytes; what is no image passes, and is left to open_picture.
        pixels: the most pixels, width times height.

    Raises:
        UserError: for a larger image and for no bytes at all.
    """
    if not data:
        raise UserError("there is no image in the request", do="send the file as its body")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                width, height = picture.size
        except Exception:  # open_picture reports what is wrong with it.
            return
    if width * height > pixels:
        raise UserError(
            "the image is too large",
            got=f"{width} x {height} pixels",
            do=f"this server takes {pixels:,} in all",
        )


def opened(data: bytes, pixels: int) -> Image.Image:
    """Return a file's bytes as an RGB image.

    Args:
        data: the file's bytes.
        pixels: the most pixels, width times height.

    Raises:
        UserError: as require_fit and open_picture do.
    """
    require_fit(data, pixels)
    return open_picture(data)


def from_url(url: object) -> bytes:
    """Return the bytes of an image's data URL, as the page sends it.

    Args:
        url: whatever came.

    Raises:
        UserError: when it is no data URL of an image.
    """
    if not isinstance(url, str) or not url.startswith("data:image/"):
        raise UserError("that is no image", do="choose an image file")
    return content_of(url, "image")


def content_of(url: object, kind: str = "file") -> bytes:
    """Return the bytes of a data URL.

    Args:
        url: whatever came.
        kind: what it should be, for the message.

    Raises:
        UserError: when it is no data URL in base64.
    """
    head, comma, content = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise UserError(
            f"that is no {kind}", do=f"choose {'an' if kind == 'image' else 'a'} {kind}"
        )
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise UserError(f"that is no {kind}", got=error) from None


def png_url(picture: Image.Image) -> str:
    """Return the image as the data URL of a PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def jpeg_bytes(picture: Image.Image) -> bytes:
    """Return the image as a JPEG file's bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def jpeg_url(picture: Image.Image) -> str:
    """Return the image as the data URL of a JPEG."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg_bytes(picture)).decode()}"


def thumbnail(picture: Image.Image) -> Image.Image:
    """Return a small copy of the image, at most 160 pixels high and wide."""
    small = picture.copy()
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return small


def to_pillow(pixels: NDArray[np.float32]) -> Image.Image:
    """Return float[c, h, w] in [0, 1], one channel or three, as an image."""
    values = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(values[0] if len(values) == 1 else values.transpose(1, 2, 0))


def as_digit(picture: Image.Image) -> NDArray[np.uint8]:
    """Return an image of one digit in the style of MNIST: uint8[1, 28, 28], white on black.

    Its ink is scaled to 20 pixels and centred by its mass. A light background counts as paper.

    Args:
        picture: the image, of any size and mode.

    Raises:
        UserError: when nothing is written on it.
    """
    values = np.asarray(picture.convert("L")).astype(np.float32)
    rim = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    ground = float(np.median(rim))
    ink = ground - values if ground > _PAPER else values - ground
    ink = np.clip(ink, 0, None)
    strongest = float(ink.max())
    rows, columns = np.nonzero(ink > 0.3 * strongest)
    if strongest < 32 or not len(rows):
        raise UserError("the image shows no digit", do="draw one, or click an example")
    left_top = int(columns.min()), int(rows.min())
    box = (*left_top, int(columns.max()) + 1, int(rows.max()) + 1)
    cut = Image.fromarray((ink * (255 / strongest)).astype(np.uint8)).crop(box)
    scale = _INK / max(cut.size)
    size = (max(1, round(cut.width * scale)), max(1, round(cut.height * scale)))
    small = np.asarray(cut.resize(size, Image.Resampling.BOX if scale < 1 else None))
    mass = small.astype(np.float64)
    y, x = (
        float((mass.sum(axis) * np.arange(mass.shape[1 - axis])).sum() / mass.sum())
        for axis in (1, 0)
    )
    top = min(max(round(_SIDE / 2 - 0.5 - y), 0), _SIDE - size[1])
    left = min(max(round(_SIDE / 2 - 0.5 - x), 0), _SIDE - size[0])
    digit = np.zeros((1, _SIDE, _SIDE), np.uint8)
    digit[0, top : top + size[1], left : left + size[0]] = small
    return digit
