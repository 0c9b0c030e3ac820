"""Adversarial training: a classifier that learns from images attacked at every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unmask.data.images import Images
from unmask.errors import UserError
from unmask.fool.attacks.descent import pgd
from unmask.fool.goal import Goal
from unmask.fool.norms import Threat
from unmask.fool.outcome import judge
from unmask.fool.victim import Victim
from unmask.train.config import FitConfig
from unmask.train.fit import FitProgress
from unmask.train.holdout import hold_out
from unmask.train.job import Trained, train_classifier
from unmask.train.recipes import Recipe, prepared

_GUARDS, _LOOKED_AT = 1000, 16
_WIDTHS, _HIDDEN = (32, 64), 256


@dataclass(frozen=True)
class Hardening:
    """The attack on the training images, and the guard against overfitting.

    Args:
        threat: the norm and eps at which accuracy is guarded.
        guard: images that are never trained on, attacked after every epoch.
        margin: the size of the changes of training images, as a multiple of eps: a little above 1,
            accuracy at eps is higher.
        steps: gradients a batch; 1 is the fast gradient step from a random start (Wong et al.,
            2020), more is projected gradient descent (Madry et al., 2018).
        warmup: the fraction of the run over which the change grows from 0.
        guard_steps: steps of projected gradient descent on the guard.
        visible: the range of pixel values beyond which the network sees no difference, None for
            all; see Victim.look.

    Raises:
        UserError: for a threat without eps, steps below 1 and a margin that isn't positive.
    """

    threat: Threat
    guard: Images = field(repr=False)
    margin: float = 1.1
    steps: int = 4
    warmup: float = 0.3
    guard_steps: int = 20
    visible: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _ = self.threat.bound
        if self.steps < 1:
            raise UserError(
                "the number of attack steps must be 1 or more", got=self.steps, do="give 1 to 10"
            )
        if not 0 < self.margin < float("inf"):
            raise UserError(
                "the margin must be a positive multiple of eps", got=self.margin, do="try 1.1"
            )

    def attacked(self, model: nn.Module, pixels: Tensor, labels: Tensor, *, part: float) -> Tensor:
        """Return pixels changed so that the model's loss rises; see train.adversary.

        The model is attacked as it will be: with the running statistics of batch normalisation.
        """
        training = model.training
        model.eval()
        try:
            return self._attacked(model, pixels, labels, part)
        finally:
            model.train(training)

    def _attacked(self, model: nn.Module, pixels: Tensor, labels: Tensor, part: float) -> Tensor:
        norm = self.threat.norm
        eps = self.threat.bound * self.margin * min(1.0, part / self.warmup if self.warmup else 1.0)
        # A single step is longer than the ball's radius, or it would hardly reach its surface.
        length = 1.25 * eps if self.steps == 1 else 2 * eps / self.steps
        seed = int(torch.randint(1 << 62, ()))
        generator = torch.Generator().manual_seed(seed)
        if self.visible is not None and norm.name == "linf":
            # Within the visible range the ball is a box whose sides differ: most are points.
            low, high = ((pixels + by).clamp(*self.visible) for by in (-eps, eps))
            side = (high - low) / 2
            at = (low + high) / 2 + side * norm.noise(pixels, 1.0, generator)
            for _ in range(self.steps):
                upward = norm.direction(_gradient(model, at, labels))
                at = at + (length / eps if eps else 0.0) * side * upward
                at = torch.minimum(torch.maximum(at, low), high)
            return torch.minimum(torch.maximum(at, pixels - eps), pixels + eps).clamp(0, 1)
        at = (pixels + norm.noise(pixels, eps, generator)).clamp(0, 1)
        for _ in range(self.steps):
            seen = at.clamp(*self.visible) if self.visible else at
            moved = at + length * norm.direction(_gradient(model, seen, labels))
            at = (pixels + norm.project(moved - pixels, eps)).clamp(0, 1)
        return at

    def accuracy(self, model: nn.Module) -> float:
        """Return the robust accuracy on the guard, in [0, 1]."""
        device = next(model.parameters()).device
        victim = Victim(model, classes=len(self.guard.class_names), device=device)
        victim.visible = self.visible
        pixels = torch.from_numpy(self.guard.pixels).to(device).float() / 255
        goal = Goal(torch.from_numpy(self.guard.labels).to(device))
        generator = torch.Generator().manual_seed(0)
        found = pgd(victim, pixels, goal, self.threat, generator=generator, steps=self.guard_steps)
        outcome = judge(victim, pixels, found, goal, self.threat)
        return 1 - float(outcome.reached.mean())

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return {
            "norm": self.threat.norm.name,
            "eps": self.threat.bound,
            "margin": self.margin,
            "steps": self.steps,
            "warmup": self.warmup,
            "guard_images": len(self.guard),
            "guard_sha256": self.guard.sha256,
            "guard_steps": self.guard_steps,
            "visible": None if self.visible is None else list(self.visible),
        }


def _gradient(model: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of the cross-entropy with respect to the pixels."""
    pixels = pixels.detach().requires_grad_()
    loss = functional.cross_entropy(model(pixels).float(), labels, reduction="sum")
    return torch.autograd.grad(loss, pixels)[0]


def hardening_recipe(epochs: int, *, seed: int = 0, threshold: float | None = None) -> Recipe:
    """Return the network and the training for Hardening.

    Args:
        epochs: at least 1.
        seed: of everything random.
        threshold: see stepped_cnn.
    """
    return Recipe(
        name="hardened",
        purpose="few mistakes under attack",
        architecture="stepped_cnn",
        settings={
            "steps": [[width, 4, 2] for width in _WIDTHS],
            "hidden": _HIDDEN,
            "threshold": threshold,
        },
        config=FitConfig(
            epochs=epochs,
            batch_size=128,
            optimizer="adam",
            rate=5e-3,
            averaging="ema",
            averaging_horizon=500,
            seed=seed,
        ),
        holdout=0.0,
    )


def harden(
    images: Images,
    threat: Threat,
    *,
    out: Path,
    test: Images | None = None,
    epochs: int = 12,
    steps: int = 4,
    margin: float = 1.1,
    threshold: float | None = None,
    licence: str = "",
    half: bool = False,
    resume: bool = False,
    device: str = "auto",
    seed: int = 0,
    progress: Callable[[FitProgress], None] | None = None,
) -> Trained:
    """Train a classifier by attacks on its images; write out/model.safetensors with its card.

    Of the training images, 1000 or a tenth are held out as the guard; the epoch with the highest
    robust accuracy on them is kept.

    Args:
        images: to train on.
        threat: the norm and eps to withstand.
        out: the folder for the model and the checkpoint.
        test: measured once, at the end; None for no test.
        epochs: passes over the images, at least 1.
        steps: gradients a batch, see Hardening.
        margin: the size of the changes, as a multiple of eps, see Hardening.
        threshold: that turns pixels into black and white before all else, in (0, 1), for drawings
            such as digits; None for none.
        licence: of the images.
        half: store matrices and filters in half precision.
        resume: continue from the last checkpoint in out.
        device: "auto", "cpu" or "cuda".
        seed: of everything random.
        progress: called as train_classifier does.

    Returns:
        The classifier and its figures.

    Raises:
        UserError: as hold_out, Hardening and train_classifier do.
    """
    part = min(_GUARDS / len(images), 0.1) if len(images) else 0.0
    learnt, guard = hold_out(images, part, seed=seed)
    recipe = hardening_recipe(epochs, seed=seed, threshold=threshold)
    untrained = Victim.of(prepared(recipe, learnt, seed=seed))
    untrained.look(torch.from_numpy(learnt.pixels[:_LOOKED_AT]).float() / 255)
    attack = Hardening(threat, guard, margin=margin, steps=steps, visible=untrained.visible)
    return train_classifier(
        recipe,
        learnt,
        out=out,
        test=test,
        adversary=attack,
        licence=licence,
        half=half,
        resume=resume,
        device=device,
        progress=progress,
    )
