"""Annotated pictures that can be unpacked: one damaged file among thousands stops nothing."""

from __future__ import annotations

from unmask.data.annotated import AnnotatedPictures
from unmask.data.listing import skipped
from unmask.errors import UserError


def readable(annotated: AnnotatedPictures) -> tuple[AnnotatedPictures, tuple[str, ...]]:
    """Return the pictures that can be unpacked, and a line for each of the others.

    Raises UserError when none can be.
    """
    kept, warnings = [], []
    for i, path in enumerate(annotated.paths):
        try:
            annotated.pixels(i)
        except UserError as error:
            warnings.append(skipped((path.name,), str(error)))
        else:
            kept.append(i)
    if not kept:
        raise UserError(f"no picture of {annotated.name} can be read", got=(*warnings, "none")[0])
    return annotated[kept], tuple(warnings)


def left_out(warnings: tuple[str, ...]) -> bool:
    """Return whether any of the warnings is of a file that is not used, not of a box alone."""
    return any(" skipped: " in line for line in warnings)
