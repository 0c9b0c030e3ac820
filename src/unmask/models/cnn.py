"""The convolutional networks that ship, each built from a name and plain settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from unmask.errors import UserError, unknown
from unmask.models.residual import WhitenedCNN, WideResNet

# Keras's constants, with which the course report's networks were trained.
_KERAS_EPS, _KERAS_MOMENTUM, _KERAS_SLOPE = 1e-3, 0.01, 0.3
# The width of a threshold's ramp, in units of pixels in [0, 1].
_RAMP = 0.1


def document_mnist(
    shape: tuple[int, int, int],
    classes: int,
    widths: Sequence[int] = (32, 64, 128),
    hidden: int = 128,
) -> nn.Module:
    """Return the course report's network of Exercise 2 A.

    Images [b, c, h, w] to logits [b, classes]: three (3x3 convolution, ReLU, 2x2 max-pool), one
    hidden ReLU layer, the logits. Weights start Glorot-uniform and biases at zero. The course
    report names no widths.

    Args:
        shape: channels, height and width of the images.
        classes: how many.
        widths: channels of each convolution.
        hidden: width of the hidden layer.

    Raises:
        UserError: the images are too small.
    """
    layers: list[nn.Module] = []
    channels = shape[0]
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    features = channels * _pooled(shape, len(widths))
    layers += [nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes)]
    return _glorot(nn.Sequential(*layers))


def document_cifar(
    shape: tuple[int, int, int],
    classes: int,
    widths: Sequence[int] = (32, 64, 128),
    dropout: Sequence[float] = (0.2, 0.3, 0.4),
    hidden: int = 128,
) -> nn.Module:
    """Return the course report's network of Exercise 2 C.

    Images [b, c, h, w] to logits [b, classes]: three blocks of (convolution, ReLU, batch norm)
    twice, max-pool and dropout; then a hidden ReLU layer with batch norm and dropout 0.5, and the
    logits. Weights start Glorot-uniform and biases at zero. The course report names neither widths
    nor the blocks' dropout.

    Args:
        shape: channels, height and width of the images.
        classes: how many.
        widths: channels of each block.
        dropout: rate of each block, 0 to 1.
        hidden: width of the hidden layer.

    Raises:
        UserError: the images are too small.
    """
    layers: list[nn.Module] = []
    channels = shape[0]
    for width, rate in zip(widths, dropout, strict=True):
        for c in (channels, width):
            layers += [nn.Conv2d(c, width, 3, padding=1), nn.ReLU()]
            layers += [nn.BatchNorm2d(width, _KERAS_EPS, _KERAS_MOMENTUM)]
        layers += [nn.MaxPool2d(2), nn.Dropout(rate)]
        channels = width
    features = channels * _pooled(shape, len(widths))
    layers += [nn.Flatten(), nn.Linear(features, hidden), nn.ReLU()]
    layers += [nn.BatchNorm1d(hidden, _KERAS_EPS, _KERAS_MOMENTUM), nn.Dropout(0.5)]
    layers += [nn.Linear(hidden, classes)]
    return _glorot(nn.Sequential(*layers))


def document_masks(
    shape: tuple[int, int, int],
    classes: int,
    widths: Sequence[int] = (32, 64, 128),
    dropout: Sequence[float] = (0.2, 0.3, 0.4),
    hidden: int = 64,
) -> nn.Module:
    """Return the course report's network of Exercise 3.

    Images [b, c, h, w] to logits [b, classes]: three blocks of (convolution, LeakyReLU, batch norm,
    max-pool, dropout), a hidden LeakyReLU layer with batch norm and dropout 0.5, and for two
    classes one output z. The logits are then 0 and z, so that the second softmax probability is the
    sigmoid of z and the cross-entropy the binary one; more classes have an output each. Weights
    start Glorot-uniform and biases at zero. The course report names neither widths, slope nor the
    blocks' dropout.

    Args:
        shape: channels, height and width of the images.
        classes: how many.
        widths: channels of each block.
        dropout: rate of each block, 0 to 1.
        hidden: width of the hidden layer.

    Raises:
        UserError: the images are too small.
    """
    layers: list[nn.Module] = []
    channels = shape[0]
    for width, rate in zip(widths, dropout, strict=True):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(_KERAS_SLOPE)]
        layers += [nn.BatchNorm2d(width, _KERAS_EPS, _KERAS_MOMENTUM)]
        layers += [nn.MaxPool2d(2), nn.Dropout(rate)]
        channels = width
    features = channels * _pooled(shape, len(widths))
    layers += [nn.Flatten(), nn.Linear(features, hidden), nn.LeakyReLU(_KERAS_SLOPE)]
    layers += [nn.BatchNorm1d(hidden, _KERAS_EPS, _KERAS_MOMENTUM), nn.Dropout(0.5)]
    layers += [nn.Linear(hidden, 1 if classes == 2 else classes)]
    if classes == 2:
        layers += [nn.ZeroPad1d((1, 0))]
    return _glorot(nn.Sequential(*layers))


def block_cnn(
    shape: tuple[int, int, int], classes: int, widths: Sequence[int] = (32, 64, 128)
) -> nn.Module:
    """Return blocks of (3x3 convolution, 2x2 max-pool, batch norm, ReLU) and one linear layer.

    Images [b, c, h, w] to logits [b, classes]. Pooling comes first in a block because the maximum
    commutes with an increasing function, and what follows then costs a quarter.

    Args:
        shape: channels, height and width of the images.
        classes: how many.
        widths: channels of each block.

    Raises:
        UserError: the images are too small.
    """
    layers: list[nn.Module] = []
    channels = shape[0]
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.MaxPool2d(2)]
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    features = channels * _pooled(shape, len(widths))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, classes))


def paired_cnn(
    shape: tuple[int, int, int],
    classes: int,
    widths: Sequence[int] = (32, 64),
    hidden: int = 200,
) -> nn.Module:
    """Return (3x3 convolution, ReLU) twice and a max-pool for each width, a hidden layer, logits.

    Images [b, c, h, w] to logits [b, classes]. Nothing is padded and there is no batch norm: the
    small network of Zhang et al. (2019, TRADES) with one hidden layer instead of two.

    Args:
        shape: channels, height and width of the images.
        classes: how many.
        widths: channels of each pair of convolutions.
        hidden: width of the hidden layer.

    Raises:
        UserError: the images are too small.
    """
    layers: list[nn.Module] = []
    channels, height, width_left = shape
    for width in widths:
        for c in (channels, width):
            layers += [nn.Conv2d(c, width, 3), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        channels = width
        height, width_left = (height - 4) // 2, (width_left - 4) // 2
    if height < 1 or width_left < 1:
        raise UserError(
            "images are too small for this network",
            got=f"{shape[1]} x {shape[2]}",
            do="give at least 16 x 16 pixels",
        )
    features = channels * height * width_left
    layers += [nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes)]
    for layer in layers:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers)


def stepped_cnn(
    shape: tuple[int, int, int],
    classes: int,
    steps: Sequence[Sequence[int]] = ((32, 3, 1), (32, 4, 2), (64, 3, 1), (64, 4, 2)),
    hidden: int = 512,
    threshold: float | None = None,
    normalised: bool = False,
) -> nn.Module:
    """Return (convolution, ReLU) for each step, one hidden ReLU layer, and the logits.

    Images [b, c, h, w] to logits [b, classes]. It has nothing but convolutions, linear layers,
    batch normalisation and ReLU, as networks for certified and adversarial training do. With a
    threshold its first layer isn't trained: pixels become 0 below it and 1 above it, with a ramp of
    0.1 between. Networks that are trained against Linf on MNIST learn such a layer (Madry et al.,
    2018).

    Args:
        shape: channels, height and width of the images.
        classes: how many.
        steps: (width, kernel, stride) of each convolution, padded by one pixel.
        hidden: width of the hidden layer.
        threshold: in [0, 1], of drawings that are black and white; None for none.
        normalised: whether batch normalisation stands before each ReLU.

    Raises:
        UserError: the images are too small, or the threshold is outside (0, 1).
    """
    layers: list[nn.Module] = []
    channels, height, width = shape
    if threshold is not None:
        if not 0 < threshold < 1:
            raise UserError(
                "the threshold is no grey", got=threshold, do="give one between 0 and 1"
            )
        ramp = nn.Conv2d(channels, channels, 1, groups=channels).requires_grad_(False)
        nn.init.constant_(ramp.weight, 1 / _RAMP)
        nn.init.constant_(ramp.bias, 0.5 - threshold / _RAMP)  # type: ignore[arg-type]
        layers += [ramp, nn.Hardtanh(0.0, 1.0)]
    for out, kernel, stride in steps:
        layers.append(nn.Conv2d(channels, out, kernel, stride, 1, bias=not normalised))
        layers += [nn.BatchNorm2d(out), nn.ReLU()] if normalised else [nn.ReLU()]
        channels = out
        height, width = ((side + 2 - kernel) // stride + 1 for side in (height, width))
    if min(height, width) < 1:
        raise UserError(
            "images are too small for this network",
            got=f"{shape[1]} x {shape[2]}",
            do="give larger ones, or fewer steps",
        )
    layers += [nn.Flatten(), nn.Linear(channels * height * width, hidden, bias=not normalised)]
    layers += [nn.BatchNorm1d(hidden), nn.ReLU()] if normalised else [nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, classes))


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "document_mnist": document_mnist,
    "document_cifar": document_cifar,
    "document_masks": document_masks,
    "block_cnn": block_cnn,
    "paired_cnn": paired_cnn,
    "wide_resnet": WideResNet,
    "stepped_cnn": stepped_cnn,
    "whitened_cnn": WhitenedCNN,
}


def build(
    architecture: str, settings: dict[str, Any], shape: tuple[int, int, int], classes: int
) -> nn.Module:
    """Return the network of that name, freshly initialised.

    Args:
        architecture: a name in ARCHITECTURES.
        settings: its keyword arguments, without shape and classes.
        shape: channels, height and width of the images.
        classes: how many.

    Raises:
        UserError: an unknown name, or settings that it doesn't take.
    """
    if architecture not in ARCHITECTURES:
        raise unknown("architecture", architecture, ARCHITECTURES)
    try:
        return ARCHITECTURES[architecture](shape, classes, **settings)
    except UserError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"the architecture {architecture} doesn't take these settings",
            got=settings,
            do=str(error).splitlines()[0],
        ) from error


def _pooled(shape: tuple[int, int, int], times: int) -> int:
    height, width = shape[1] >> times, shape[2] >> times
    if height * width == 0:
        raise UserError(
            "images are too small for this network",
            got=f"{shape[1]} x {shape[2]}",
            do=f"give at least {1 << times} x {1 << times} pixels",
        )
    return height * width


def _glorot(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
