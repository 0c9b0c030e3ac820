"""The loss of certified training: the worst logits of a box, and boxes that stay small.

Interval bound propagation (Gowal et al., 2019), with the initialisation and the regularisers of Shi
et al. (2021).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from unmask.fool.certify.network import Network
from unmask.fool.certify.operations import Affine, Elementwise, Interval

_TIGHTNESS = 0.5


def interval_logits(
    network: Network, lower: Tensor, upper: Tensor, labels: Tensor, *, learning: bool = False
) -> tuple[Tensor, list[Interval]]:
    """Return by how much each class may exceed the true one, and the boxes before activations.

    Args:
        network: of a module's own parameters (dtype None), its last layer linear.
        lower, upper: the boxes of the pixels, float[b, c, h, w].
        labels: int64[b].
        learning: whether batch normalisation takes its statistics from the boxes' centres, as they
            are now, and updates the running ones; otherwise it is as it was when the network was
            read.

    Returns:
        Upper bounds by IBP, float[b, classes], with the last layer merged with the differences of
        logits; 0 for the true class. If all others are below 0, the image is proved.
    """
    centre, radius = (lower + upper) / 2, (upper - lower) / 2
    boxes = []
    *body, last = network.nodes[1:]
    for node in body:
        operation = node.operation
        if isinstance(operation, Affine):
            if learning and operation.norm is not None:
                centre, radius = _normalised(operation.norm, centre, radius)
                continue
            centre = operation.apply(centre) + operation.bias
            radius = operation.absolute(radius)
            continue
        assert isinstance(operation, Elementwise)
        boxes.append(Interval(centre - radius, centre + radius))
        low, high = operation.curve.image(boxes[-1].lower, boxes[-1].upper)
        centre, radius = (low + high) / 2, (high - low) / 2
    assert isinstance(last.operation, Affine)
    classes = network.classes
    # The rows of the last matrix, from its transpose, and those of the differences.
    rows = last.operation.back(torch.eye(classes, device=lower.device, dtype=lower.dtype))
    apart = (rows[None] - rows[:, None]).abs()
    logits = last.operation.apply(centre) + last.operation.bias
    middle = logits - logits.gather(1, labels[:, None])
    return middle + (apart[labels] @ radius[:, :, None]).squeeze(2), boxes


def _normalised(norm: _BatchNorm, centre: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Normalise boxes by the mean and variance of their centres over a batch (Shi et al., 2021).

    Shi et al. take those of the images, for which they need another forward pass.
    """
    others = [d for d in range(centre.ndim) if d != 1]
    variance, mean = torch.var_mean(centre, others, unbiased=False)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.momentum is not None
    with torch.no_grad():
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance, norm.momentum)
    wide = (-1, *[1] * (centre.ndim - 2))
    scale = norm.weight * (variance + norm.eps).rsqrt()
    shift = norm.bias - mean * scale
    return centre * scale.view(wide) + shift.view(wide), radius * scale.abs().view(wide)


def started(module: nn.Module, *, small: bool = True) -> None:
    """Initialise the trainable weights of convolutions and linear layers.

    Args:
        module: whose weights are drawn.
        small: draw from N(0, 2 pi / n^2), where n is the number of inputs of a unit, so that a
            box's expected radius stays the same from layer to layer (Shi et al., 2021); otherwise
            as PyTorch does.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.weight.requires_grad:
            layer.reset_parameters()
            if small:
                nn.init.normal_(layer.weight, 0.0, math.sqrt(2 * math.pi) / layer.weight[0].numel())
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


def regularised(start: Tensor, boxes: list[Interval]) -> Tensor:
    """Return Shi et al.'s losses: boxes that grow, and imbalance of active and inactive units.

    Args:
        start: the radius of the pixels' boxes, float[b, c, h, w].
        boxes: before each activation.
    """
    total = start.new_zeros(())
    for box in boxes:
        growth = start.mean() / box.radius.mean().clamp(min=1e-9)
        total = total + functional.relu(_TIGHTNESS - growth)
        centre = box.centre
        active = (centre > 0).to(centre.dtype)
        up = (centre * active).mean()
        down = (-centre * (1 - active)).mean()
        ratio = torch.minimum(up, down) / torch.maximum(up, down).clamp(min=1e-9)
        total = total + functional.relu(_TIGHTNESS - ratio)
    return total / (_TIGHTNESS * max(len(boxes), 1))


def proved_by_intervals(
    module: nn.Module, pixels: Tensor, labels: Tensor, eps: float, batch: int = 500
) -> tuple[float, float]:
    """Return the clean accuracy and the fraction that IBP proves at eps, in single precision.

    This is a quick figure for choosing between trainings; certify gives the proof.

    Args:
        module: in eval mode, as train_certified returns it.
        pixels: uint8[n, c, h, w].
        labels: int64[n].
        eps: in Linf, in units of pixels in [0, 1].
        batch: the batch size.
    """
    network = Network.of(module, tuple(pixels.shape[1:]), dtype=None)
    right = proved = 0
    with torch.no_grad():
        for start in range(0, len(pixels), batch):
            x = pixels[start : start + batch].float() / 255
            y = labels[start : start + batch]
            worst, _ = interval_logits(network, (x - eps).clamp(min=0), (x + eps).clamp(max=1), y)
            others = worst.scatter(1, y[:, None], -torch.inf).amax(1)
            right += int((module(x).argmax(1) == y).sum())
            proved += int((others < 0).sum())
    return right / len(pixels), proved / len(pixels)
