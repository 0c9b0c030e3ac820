"""The networks that ship whose layers a sequence alone can't join: residual and whitened ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from unmask.errors import UserError


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


def _dirac(channels: int, width: int) -> nn.Conv2d:
    convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(convolution.weight[:channels])
    return convolution


def _shift_norm(width: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad = False
    return norm
