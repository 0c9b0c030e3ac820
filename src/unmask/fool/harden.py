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
from unmask.train.recipes import Recipe

_GUARDS = 1000


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

    Raises:
        UserError: for a threat without eps, steps below 1 and a margin that isn't positive.
    """

    threat: Threat
    guard: Images = field(repr=False)
    margin: float = 1.1
    steps: int = 4
    warmup: float = 0.3
    guard_steps: int = 20

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
        """Return pixels changed so that the model's loss rises; see train.adversary."""
        norm = self.threat.norm
        eps = self.threat.bound * self.margin * min(1.0, part / self.warmup if self.warmup else 1.0)
        # A single step is longer than the ball's radius, or it would hardly reach its surface.
        length = 1.25 * eps if self.steps == 1 else 2 * eps / self.steps
        seed = int(torch.randint(1 << 62, ()))
        noise = norm.noise(pixels, eps, torch.Generator().manual_seed(seed))
        at = (pixels + noise).clamp(0, 1)
        for _ in range(self.steps):
            at = at.detach().requires_grad_()
            loss = functional.cross_entropy(model(at).float(), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, at)
            moved = at.detach() + length * norm.direction(gradient)
            at = (pixels + norm.project(moved - pixels, eps)).clamp(0, 1)
        return at

    def accuracy(self, model: nn.Module) -> float:
        """Return the robust accuracy on the guard, in [0, 1]."""
        device = next(model.parameters()).device
        victim = Victim(model, classes=len(self.guard.class_names), device=device)
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
        }


def hardening_recipe(epochs: int, *, seed: int = 0) -> Recipe:
    """Return the network and the training for Hardening; epochs is at least 1."""
    return Recipe(
        name="hardened",
        purpose="few mistakes under attack",
        architecture="strided_cnn",
        settings={"widths": [32, 64], "hidden": 256},
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
    return train_classifier(
        hardening_recipe(epochs, seed=seed),
        learnt,
        out=out,
        test=test,
        adversary=Hardening(threat, guard, margin=margin, steps=steps),
        licence=licence,
        half=half,
        resume=resume,
        device=device,
        progress=progress,
    )
