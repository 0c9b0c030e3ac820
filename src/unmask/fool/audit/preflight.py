"""Before any attack: can attacks on this classifier be judged?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.fool.goal import Goal
from unmask.fool.victim import Loss, Preprocessing, Victim, cross_entropy, margin
from unmask.models.given import failed
from unmask.verdict import Verdict

_SMALL = 1e-3
_MODES = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
_SAME = 1e-4
_TRIED = 50
# The preprocessing that models are usually trained with, for grey and for coloured images.
_CONVENTIONS = {
    1: (
        Preprocessing(scale=255),
        Preprocessing((0.5,), (0.5,)),
        Preprocessing((0.1307,), (0.3081,)),
        Preprocessing((1.0,), (-1.0,)),
    ),
    3: (
        Preprocessing(scale=255),
        Preprocessing((0.5,) * 3, (0.5,) * 3),
        Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        Preprocessing((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        Preprocessing((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        Preprocessing((0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)),
        Preprocessing(bgr=True),
        Preprocessing(bgr=True, scale=255),
        Preprocessing((0.5,) * 3, (0.5,) * 3, bgr=True),
        Preprocessing((103.939, 116.779, 123.68), (), bgr=True, scale=255),
        Preprocessing((0.406, 0.456, 0.485), (0.225, 0.224, 0.229), bgr=True),
    ),
}


@dataclass(frozen=True)
class Preflight:
    """The measurements on n images, and the warnings that follow.

    Args:
        pictures: n.
        accuracy: on the unchanged images.
        accuracy_255: on the images in 0 to 255.
        spread: the largest difference of logits between two passes of the same image, over the
            largest logit.
        batch_spread: the same between an image alone and in a batch.
        unmoved: the fraction of images whose logits don't change at all when every pixel changes by
            up to 0.001.
        no_gradient: the fraction with a zero gradient of the cross-entropy, None for a black box.
        no_margin_gradient: the fraction with a zero gradient of the margin, None for a black box.
        verdicts: the warnings.
        not_finite: the number of gradients of the two that hold NaN or infinity.
        convention: the usual preprocessing with which more images are classified correctly, ""
            where none is better.
        convention_accuracy: the accuracy with it on the first images.
        visible: the range of pixel values beyond which the model sees no difference, None where it
            sees all.
        through_steps: whether gradients are passed through the model's steps.
    """

    pictures: int
    accuracy: float
    accuracy_255: float
    spread: float
    batch_spread: float
    unmoved: float
    no_gradient: float | None
    no_margin_gradient: float | None
    verdicts: tuple[Verdict, ...]
    not_finite: int = 0
    convention: str = ""
    convention_accuracy: float = 0.0
    visible: tuple[float, float] | None = None
    through_steps: bool = False

    @property
    def figures(self) -> dict[str, Any]:
        """The measurements by name."""
        return {k: v for k, v in self.__dict__.items() if k != "verdicts"}


def preflight(victim: Victim, pixels: Tensor, labels: Tensor) -> Preflight:
    """Measure a model on a few dozen images.

    Args:
        victim: the classifier, used as it is.
        pixels: float32[n, c, h, w] in [0, 1].
        labels: int64[n].

    Raises:
        UserError: for a model that can't take the images, or whose logits aren't finite.
    """
    logits = _first(victim, pixels)
    victim.look(pixels)
    again, alone = victim.logits(pixels), victim.logits(pixels[:1])
    moved = victim.logits(_moved(pixels))
    finite = logits.isfinite().all(1)
    largest = float(logits[finite].abs().max()) or 1.0
    spread = float((again - logits)[finite].abs().max()) / largest
    wanted, gain = (None, 0.0)
    # Where numbers overflow, another range would only hide it; and what makes logits larger against
    # their noise would win.
    if finite.all() and spread <= _SAME:
        wanted, gain = _convention(victim, pixels[:_TRIED], logits[:_TRIED], labels[:_TRIED])
    accuracy = _accuracy(logits, labels)
    goal = Goal(labels)
    flat: tuple[float, float] | None = None
    if victim.differentiable:
        flat = _flat(victim, pixels, goal, cross_entropy), _flat(victim, pixels, goal, margin)
    found = Preflight(
        pictures=len(pixels),
        accuracy=accuracy,
        accuracy_255=_accuracy(victim.logits(pixels * 255), labels),
        not_finite=victim.gradients_not_finite,
        convention=str(wanted) if wanted else "",
        convention_accuracy=_accuracy(logits[:_TRIED], labels[:_TRIED]) + gain,
        spread=spread,
        batch_spread=float((alone - logits[:1]).nan_to_num().abs().max()) / largest,
        unmoved=float((moved == logits).all(1).double().mean()),
        no_gradient=flat[0] if flat else None,
        no_margin_gradient=flat[1] if flat else None,
        visible=victim.visible,
        through_steps=victim.through_steps,
        verdicts=(),
    )
    return Preflight(
        **found.figures,
        verdicts=_verdicts(found, victim.module, logits, labels_only=victim.labels_only),
    )


def _first(victim: Victim, pixels: Tensor) -> Tensor:
    try:
        logits = victim.settle(victim.logits(pixels))
    except UserError:
        raise
    except Exception as error:
        raise failed(error, tuple(pixels.shape[1:])) from error
    if not bool(logits.isfinite().all(1).any()):
        raise UserError(
            "the model's logits are not finite",
            got=f"NaN or infinity for all of {len(pixels)} images",
            do="check its weights",
        )
    return logits


def _verdicts(
    found: Preflight, module: nn.Module | None, logits: Tensor, *, labels_only: bool
) -> tuple[Verdict, ...]:
    warnings = []
    changing = sum(m.training and isinstance(m, _MODES) for m in module.modules()) if module else 0
    if changing or found.batch_spread > _SAME >= found.spread:
        seen = (
            f"{changing} of its layers are in training mode"
            if changing
            else "what it predicts of an image depends on the others of the batch"
        )
        warnings.append(
            Verdict("training_mode", "warning", seen, "call model.eval() before the audit")
        )
    elif found.spread > _SAME:
        warnings.append(
            Verdict(
                "random_output",
                "warning",
                f"two forward passes of the same image differ by {found.spread:.1%} of the largest "
                "logit",
                "switch the randomness off, or average over it inside the model",
            )
        )
    sums = logits.sum(1)
    probabilities = (
        not labels_only and bool((logits >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all())
    )
    if probabilities:
        warnings.append(
            Verdict(
                "probabilities",
                "warning",
                "every output lies between 0 and 1 and they add up to 1: probabilities, not logits",
                "leave the softmax out of the model",
            )
        )
    classes = logits.shape[1]
    if found.convention:
        warnings.append(
            Verdict(
                "clean_accuracy",
                "warning",
                f"only {found.accuracy:.1%} of the images are classified right, but "
                f"{found.convention_accuracy:.1%} with {found.convention}",
                "give the model what it was trained on: --mean and --std, or a module that "
                "does it inside",
            )
        )
    elif found.accuracy < min(1.5 / classes, (1 + 1 / classes) / 2.5):
        warnings.append(
            Verdict(
                "clean_accuracy",
                "warning",
                f"only {found.accuracy:.1%} of the images are classified right",
                "let the model take pixels in [0, 1] and normalise inside; check the order of "
                "the classes",
            )
        )
    missing = int((~logits.isfinite().all(1)).sum())
    if missing:
        warnings.append(
            Verdict(
                "not_finite",
                "error",
                f"{missing} of {found.pictures} images get logits that are NaN or infinite; they "
                "count as misclassified",
                "find the operation that overflows or divides by 0",
            )
        )
    extreme, share = _clamped(logits)
    if share >= 0.1 and not labels_only:
        warnings.append(
            Verdict(
                "clamped_logits",
                "warning",
                f"a logit of exactly {extreme:g}, the extreme of all, is given to {share:.0%} of "
                "the images: the logits are clamped, and beyond it there is no gradient",
                "audit the model without the clamp as well",
            )
        )
    if found.not_finite:
        warnings.append(
            Verdict(
                "gradient_not_finite",
                "warning",
                f"{found.not_finite} of {2 * found.pictures} gradients hold NaN or infinity: a "
                "function with an infinite slope, such as a square root at 0",
                "add a small constant inside it for the audit",
            )
        )
    if labels_only:
        warnings.append(
            Verdict(
                "labels_only",
                "note",
                "the model gives the class alone: its figures are those of attacks that see "
                "nothing else, which find larger changes than attacks with gradients",
                "give the network itself, or its logits",
            )
        )
        return tuple(warnings)
    if found.visible is not None:
        low, high = found.visible
        warnings.append(
            Verdict(
                "thresholded_input",
                "note",
                f"the model sees no difference between pixels below {low:.3g}, or above "
                f"{high:.3g}: attacks take their gradients in between",
                "mind that other tools' attacks by gradient may fail on it",
            )
        )
    if probabilities:
        # A second softmax flattens gradients by itself, and that verdict is there already.
        return tuple(warnings)
    if found.unmoved > 0.5 and found.visible is None:
        warnings.append(
            Verdict(
                "quantised_input",
                "warning",
                f"{found.unmoved:.0%} of the images can change a little without any change of "
                "the logits: the model sees steps, which have no gradient"
                + ("; attacks pass it through them" if found.through_steps else ""),
                "audit the model without the quantisation as well",
            )
        )
    elif found.no_margin_gradient is not None and found.no_margin_gradient > 0.05:
        warnings.append(
            Verdict(
                "no_gradient",
                "warning",
                f"{found.no_margin_gradient:.0%} of the images have no gradient although their "
                "logits do move: a layer isn't differentiable",
                "put a smooth layer in its place for the audit, or trust only the black box",
            )
        )
    elif found.no_gradient is not None and found.no_gradient > 0.05:
        warnings.append(
            Verdict(
                "saturated_loss",
                "warning",
                f"the cross-entropy of {found.no_gradient:.0%} of the images is too small for a "
                "gradient: the logits are scaled",
                "divide the logits by a constant; the margin's gradient, which is there, is used",
            )
        )
    return tuple(warnings)


def _clamped(logits: Tensor) -> tuple[float, float]:
    """Return the extreme logit that most images share, and their fraction; 0 where too few."""
    if logits.shape[1] == 2 and not bool(logits[:, 0].any()):
        # A single logit: the other is 0 by construction.
        return 0.0, 0.0
    found = []
    for extreme, mine in ((logits.amax(), logits.amax(1)), (logits.amin(), logits.amin(1))):
        same = int((mine == extreme).sum())
        found.append((float(extreme), same / len(logits) if same >= 4 else 0.0))
    return max(found, key=lambda pair: pair[1])


def _convention(
    victim: Victim, pixels: Tensor, logits: Tensor, labels: Tensor
) -> tuple[Preprocessing | None, float]:
    """Return the usual preprocessing that clearly raises accuracy, and by what fraction."""
    right = logits.argmax(1) == labels
    best, most, gain = None, 0, 0.0
    for tried in _CONVENTIONS.get(pixels.shape[1], ()):
        now = victim.logits(tried(pixels)).argmax(1) == labels
        won, lost = int((now & ~right).sum()), int((right & ~now).sum())
        # Twice the spread of as many coin tosses, and at least four images.
        if won - lost > max(most, 3, 2 * (won + lost) ** 0.5):
            best, most, gain = tried, won - lost, (won - lost) / len(pixels)
    return best, gain


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(1) == labels).double().mean())


def _moved(pixels: Tensor) -> Tensor:
    """Move every pixel inwards, so that clipping can't undo it."""
    draw = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(0)).to(pixels)
    return pixels + draw * _SMALL * torch.where(pixels < 0.5, 1.0, -1.0)


def _flat(victim: Victim, pixels: Tensor, goal: Goal, loss: Loss) -> float:
    _, _, gradient = victim.gradient(pixels, goal, loss)
    return float((gradient.flatten(1).abs().amax(1) == 0).double().mean())
