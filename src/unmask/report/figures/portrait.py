"""A portrait in the public domain that comes with matplotlib: a picture where none was given."""

from __future__ import annotations

from matplotlib import cbook
from PIL import Image

from unmask.errors import UserError


def portrait() -> Image.Image:
    """Return the portrait of Grace Hopper, 512 x 600 in RGB (J. S. Davis, US Navy; public domain).

    Raises UserError where matplotlib came without its sample pictures.
    """
    try:
        file = str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
        return Image.open(file).convert("RGB")
    except OSError as error:
        raise UserError(
            "this matplotlib came without its sample pictures",
            got=error.strerror or str(error),
            do="install it with pip install --force-reinstall --no-deps matplotlib",
        ) from error
