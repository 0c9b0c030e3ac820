"""Attacks on any classifier: a network and tensors in, the changed images out.

An image on which an attack failed is returned unchanged or as the last try; `unmask.audit` judges
them. The network is used as it is: call model.eval() first. Gradients see through steps. All take:

Args:
    model: a network, or for the black-box attacks (square, rays, hopskipjump) any function, of
        float32[b, c, h, w] to logits [b, classes]; classes [b] are enough for rays and hopskipjump.
    images: float[n, c, h, w] in [0, 1], a tensor or an array.
    labels: the true classes, int[n].
    eps: the largest change, in units of pixels in [0, 1].
    norm: the norm of the change, one of those that the attack knows.
    targets: the classes to reach, int[n]; None for any but the true one.
    mean: that the model expects to be subtracted from the images, one number or one a channel.
    std: that it expects them to be divided by then, likewise, above 0.
    batch_size: images in a forward pass.
    classes: how many there are, for a model that gives the class alone.
    seed: of everything random; the same seed gives the same images.

Returns:
    The changed images, float32[n, c, h, w], a tensor where images are one, otherwise an array.

Raises:
    UserError: for images outside [0, 1], labels or targets that are no classes, a norm that the
        attack doesn't know, a missing eps, and a model without gradients where they are needed.

Example:
    A classifier of two pixels whose logits are the pixels; half of their difference is enough.

    >>> images, labels = torch.tensor([[[[0.6, 0.4]]]]), torch.tensor([0])
    >>> unmask.attacks.fgsm(nn.Flatten(), images, labels, eps=0.15)
    tensor([[[[0.4500, 0.5500]]]])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypedDict, TypeVar, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.errors import MAX_SEED, UserError, require_whole, unknown
from unmask.fool.attacks import ATTACKS
from unmask.fool.goal import Goal
from unmask.fool.norms import NORMS, Threat, require_number
from unmask.fool.source import Model, as_victim
from unmask.fool.victim import Victim, require_images

_COUNTS = ("batch_size", "steps", "restarts", "searches", "queries", "classes_tried")
NormName = Literal["linf", "l2", "l1", "l0"]
Usual = Literal["linf", "l2"]
Convex = Literal["linf", "l2", "l1"]
X = TypeVar("X", Tensor, NDArray[Any])


class Common(TypedDict, total=False):
    """The arguments of every attack besides its own settings; see the module."""

    targets: Any
    mean: float | Sequence[float] | None
    std: float | Sequence[float] | None
    batch_size: int
    classes: int | None
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
    "pdpgd",
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
    classes: int | None = None,
    seed: int = 0,
    **settings: Any,
) -> X:
    """Attack images with the attack of a name, including your own registered ones.

    Args:
        name: a name in unmask.fool.attacks.ATTACKS, such as "apgd-ce".
        model: for this and all arguments but eps and settings see the module.
        eps: None for the smallest change, which the minimum-norm attacks search for.
        settings: the attack's own keyword arguments.

    Returns:
        The changed images.

    Raises:
        UserError: for an unknown name or norm, and as the module describes.
    """
    if name not in ATTACKS:
        raise unknown("attack", name, ATTACKS)
    if norm not in NORMS:
        raise unknown("norm", norm, NORMS)
    require_number(eps)
    for setting, value in {**settings, "batch_size": batch_size}.items():
        if setting in _COUNTS:
            require_whole(f"setting {setting}", value, 1, MAX_SEED)
    spec, threat = ATTACKS[name], Threat(NORMS[norm], None if eps is None else float(eps))
    victim = as_victim(model, mean=mean, std=std, batch_size=batch_size, images=images)
    if classes is not None:
        victim = victim.fresh(classes)
    spec.check(victim, threat)
    pixels = torch.as_tensor(images)
    require_images(pixels, victim.input_shape)
    if not len(pixels):
        return images
    pixels = pixels.detach().float().to(victim.device)
    goal = _goal(victim, pixels, labels, targets)
    victim.look(pixels)
    generator = torch.Generator().manual_seed(seed)
    found = spec.function(victim, pixels, goal, threat, generator=generator, **settings).pixels
    if isinstance(images, Tensor):
        return found.to(images.device)
    changed: NDArray[Any] = found.cpu().numpy()
    return changed


def _goal(victim: Victim, pixels: Tensor, labels: Any, targets: Any) -> Goal:
    # The first output shows how many classes there are.
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
    """Take one step of size eps against the gradient (Goodfellow et al., 2015)."""
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
    """Descend with a step size that halves itself (Auto-PGD, Croce and Hein, 2020).

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
    """Search for the smallest change by bisection of eps, with Auto-PGD at each.

    Args:
        steps: gradients a descent.
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
        classes_tried: the number of classes tried, the most likely first.
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
    """Change random squares, using the logits alone (Andriushchenko et al., 2020).

    Args:
        queries: the most forward passes an image.
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
    """Search for the smallest L2 change by decoupled direction and norm (Rony et al., 2019).

    Args:
        steps: gradients an image.
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
    """Search for the smallest change in any norm (fast minimum-norm, Pintor et al., 2021).

    Args:
        steps: gradients an image.
        others: see the module.
    """
    return run("fmn", model, images, labels, norm=norm, steps=steps, **common)


def pdpgd(
    model: Model,
    images: X,
    labels: Any,
    *,
    norm: Convex = "linf",
    steps: int = 200,
    **common: Unpack[Common],
) -> X:
    """Seek the smallest change by the margin and the norm together (after PDPGD, 2021).

    Args:
        steps: gradients.
        others: see the module.
    """
    return run("pdpgd", model, images, labels, norm=norm, steps=steps, **common)


def sigma_zero(
    model: Model,
    images: X,
    labels: Any,
    *,
    steps: int = 300,
    **common: Unpack[Common],
) -> X:
    """Search for the fewest changed values, in l0 (sigma-zero, Cina et al., 2025).

    Args:
        steps: gradients an image.
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
    """Search for the smallest L2 change by a search over a weight (Carlini and Wagner, 2017).

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
    """Search for the smallest Linf change by predicted classes alone (RayS, Chen and Gu, 2020).

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
    """Search for the smallest L2 change by classes alone (HopSkipJump, Chen et al., 2020).

    Args:
        queries: forward passes an image.
        others: see the module.
    """
    return run("hopskipjump", model, images, labels, norm="l2", queries=queries, **common)
