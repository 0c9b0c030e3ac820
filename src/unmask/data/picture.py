"""One image file becomes pixels, whatever its format, colours and orientation."""

from __future__ import annotations

import io
import logging
import warnings
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
MAX_PIXELS = 1 << 26
# Cameras and encoders write about ten; each is a pass over all pixels.
MAX_SCANS = 100

_NOWHERE = logging.NullHandler()


def decode_picture(data: bytes, *, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """Return the image in a file's bytes as uint8[channels, height, width].

    size is (height, width); channels is 1 (luma) or 3 (red, green, blue). The image is cut to the
    wanted aspect ratio about its middle and scaled with a bicubic filter wide enough not to alias;
    a JPEG of twice the size or more is halved while it is unpacked. How it is read, and what raises
    UserError: see open_picture.
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
    """Return the image in a file's bytes, unpacked, in 8 bits and in the mode "RGB" or "L".

    It is turned upright by its EXIF orientation and laid on white where it is transparent. Of
    16-bit values the high byte is kept, of an animation the first frame. A JPEG of which both sides
    stay above enough may come at a half, a quarter or an eighth of its size. Raises UserError when
    the bytes are no image in FORMATS, are damaged, hold more than MAX_PIXELS pixels or are a JPEG
    of more than MAX_SCANS scans (never unpacked, so that memory and time stay bounded).
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    # What Pillow warns of is either harmless or told apart below, and libraries don't print. Who
    # configures logging still gets what it logs.
    logging.getLogger("PIL").addHandler(_NOWHERE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # Without a list of formats a file could also start an interpreter for PostScript.
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
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
                # JPEG can leave out detail while it is unpacked: many times faster for photographs.
                if enough is not None:
                    opened.draft(None, (enough, enough))
                ImageOps.exif_transpose(opened, in_place=True)
                plain = _eight_bits(opened)
                plain.load()
                # Converting copies even what has the mode already: a quarter of a large image's
                # memory is saved by leaving it out.
                return plain if plain.mode == mode else plain.convert(mode)
        except UserError:
            raise
        except UnidentifiedImageError:
            known = ", ".join(FORMATS)
            raise UserError(
                f"no image in a format of {known}" if data else "an empty file"
            ) from None
        except Image.DecompressionBombError:
            raise _too_large(f"over {MAX_PIXELS}") from None
        except Exception as error:  # Decoders meet damage with nearly any exception there is.
            reason = str(error) or type(error).__name__
            raise UserError("a damaged image", got=reason) from error


def as_opened(image: Picture, mode: str = "RGB") -> Picture:
    """Return an image of Pillow's as open_picture would have read its file.

    Raises UserError for values of which the range is unknown, and for one that can't be read.
    """
    from PIL import ImageOps

    try:
        plain = _eight_bits(ImageOps.exif_transpose(image) or image)
        return plain if plain.mode == mode else plain.convert(mode)
    except UserError:
        raise
    except Exception as error:  # A file that is opened but damaged raises what its decoder does.
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
