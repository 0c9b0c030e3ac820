"""Before any attack: is this a classifier that attacks can be judged on?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.fool.goal import Goal
from unmask.fool.victim import Loss, Victim, cross_entropy, margin
from unmask.verdict import Verdict

_SMALL = 1e-3
_MODES = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
_SAME = 1e-4


@dataclass(frozen=True)
class Preflight:
    """What was measured on n images, and what it warns of.

    accuracy: on the images as they are. accuracy_255: on images in 0 to 255. spread: the
    largest difference of logits between two looks at the same image, and batch_spread between a
    image alone and in a batch, both over the largest logit. unmoved: the part of the images
    whose logits don't change at all when every pixel moves by up to 0.001. no_gradient and
    no_margin_gradient: the part with a zero gradient of the cross-entropy and of the margin; None
    for a black box.
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

    @property
    def figures(self) -> dict[str, float | None]:
        """The measurements by name."""
        return {k: v for k, v in self.__dict__.items() if k != "verdicts"}


def preflight(victim: Victim, pixels: Tensor, labels: Tensor) -> Preflight:
    """Look at a model through a few dozen of its images.

    pixels: float32[n, c, h, w] in [0, 1]; labels: int64[n]. The model is used as it stands. Raises
    UserError for a model that can't take the images, or whose logits aren't finite.
    """
    logits = _first(victim, pixels)
    again, alone = victim.logits(pixels), victim.logits(pixels[:1])
    moved = victim.logits(_moved(pixels))
    bright = victim.logits(pixels * 255)
    largest = float(logits.abs().max()) or 1.0
    accuracy = _accuracy(logits, labels)
    goal = Goal(labels)
    flat: tuple[float, float] | None = None
    if victim.differentiable:
        flat = _flat(victim, pixels, goal, cross_entropy), _flat(victim, pixels, goal, margin)
    found = Preflight(
        pictures=len(pixels),
        accuracy=accuracy,
        accuracy_255=_accuracy(bright, labels),
        spread=float((again - logits).abs().max()) / largest,
        batch_spread=float((alone - logits[:1]).abs().max()) / largest,
        unmoved=float((moved == logits).all(1).double().mean()),
        no_gradient=flat[0] if flat else None,
        no_margin_gradient=flat[1] if flat else None,
        verdicts=(),
    )
    return Preflight(**found.figures, verdicts=_verdicts(found, victim.module, logits))  # type: ignore[arg-type]


def _first(victim: Victim, pixels: Tensor) -> Tensor:
    shape = list(pixels.shape[1:])
    try:
        logits = victim.logits(pixels)
    except UserError:
        raise
    except Exception as error:
        said = (str(error).splitlines() or [""])[0][:200]
        raise UserError(
            f"the model can't take images of shape {shape}",
            got=f"{type(error).__name__}: {said}",
            do="give images of the model's channels and size",
        ) from error
    if not bool(logits.isfinite().all()):
        raise UserError(
            "the model's logits are not finite",
            got=f"NaN or infinity for {int((~logits.isfinite().all(1)).sum())} of "
            f"{len(pixels)} images",
            do="check its weights",
        )
    return logits


def _verdicts(found: Preflight, module: nn.Module | None, logits: Tensor) -> tuple[Verdict, ...]:
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
                f"two looks at the same image differ by {found.spread:.1%} of the largest logit",
                "switch the randomness off, or average over it inside the model",
            )
        )
    sums = logits.sum(1)
    probabilities = bool((logits >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all())
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
    if found.accuracy < 1.5 / classes or found.accuracy_255 > found.accuracy + 0.2:
        warnings.append(
            Verdict(
                "clean_accuracy",
                "warning",
                f"only {found.accuracy:.1%} of the images are classified right"
                + (
                    f", but {found.accuracy_255:.1%} with pixels in 0 to 255"
                    if found.accuracy_255 > found.accuracy + 0.2
                    else ""
                ),
                "let the model take pixels in [0, 1] and normalise inside",
            )
        )
    if probabilities:
        # A second softmax flattens gradients by itself: the cause is named already.
        return tuple(warnings)
    if found.unmoved > 0.5:
        warnings.append(
            Verdict(
                "quantised_input",
                "warning",
                f"{found.unmoved:.0%} of the images can change a little without any change of "
                "the logits: the model sees steps, which have no gradient",
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


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(1) == labels).double().mean())


def _moved(pixels: Tensor) -> Tensor:
    """Move every pixel inwards, so that clipping can't undo it."""
    draw = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(0)).to(pixels)
    return pixels + draw * _SMALL * torch.where(pixels < 0.5, 1.0, -1.0)


def _flat(victim: Victim, pixels: Tensor, goal: Goal, loss: Loss) -> float:
    _, _, gradient = victim.gradient(pixels, goal, loss)
    return float((gradient.flatten(1).abs().amax(1) == 0).double().mean())
