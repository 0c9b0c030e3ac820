"""Attacks on any classifier: a network and tensors in, the changed images out.

An image that an attack failed on comes back unchanged or as its last try: `unmask.audit` judges
afresh. The network is used as it stands: call model.eval() first. All take:

Args:
    model: a network, or for the black boxes (square, rays, hopskipjump) any function, of
        float32[b, c, h, w] to logits [b, classes]; rays and hopskipjump make do with classes [b].
    images: float[n, c, h, w] in [0, 1], a tensor or an array.
    labels: the true classes, int[n].
    eps: the largest change, in units of pixels in [0, 1].
    norm: the norm that a change is measured in, of those that the attack knows.
    targets: the classes to reach, int[n]; None for any but the true one.
    mean: one number or one a channel that the model wants taken away from the images.
    std: one number or one a channel that it wants them divided by then.
    batch_size: how many images go through the model at a time.
    seed: of everything random; the same seed gives the same images.

Returns:
    The changed images, float32[n, c, h, w], a tensor where images are one, otherwise an array.

Raises:
    UserError: for images outside [0, 1], labels or targets that are no classes, a norm that the
        attack doesn't know, a missing eps, and a model without gradients where they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypedDict, TypeVar, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.errors import UserError, unknown
from unmask.fool.attacks import ATTACKS
from unmask.fool.goal import Goal
from unmask.fool.norms import NORMS, Threat
from unmask.fool.source import Model, as_victim
from unmask.fool.victim import Victim, require_images

NormName = Literal["linf", "l2", "l1", "l0"]
Usual = Literal["linf", "l2"]
Convex = Literal["linf", "l2", "l1"]
X = TypeVar("X", Tensor, NDArray[Any])


class Common(TypedDict, total=False):
    """What every attack takes besides its own settings; see the module."""

    targets: Any
    mean: float | Sequence[float] | None
    std: float | Sequence[float] | None
    batch_size: int
    seed: int


__all__ = [
    "apgd",
    "apgd_minimal",
    "apgd_t",
    "carlini_wagner",
    "ddn",
    "fgsm",
    "fmn",
    "hopskipjump",
    "pgd",
    "rays",
    "run",
    "sigma_zero",
    "square",
]


def run(
    name: str,
    model: Model,
    images: X,
    labels: Any,
    *,
    eps: float | None = None,
    norm: NormName = "linf",
    targets: Any = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    batch_size: int = 256,
    seed: int = 0,
    **settings: Any,
) -> X:
    """Attack images with the attack of that name, your own registered ones included.

    Args:
        name: a name in unmask.fool.attacks.ATTACKS, such as "apgd-ce".
        model: it and all others but settings: see the module.
        eps: None for the smallest change, which the minimum-norm attacks seek.
        settings: the attack's own keyword arguments.

    Returns:
        The changed images.

    Raises:
        UserError: for an unknown name or norm, and as the module says.
    """
    if name not in ATTACKS:
        raise unknown("attack", name, ATTACKS)
    if norm not in NORMS:
        raise unknown("norm", norm, NORMS)
    spec, threat = ATTACKS[name], Threat(NORMS[norm], None if eps is None else float(eps))
    victim = as_victim(model, mean=mean, std=std, batch_size=batch_size, images=images)
    spec.check(victim, threat)
    pixels = torch.as_tensor(images)
    require_images(pixels, victim.input_shape)
    place = pixels.device
    pixels = pixels.detach().float().to(victim.device)
    goal = _goal(victim, pixels, labels, targets)
    generator = torch.Generator().manual_seed(seed)
    found = spec.function(victim, pixels, goal, threat, generator=generator, **settings).pixels
    if isinstance(images, Tensor):
        return found.to(place)
    changed: NDArray[Any] = found.cpu().numpy()
    return changed


def _goal(victim: Victim, pixels: Tensor, labels: Any, targets: Any) -> Goal:
    # The first answer tells how many classes there are.
    if len(pixels):
        _ = victim.logits(pixels[:1])
    given = {"labels": labels} if targets is None else {"labels": labels, "targets": targets}
    checked = []
    for name, values in given.items():
        classes = torch.as_tensor(np.asarray(values) if not isinstance(values, Tensor) else values)
        if classes.ndim != 1 or len(classes) != len(pixels) or classes.is_floating_point():
            raise UserError(
                f"{name} must be one whole number an image",
                got=f"{str(classes.dtype).removeprefix('torch.')}{list(classes.shape)} for "
                f"{len(pixels)} images",
            )
        classes = classes.long().to(pixels.device)
        if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < victim.classes:
            raise UserError(
                f"{name} must lie between 0 and {victim.classes - 1}, the model's classes",
                got=f"{int(classes.min())} to {int(classes.max())}",
            )
        checked.append(classes)
    return Goal(*checked)


def fgsm(
    model: Model,
    images: X,
    labels: Any,
    *,
    eps: float,
    norm: Usual = "linf",
    **common: Unpack[Common],
) -> X:
    """Take one step of the largest change allowed (Goodfellow et al., 2015)."""
    return run("fgsm", model, images, labels, eps=eps, norm=norm, **common)


def pgd(
    model: Model,
    images: X,
    labels: Any,
    *,
    eps: float,
    norm: Usual = "linf",
    steps: int = 40,
    step: float | None = None,
    restarts: int = 1,
    **common: Unpack[Common],
) -> X:
    """Descend within the ball of eps from random starts (Madry et al., 2018).

    Args:
        steps: gradients a start.
        step: the length of a step, in units of pixels; 2.5 eps / steps by default.
        restarts: random starts.
        others: see the module.
    """
    return run(
        "pgd",
        model,
        images,
        labels,
        eps=eps,
        norm=norm,
        steps=steps,
        step=step,
        restarts=restarts,
        **common,
    )


def apgd(
    model: Model,
    images: X,
    labels: Any,
    *,
    eps: float,
    norm: Convex = "linf",
    steps: int = 100,
    restarts: int = 1,
    **common: Unpack[Common],
) -> X:
    """Descend with steps that halve themselves (Auto-PGD, Croce and Hein, 2020).

    Args:
        steps: gradients a start.
        restarts: random starts.
        others: see the module.
    """
    return run(
        "apgd-ce",
        model,
        images,
        labels,
        eps=eps,
        norm=norm,
        steps=steps,
        restarts=restarts,
        **common,
    )


def apgd_minimal(
    model: Model,
    images: X,
    labels: Any,
    *,
    norm: Usual = "linf",
    steps: int = 50,
    searches: int = 10,
    **common: Unpack[Common],
) -> X:
    """Seek the smallest change by bisection of eps, a descent of Auto-PGD at each.

    Args:
        steps: gradients a search.
        searches: sizes tried for each image.
        others: see the module.
    """
    return run(
        "apgd-minimal",
        model,
        images,
        labels,
        norm=norm,
        steps=steps,
        searches=searches,
        **common,
    )


def apgd_t(
    model: Model,
    images: X,
    labels: Any,
    *,
    eps: float,
    norm: Convex = "linf",
    steps: int = 100,
    restarts: int = 1,
    classes_tried: int = 9,
    **common: Unpack[Common],
) -> X:
    """Run Auto-PGD towards one class after another (APGD-T, Croce and Hein, 2020).

    Args:
        steps: gradients a start and class.
        restarts: random starts.
        classes_tried: how many classes are tried, the likeliest first.
        others: see the module.
    """
    return run(
        "apgd-t",
        model,
        images,
        labels,
        eps=eps,
        norm=norm,
        steps=steps,
        restarts=restarts,
        classes_tried=classes_tried,
        **common,
    )


def square(
    model: Model,
    images: X,
    labels: Any,
    *,
    eps: float,
    norm: Usual = "linf",
    queries: int = 5000,
    **common: Unpack[Common],
) -> X:
    """Change random squares, by the logits alone (Andriushchenko et al., 2020).

    Args:
        queries: images a start may show to the model.
        others: see the module.
    """
    return run("square", model, images, labels, eps=eps, norm=norm, queries=queries, **common)


def ddn(
    model: Model,
    images: X,
    labels: Any,
    *,
    steps: int = 300,
    **common: Unpack[Common],
) -> X:
    """Seek the smallest L2 change by decoupled direction and norm (Rony et al., 2019).

    Args:
        steps: gradients.
        others: see the module.
    """
    return run("ddn", model, images, labels, norm="l2", steps=steps, **common)


def fmn(
    model: Model,
    images: X,
    labels: Any,
    *,
    norm: NormName = "linf",
    steps: int = 300,
    **common: Unpack[Common],
) -> X:
    """Seek the smallest change in any norm (fast minimum-norm, Pintor et al., 2021).

    Args:
        steps: gradients.
        others: see the module.
    """
    return run("fmn", model, images, labels, norm=norm, steps=steps, **common)


def sigma_zero(
    model: Model,
    images: X,
    labels: Any,
    *,
    steps: int = 300,
    **common: Unpack[Common],
) -> X:
    """Seek the fewest changed values, its norm l0 (sigma-zero, Cina et al., 2025).

    Args:
        steps: gradients.
        others: see the module.
    """
    return run("sigma-zero", model, images, labels, norm="l0", steps=steps, **common)


def carlini_wagner(
    model: Model,
    images: X,
    labels: Any,
    *,
    searches: int = 9,
    steps: int = 1000,
    **common: Unpack[Common],
) -> X:
    """Seek the smallest L2 change by a search over a weight (Carlini and Wagner, 2017).

    Args:
        searches: weights tried.
        steps: gradients for each weight.
        others: see the module.
    """
    return run("cw", model, images, labels, norm="l2", searches=searches, steps=steps, **common)


def rays(
    model: Model,
    images: X,
    labels: Any,
    *,
    queries: int = 5000,
    **common: Unpack[Common],
) -> X:
    """Seek the smallest Linf change by predicted classes alone (RayS, Chen and Gu, 2020).

    Args:
        queries: forward passes an image.
        others: see the module.
    """
    return run("rays", model, images, labels, norm="linf", queries=queries, **common)


def hopskipjump(
    model: Model,
    images: X,
    labels: Any,
    *,
    queries: int = 5000,
    **common: Unpack[Common],
) -> X:
    """Seek the smallest L2 change by predicted classes alone (HopSkipJump, Chen et al., 2020).

    Args:
        queries: forward passes an image.
        others: see the module.
    """
    return run("hopskipjump", model, images, labels, norm="l2", queries=queries, **common)
