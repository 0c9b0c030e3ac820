"""The size and the colours that the pictures of a tree have by nature."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

from unmask.data.listing import list_pictures
from unmask.data.picture import FORMATS
from unmask.errors import UserError

LARGEST_SIDE = 64
_LOOKED_AT = 64
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")


def natural_shape(root: Path) -> tuple[int, int, int]:
    """Return the (channels, height, width) to read the pictures of a folder or zip archive at.

    Up to 64 of them, spread over the tree, are asked for their size, not unpacked. Pictures of one
    size keep it up to a side of 64 pixels, all others become squares of 64. One channel if all are
    grey, else three. Raises UserError when there is no tree.
    """
    from PIL import Image

    sizes: set[tuple[int, int]] = set()
    modes: set[str] = set()
    with list_pictures(root) as listing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in listing.files[:: max(1, len(listing.files) // _LOOKED_AT)]:
            # What can't be read is named when the whole tree is.
            with (
                contextlib.suppress(UserError, OSError, ValueError, SyntaxError),
                Image.open(io.BytesIO(file.read()), formats=FORMATS) as picture,
            ):
                sizes.add((picture.height, picture.width))
                modes.add(picture.mode)
    channels = 1 if modes and modes <= set(_GREY_MODES) else 3
    (height, width), *others = sizes or {(LARGEST_SIDE, LARGEST_SIDE)}
    if others or max(height, width) > LARGEST_SIDE:
        height = width = LARGEST_SIDE
    return channels, height, width
