"""Images set aside to validate with."""

from __future__ import annotations

import numpy as np

from unmask.data.images import Images
from unmask.errors import UserError
from unmask.runtime import seeded

_HOLDOUT_STREAM = 5


def hold_out(images: Images, fraction: float, *, seed: int) -> tuple[Images, Images]:
    """Return (training, validation) images, a fraction of each class drawn for the second.

    Args:
        images: with two or more of each class.
        fraction: over 0 and under 1; each class keeps and gives at least one image.
        seed: of what is drawn.

    Raises:
        UserError: the fraction is out of range, or a class has fewer than two images.
    """
    if not 0 < fraction < 1:
        raise UserError("the part held out for validation must be over 0 and under 1", got=fraction)
    random = seeded(seed, _HOLDOUT_STREAM)
    held: list[np.intp] = []
    for label, name in enumerate(images.class_names):
        members = np.flatnonzero(images.labels == label)
        if len(members) < 2:
            raise UserError(
                f"the class {name!r} of {images.name} has too few images to train and validate",
                got=len(members),
                do="give each class two images or more",
            )
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        held.extend(random.permutation(members)[:count])
    chosen = np.zeros(len(images), bool)
    chosen[held] = True
    return images[~chosen], images[chosen]
