"""The course report's way: pre-train each generator on its image, then on the frozen classifier."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.coursework.generator.stacked import Generators
from unmask.fool.goal import Goal
from unmask.fool.outcome import Adversarials
from unmask.fool.victim import Victim, cross_entropy

_BETAS, _EPSILON = (0.9, 0.999), 1e-7


@dataclass(frozen=True)
class Training:
    """How the course report's generators are trained, where it is silent.

    rate: Adam's. tolerance: the mean squared error at which pre-training ends. pretraining: its
    steps at most.
    """

    rate: float = 0.01
    tolerance: float = 1e-3
    pretraining: int = 2000


class Adam:
    """Adam on stacked generators (Kingma and Ba, 2015)."""

    def __init__(self, generators: Generators, rate: float) -> None:
        self.generators, self.rate, self.steps = generators, rate, 0
        tensors = [t for layer in generators.layers for t in (layer.weight, layer.bias)]
        self.moments = [(torch.zeros_like(t), torch.zeros_like(t)) for t in tensors]

    def step(self, output_error: Tensor, moving: Tensor) -> None:
        """Take one step for the error of their last call; those not moving, bool[n], stay."""
        self.steps += 1
        first, second = (1 - beta**self.steps for beta in _BETAS)
        rate = moving[:, None].to(output_error) * (self.rate / first)
        moments = iter(self.moments)
        errors = self.generators.errors(output_error)
        for layer, (inputs, error) in zip(self.generators.layers, errors, strict=True):
            gradients = (torch.bmm(inputs[..., None], error[:, None]), error)
            for tensor, gradient in zip((layer.weight, layer.bias), gradients, strict=True):
                mean, square = next(moments)
                mean.lerp_(gradient, 1 - _BETAS[0])
                square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
                scale = (square / second).sqrt_().add_(_EPSILON)
                tensor -= (rate[..., None] if tensor.ndim == 3 else rate) * (mean / scale)


def report_way(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    generators: Generators,
    *,
    training: Training,
    steps: int,
) -> Adversarials:
    """Return the images of f_ij: Adam until it gives the image, then until C says the class.

    The output is a sigmoid. Each of the generators is pre-trained on the mean squared error to its
    image, and then, with Adam started afresh, on the cross-entropy of C o f. The steps told
    are those of both, the latter steps at most.
    """
    taken = _pretrain(generators, pixels.flatten(1), training)
    found = torch.empty_like(pixels)
    missing = torch.ones(len(pixels), dtype=torch.bool, device=pixels.device)
    adam = Adam(generators, training.rate)
    for step in range(steps + 1):
        pictures = generators().sigmoid()
        found[missing] = pictures[missing].view_as(found[missing])
        logits, _, gradient = victim.gradient(found[missing], goal[missing], cross_entropy)
        error = torch.zeros_like(pictures)
        error[missing] = gradient.flatten(1)
        missing[missing.clone()] = ~goal[missing].reached(logits)
        if step == steps or not missing.any():
            break
        taken += missing
        adam.step(error * pictures * (1 - pictures), missing)
    return Adversarials(found, taken)


def _pretrain(generators: Generators, pictures: Tensor, training: Training) -> Tensor:
    """Train in place; return the steps that each generator took, int64[n]."""
    adam = Adam(generators, training.rate)
    taken = torch.zeros(len(pictures), dtype=torch.int64, device=pictures.device)
    for _ in range(training.pretraining):
        given = generators().sigmoid()
        apart = given - pictures
        moving = (apart * apart).mean(1) > training.tolerance
        if not moving.any():
            break
        taken += moving
        adam.step(apart * (2 / apart.shape[1]) * given * (1 - given), moving)
    return taken
