"""The course report's way: pre-train each generator on its image, then against the classifier."""

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
    """How the course report's generators are trained, where the report names no setting.

    Args:
        rate: Adam's learning rate.
        tolerance: the mean squared error at which pre-training ends.
        pretraining: the most steps of pre-training.
    """

    rate: float = 0.01
    tolerance: float = 1e-3
    pretraining: int = 2000


class Adam:
    """Adam on stacked generators (Kingma and Ba, 2015).

    Args:
        generators: trained in place.
        rate: the learning rate.
    """

    def __init__(self, generators: Generators, rate: float) -> None:
        self.generators, self.rate, self.steps = generators, rate, 0
        tensors = [t for layer in generators.layers for t in (layer.weight, layer.bias)]
        self.moments = [(torch.zeros_like(t), torch.zeros_like(t)) for t in tensors]

    def step(self, output_error: Tensor, moving: Tensor) -> None:
        """Take one step.

        Args:
            output_error: float[n, size], the gradient at the output of the generators' last call.
            moving: bool[n]; the other generators stay as they are.
        """
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
    """Return images of the generators f_ij, trained until the classifier predicts the target.

    The output is a sigmoid. Each generator is pre-trained by Adam on the mean squared error to its
    image, and then, with Adam started afresh, on the cross-entropy of C o f.

    Args:
        victim: the classifier C.
        pixels: float[n, c, h, w] in [0, 1].
        goal: the label and the target class of each pair.
        generators: n of them, trained in place.
        training: the settings that the report doesn't name.
        steps: the most steps after pre-training.

    Returns:
        The images and the steps that each took, those of pre-training included.
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
    """Train in place and return the steps that each generator took, int64[n]."""
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
