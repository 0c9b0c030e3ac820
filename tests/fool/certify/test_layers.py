"""Each kind of layer, function and forward whose bounds are known, against the model itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.fool.certify.nets import within
from torch import Tensor, nn
from torch.nn import functional

from unmask.fool.certify.bounds import crown, differences, interval_differences, intervals
from unmask.fool.certify.bounds import lower_bounds as bounded
from unmask.fool.certify.layers import LAYERS
from unmask.fool.certify.network import Network
from unmask.fool.certify.operations import Elementwise
from unmask.fool.certify.region import Region

SHAPE = (2, 6, 6)


class Middle(nn.Module):
    """A function of 2 x 6 x 6 values between a convolution and three logits."""

    def __init__(self, function: Callable[[Tensor], Tensor], layer: nn.Module | None = None):
        super().__init__()
        self.first = nn.Conv2d(2, 2, 3, padding=1)
        self.layer, self.function = layer, function
        with torch.no_grad():
            after = (
                function(torch.zeros(1, *SHAPE)) if layer is None else layer(torch.zeros(1, *SHAPE))
            )
        self.head = nn.Linear(after[0].numel(), 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x) * 3
        x = self.function(x) if self.layer is None else self.layer(x)
        logits: Tensor = self.head(x.flatten(1))
        return logits


W = torch.linspace(-1, 1, 2 * 3 * 9).reshape(3, 2, 3, 3)
LAYERS_TRIED = [
    nn.ConvTranspose2d(2, 3, 4, 2, 1),
    nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
    nn.Conv2d(2, 3, 4, padding="same", padding_mode="circular"),
    nn.Upsample(scale_factor=2, mode="bilinear"),
    nn.ReflectionPad2d(2),
    nn.ConstantPad2d(1, 0.7),
    nn.PixelUnshuffle(2),
    nn.AdaptiveMaxPool2d(4),
    nn.MaxPool2d(3, 2, 1, dilation=2),
    nn.PReLU(init=-0.3),
    nn.ReLU6(inplace=True),
    nn.Hardtanh(-0.3, 0.5),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.Softshrink(0.2),
    nn.Mish(),
    nn.ELU(2.0),
    nn.CELU(0.5),
    nn.Softplus(3),
    nn.GELU("tanh"),
    nn.Softsign(),
    nn.LogSigmoid(),
]
FUNCTIONS_TRIED: dict[str, Callable[[Tensor], Tensor]] = {
    "clamp": lambda x: x.clamp(-0.2, 0.4),
    "clip above": lambda x: torch.clip(x, max=0.3),
    "abs": lambda x: x.abs(),
    "pad": lambda x: functional.pad(x, (1, 0, -1, 2), value=0.5),
    "convolution": lambda x: functional.conv2d(x, W.to(x), stride=2),
    "product": lambda x: x @ W.to(x).reshape(-1, 9)[:, :6].T,
    "maxima": lambda x: x.flatten(2).max(2)[0],
    "named maxima": lambda x: x.flatten(2).max(dim=2).values,
    "parts": lambda x: torch.cat([p.relu() * (i + 1) for i, p in enumerate(x.chunk(2, 1))], 1),
    "split": lambda x: torch.split(x, [1, 5], 2)[1],
    "flip": lambda x: x + x.flip(3),
    "resized": lambda x: functional.interpolate(x, size=(9, 4), mode="bilinear", antialias=True),
    "cast": lambda x: functional.leaky_relu(x.float(), -0.2).double(),
    "branch on channels": lambda x: x.relu() if x.shape[1] == 2 and x.size(3) > 1 else x,
    "gate": lambda x: x * torch.sigmoid(x.flip(3)),
    "excitation": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "swish in words": lambda x: torch.mul(x, x.sigmoid()),
    "own square": lambda x: x * x - 0.3 * x.square() + x**2,
    "added to all": lambda x: x - x.mean(1, keepdim=True),
    "larger of two": lambda x: torch.maximum(x, x.flip(2)) + torch.max(x, 0.2 * x),
    "smaller of two": lambda x: torch.min(x, x.roll(1, 3)) - x.minimum(-x),
    "by the batch": lambda x: x.reshape(x.shape[0], -1).view(x.size(0), 8, -1),
}


def written(x: Tensor) -> Tensor:
    y = x * 2
    y += x.relu()
    z = functional.relu_(y)
    return y + z


FUNCTIONS_TRIED["written into"] = written


@pytest.mark.parametrize(
    "model",
    [Middle(lambda x: x, layer) for layer in LAYERS_TRIED]
    + [Middle(function) for function in FUNCTIONS_TRIED.values()],
    ids=[type(layer).__name__ for layer in LAYERS_TRIED] + list(FUNCTIONS_TRIED),
)
def test_no_image_is_below_a_bound_and_a_point_is_the_model_itself(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, *SHAPE, generator=generator, dtype=torch.float64)
    network = Network.of(model.eval(), SHAPE)
    exact = model.double()
    with torch.no_grad():
        torch.testing.assert_close(network.logits(x), exact(x), atol=1e-5, rtol=1e-5)
        region = Region(x, 0.05)
        c = differences(torch.zeros(2, dtype=torch.int64), 3, x)
        logits = torch.stack([exact(points) for points in within(region, 60)])
    sampled = (c[None] @ logits[..., None]).squeeze(-1).amin(0)
    boxes = intervals(network, region)
    for found in (interval_differences(boxes, c), bounded(crown(network, region), c)):
        assert (found <= sampled + 1e-6).all()
        # A bound that tells nothing would be sound too.
        assert (found > -1e4).all()


@pytest.mark.parametrize(
    "layer",
    [
        m
        for m in LAYERS_TRIED
        if isinstance(LAYERS[type(m)](m, SHAPE, SHAPE, torch.zeros(())), Elementwise)
    ],
    ids=lambda layer: type(layer).__name__,
)
@pytest.mark.parametrize("tilt", [-1.2, 0.0, 0.4, 1.3])
def test_a_line_of_any_slope_is_sound(layer: nn.Module, tilt: float) -> None:
    made = LAYERS[type(layer)](
        layer.requires_grad_(requires_grad=False), SHAPE, SHAPE, torch.zeros(())
    )
    assert isinstance(made, Elementwise)
    generator = torch.Generator().manual_seed(1)
    ends = torch.randn(300, 2, generator=generator, dtype=torch.float64).mul(3).sort(1).values
    low, high = ends.T
    x = low + torch.linspace(0, 1, 401, dtype=torch.float64)[:, None] * (high - low)
    values = made.curve.activation.function(x.clone())
    lines = made.curve.lines(low, high)
    assert (lines.lower_slope * x + lines.lower_offset <= values + 1e-9).all()
    assert (lines.upper_slope * x + lines.upper_offset >= values - 1e-9).all()
    slope = torch.full_like(low, tilt)
    assert (slope * x + made.curve.offset(slope, low, high, above=True) >= values - 1e-9).all()
    assert (slope * x + made.curve.offset(slope, low, high, above=False) <= values + 1e-9).all()
    least, most = made.curve.image(low, high)
    assert (least <= values + 1e-9).all()
    assert (most >= values - 1e-9).all()
