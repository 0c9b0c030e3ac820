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
    """How hard the images are that a classifier learns from, and the guard against overfitting.

    threat: norm and eps that accuracy is guarded at. margin: how far images learnt from are
    changed, as a multiple of eps: a little beyond it, accuracy at eps is higher. steps: gradients a
    batch; 1 is the fast gradient step from a random start (Wong et al., 2020), more is projected
    gradient descent (Madry et al., 2018). warmup: the part of the run over which the change grows
    from 0. guard: images that are never learnt from, attacked after every epoch by guard_steps of
    projected gradient descent. Raises UserError for a threat without eps and steps below 1.
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
        # A single step is longer than the ball, or it would never come near its surface.
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
        """Return the part of the guard that is still classified rightly under attack."""
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
    """Return the network and the training that Hardening is made for; epochs: 1 or more."""
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
    """Train a classifier that withstands threat; write out/model.safetensors with its card.

    A part of the training images, 1000 or a tenth, is the guard: the epoch kept is the one that
    classifies most of it rightly under attack. steps and margin: see Hardening. Raises UserError as
    hold_out and train_classifier do.
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
