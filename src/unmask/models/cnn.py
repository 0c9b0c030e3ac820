"""The convolutional networks that ship, each built from a name and plain settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unmask.errors import UserError, unknown

# Keras's constants, with which the course report's networks were trained.
_KERAS_EPS, _KERAS_MOMENTUM, _KERAS_SLOPE = 1e-3, 0.01, 0.3


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


def strided_cnn(
    shape: tuple[int, int, int],
    classes: int,
    widths: Sequence[int] = (32, 64),
    hidden: int = 256,
) -> nn.Module:
    """Return (4x4 convolution of stride 2, ReLU) for each width, one hidden ReLU layer, the logits.

    Images [b, c, h, w] to logits [b, classes]. It has strides instead of pooling and no batch norm,
    as networks for adversarial training do (Wong et al., 2020).

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
        layers += [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.ReLU()]
        channels = width
    features = channels * _pooled(shape, len(widths))
    layers += [nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes)]
    return nn.Sequential(*layers)


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


class WideResNet(nn.Module):
    """A wide residual network: [b, c, h, w] to [b, classes] (Zagoruyko and Komodakis, 2016).

    A 3x3 convolution, three groups of (depth - 4) / 6 blocks with 16, 32 and 64 times widen
    channels, the second and third at half the size, batch norm and the activation before each
    convolution, the mean over the remaining positions, and a linear layer.

    Args:
        shape: channels, height and width of the images.
        classes: how many.
        depth: 10, 16, 22 and so on.
        widen: the factor of the channels, 1 or more.
        activation: "relu" or "silu".

    Raises:
        ValueError: another depth or activation.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        depth: int = 16,
        widen: int = 4,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError("depth must be 10, 16, 22 and so on")
        kinds: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}
        if activation not in kinds:
            raise ValueError("activation must be relu or silu")
        self.stem = nn.Conv2d(shape[0], 16, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        channels = 16
        for group, width in enumerate((16 * widen, 32 * widen, 64 * widen)):
            for block in range((depth - 4) // 6):
                stride = 2 if group and not block else 1
                blocks.append(_PreActivation(channels, width, stride, kinds[activation]))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(channels)
        self.act = kinds[activation]()
        self.head = nn.Linear(channels, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [b, classes] of normalised images [b, c, h, w]."""
        x = self.act(self.norm(self.blocks(self.stem(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class _PreActivation(nn.Module):
    """(Batch norm, activation, 3x3 convolution) twice, added to the input or its projection."""

    def __init__(self, channels: int, width: int, stride: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(channels)
        self.act = activation()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            activation(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )
        same = channels == width and stride == 1
        self.shortcut = None if same else nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.act(self.first(x))
        kept = x if self.shortcut is None else self.shortcut(active)
        added: Tensor = self.layers(active) + kept
        return added


def stepped_cnn(
    shape: tuple[int, int, int],
    classes: int,
    steps: Sequence[Sequence[int]] = ((32, 3, 1), (32, 4, 2), (64, 3, 1), (64, 4, 2)),
    hidden: int = 512,
) -> nn.Module:
    """Return (convolution, ReLU) for each step, one hidden ReLU layer, and the logits.

    Images [b, c, h, w] to logits [b, classes]. It has nothing but convolutions, linear layers and
    ReLU, as networks for certified training do.

    Args:
        shape: channels, height and width of the images.
        classes: how many.
        steps: (width, kernel, stride) of each convolution, padded by one pixel.
        hidden: width of the hidden layer.

    Raises:
        UserError: the images are too small.
    """
    layers: list[nn.Module] = []
    channels, height, width = shape
    for out, kernel, stride in steps:
        layers += [nn.Conv2d(channels, out, kernel, stride=stride, padding=1), nn.ReLU()]
        channels = out
        height, width = ((side + 2 - kernel) // stride + 1 for side in (height, width))
    if min(height, width) < 1:
        raise UserError(
            "images are too small for this network",
            got=f"{shape[1]} x {shape[2]}",
            do="give larger ones, or fewer steps",
        )
    layers += [nn.Flatten(), nn.Linear(channels * height * width, hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, classes))


class WhitenedCNN(nn.Module):
    """A small network that learns colour images in few epochs: [b, c, h, w] to [b, classes].

    A frozen 2x2 convolution that whitens patches (Coates and Ng, 2011), then three groups of
    (convolution, max-pool, batch norm, activation, convolution, batch norm, activation), a maximum
    over the remaining positions, and a linear layer without bias, its weights drawn from N(0, 1)
    and its sums divided by the width. With depth 3 a group has a third convolution, and the output
    of the pooled one is added to that of the last. The first filters of each convolution start as
    the identity (Zagoruyko and Komodakis, 2017, DiracNets), and batch norm has no scale. After
    Keller Jordan, 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU".

    Args:
        shape: channels, height and width of the images.
        classes: how many.
        widths: channels of each group.
        depth: convolutions a group, 2 or 3.

    Raises:
        ValueError: another depth.
        UserError: the images are too small.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        widths: Sequence[int] = (64, 128, 128),
        depth: int = 2,
    ) -> None:
        super().__init__()
        if depth not in (2, 3):
            raise ValueError("depth must be 2 or 3")
        if min(shape[1:]) < 9:
            raise UserError(
                "images are too small for this network",
                got=f"{shape[1]} x {shape[2]}",
                do="give at least 9 x 9 pixels",
            )
        self.whiten = nn.Conv2d(shape[0], 8 * shape[0], 2)
        self.whiten.requires_grad_(requires_grad=False)
        nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]
        groups: list[nn.Module] = []
        channels = self.whiten.out_channels
        for width in widths:
            groups += [_dirac(channels, width), nn.MaxPool2d(2), _shift_norm(width), nn.GELU()]
            rest = [_dirac(width, width), _shift_norm(width), nn.GELU()]
            groups += rest if depth == 2 else [_Residual(width, rest)]
            channels = width
        self.groups = nn.Sequential(*groups)
        self.head = nn.Linear(channels, classes, bias=False)
        nn.init.normal_(self.head.weight)

    @torch.no_grad()
    def prepare(self, pictures: Tensor, eps: float = 5e-4) -> None:
        """Set the whitening filters from training images.

        They are the eigenvectors of the covariance of 2x2 patches over the root of their eigenvalue
        plus eps, and their negatives (Coates and Ng, 2011).

        Args:
            pictures: float[n, c, h, w], normalised.
            eps: added to the eigenvalues, over 0.
        """
        c = pictures.shape[1]
        covariance = torch.zeros(4 * c, 4 * c, dtype=torch.float64)
        for chunk in torch.split(pictures, 500):
            patches = functional.unfold(chunk.double(), 2).transpose(0, 1).flatten(1)
            covariance += patches @ patches.T / (patches.shape[1] * len(pictures) / len(chunk))
        values, vectors = torch.linalg.eigh(covariance)
        filters = (vectors / (values + eps).sqrt()).T.flip(0).reshape(4 * c, c, 2, 2)
        # The sign of an eigenvector is arbitrary: fixed, the filters are a function of the data.
        signs = filters.flatten(1).sum(1).sign()
        filters = filters * torch.where(signs == 0, 1.0, signs)[:, None, None, None]
        self.whiten.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [b, classes] of normalised images [b, c, h, w]."""
        x = self.groups(functional.gelu(self.whiten(x)))
        logits: Tensor = self.head(x.amax((2, 3))) / self.head.in_features
        return logits


class _Residual(nn.Module):
    """The input, and the input through layers, a convolution and batch norm, added; then GELU."""

    def __init__(self, width: int, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers, _dirac(width, width), _shift_norm(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(self.layers(x) + x)


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "document_mnist": document_mnist,
    "document_cifar": document_cifar,
    "document_masks": document_masks,
    "block_cnn": block_cnn,
    "strided_cnn": strided_cnn,
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


def _dirac(channels: int, width: int) -> nn.Conv2d:
    convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(convolution.weight[:channels])
    return convolution


def _shift_norm(width: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad = False
    return norm
