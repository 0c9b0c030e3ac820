"""Pictures that an attack may start from."""

from __future__ import annotations

from torch import Tensor

from unmask.errors import UserError


def require_pictures(pixels: Tensor, shape: tuple[int, int, int] | None) -> None:
    """Check that pixels are float[n, c, h, w] in [0, 1], of the model's shape (c, h, w) if known.

    Raises UserError naming the first picture that isn't.
    """
    if pixels.ndim != 4 or 0 in pixels.shape[1:] or not pixels.is_floating_point():
        raise UserError(
            "pictures must be float[n, channels, height, width]",
            got=f"{str(pixels.dtype).removeprefix('torch.')}{list(pixels.shape)}",
            do="divide 8-bit values by 255; a grey picture has one channel",
        )
    given = tuple(pixels.shape[1:])
    if shape is not None and given != shape:
        wrong = "channels" if given[0] != shape[0] else "size"
        raise UserError(
            f"the pictures have another {wrong} than the model takes, {_by(shape)}",
            got=_by(given),
            do="give channels x height x width as the model was trained",
        )
    values = pixels.flatten(1)
    for name, bad, do in (
        ("hold values that are not finite", ~values.isfinite().all(1), "mend them"),
        (
            "must lie in [0, 1]",
            (values.amin(1) < 0) | (values.amax(1) > 1),
            "divide 8-bit values by 255, and leave normalising to the model",
        ),
    ):
        rows = bad.nonzero().flatten()
        if len(rows):
            first = values[rows[0]]
            raise UserError(
                f"pixels {name}",
                got=f"{first.min().item():.4g} to {first.max().item():.4g} in picture {rows[0]}",
                do=do,
            )


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
