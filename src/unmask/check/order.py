"""Are the classes in the order of the model's outputs?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unmask.stats import wilson
from unmask.verdict import Verdict

# The accuracy from which on another order of the classes is believed.
_REORDERED, _SHOWN_OUTPUTS = 0.5, 5


def other_order(
    logits: Tensor, labels: NDArray[np.int64], names: tuple[str, ...]
) -> Verdict | None:
    """Return the verdict on a model that is right once its outputs are put in another order.

    Args:
        logits: finite, float[n, outputs].
        labels: int64[n].
        names: of the classes, in their order.
    """
    from scipy.optimize import linear_sum_assignment

    predicted = logits.argmax(1).numpy()
    counts = np.zeros((len(names), logits.shape[1]))
    np.add.at(counts, (labels[::2], predicted[::2]), 1)
    classes, outputs = linear_sum_assignment(-counts)
    place = np.full(len(names), -1)
    place[classes] = outputs
    labels, given = labels[1::2], predicted[1::2]
    if not len(labels):
        return None
    # On images that the order wasn't chosen by.
    before, after = int((given == labels).sum()), int((place[labels] == given).sum())
    low = wilson(after, len(labels))[0]
    smallest = int((logits.argmin(1).numpy()[1::2] == labels).sum())
    constant = len(np.unique(labels)) < 2
    if (
        logits.shape[1] > 2
        and not constant
        and wilson(smallest, len(labels))[0] > max(_REORDERED, before / len(labels))
    ):
        return Verdict(
            "class order",
            "error",
            f"{smallest / len(labels):.1%} of {len(labels):,} images are right by the smallest "
            f"output, but {before / len(labels):.1%} by the largest",
            cause="the outputs are distances or losses",
            fix="return their negative",
            evidence={"reordered": smallest / len(labels), "accuracy": before / len(labels)},
        )
    seen = np.flatnonzero(counts.any(1) & (place != np.arange(len(names))))
    # A constant prediction is the output of the one class that it gets right.
    if len(np.unique(labels[place[labels] == given])) < 2:
        return None
    if low < _REORDERED or low <= wilson(before, len(labels))[1] or not len(seen):
        return None
    shown = ", ".join(f"{names[k]} is output {place[k]}" for k in seen[:_SHOWN_OUTPUTS])
    return Verdict(
        "class order",
        "error",
        f"{after / len(labels):.1%} of {len(labels):,} images are right with the outputs in "
        f"another order, but {before / len(labels):.1%} in that of the classes: {shown}"
        f"{', ...' * (len(seen) > _SHOWN_OUTPUTS)} (counted from 0)",
        cause="the model was trained with its classes in another order, or with others beside them",
        fix="name the folders so that their alphabetical order is that of the model's outputs, or "
        "store the class names with the model",
        evidence={"reordered": after / len(labels), "accuracy": before / len(labels)},
    )
