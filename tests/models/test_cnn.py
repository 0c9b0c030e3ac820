"""The networks' shapes and initialisations against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from unmask.errors import UserError
from unmask.models.cnn import ARCHITECTURES, build
from unmask.models.residual import WhitenedCNN


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 9, 17)])
def test_every_architecture_takes_pictures_of_any_size(
    name: str, shape: tuple[int, int, int]
) -> None:
    if name == "paired_cnn" and min(shape[1:]) < 16:
        with pytest.raises(UserError, match="at least 16 x 16"):
            build(name, {}, shape, 7)
        return
    network = build(name, {}, shape, 7).eval()
    assert network(torch.rand(2, *shape)).shape == (2, 7)


def test_the_documents_networks_have_the_layers_it_names() -> None:
    a = build("document_mnist", {}, (1, 28, 28), 10)
    kinds = [type(m).__name__ for m in a.children()]
    block = ["Conv2d", "ReLU", "MaxPool2d"]
    assert kinds == [*block * 3, "Flatten", "Linear", "ReLU", "Linear"]
    convolutions = (9 * 1 + 1) * 32 + (9 * 32 + 1) * 64 + (9 * 64 + 1) * 128
    assert parameters(a) == convolutions + (3 * 3 * 128 + 1) * 128 + 129 * 10

    c = build("document_cifar", {}, (3, 32, 32), 10)
    kinds = [type(m).__name__ for m in c.children()]
    block = [*["Conv2d", "ReLU", "BatchNorm2d"] * 2, "MaxPool2d", "Dropout"]
    end = ["Flatten", "Linear", "ReLU", "BatchNorm1d", "Dropout", "Linear"]
    assert kinds == [*block * 3, *end]
    assert c[-2].p == 0.5
    convolutions = sum(
        (9 * i + 1) * o + 2 * o
        for i, o in [(3, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    )
    assert parameters(c) == convolutions + (4 * 4 * 128 + 1) * 128 + 2 * 128 + 129 * 10

    masks = build("document_masks", {}, (3, 48, 48), 2)
    kinds = [type(m).__name__ for m in masks.children()]
    block = ["Conv2d", "LeakyReLU", "BatchNorm2d", "MaxPool2d", "Dropout"]
    end = ["Flatten", "Linear", "LeakyReLU", "BatchNorm1d", "Dropout", "Linear"]
    assert kinds == [*block * 3, *end, "ZeroPad1d"]
    convolutions = sum((9 * i + 1) * o + 2 * o for i, o in [(3, 32), (32, 64), (64, 128)])
    assert parameters(masks) == convolutions + (6 * 6 * 128 + 1) * 64 + 2 * 64 + 65


def test_two_classes_have_one_output_of_the_documents_network() -> None:
    pictures = torch.rand(4, 3, 16, 16)
    two = build("document_masks", {}, (3, 16, 16), 2).eval()
    z = two[:-1](pictures)
    assert z.shape == (4, 1)
    torch.testing.assert_close(two(pictures), torch.cat([torch.zeros(4, 1), z], 1))
    # The softmax over 0 and z is the sigmoid of z.
    torch.testing.assert_close(two(pictures).softmax(1)[:, 1:], z.sigmoid())
    three = build("document_masks", {}, (3, 16, 16), 3)
    assert three[-1].out_features == 3


def test_the_documents_weights_start_glorot_uniform() -> None:
    linear = build("document_mnist", {}, (1, 28, 28), 10)[-3]
    bound = (6 / (1152 + 128)) ** 0.5
    weight = linear.weight.detach()
    assert weight.abs().max() <= bound
    # The variance of a uniform variable is bound^2 / 3; 147,456 draws give it to about 1 %.
    assert weight.var() == pytest.approx(bound**2 / 3, rel=0.02)
    assert linear.bias.detach().abs().max() == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_whitened_patches_have_the_identity_as_their_covariance(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rough = torch.randn(600, channels, 12, 12, generator=generator)
    smooth = functional.avg_pool2d(rough, 3, 1, 1) + 0.05 * rough
    network = WhitenedCNN((channels, 12, 12), 2)
    network.prepare(smooth, eps=0)
    out = functional.conv2d(smooth.double(), network.whiten.weight.double())
    half = out[:, : 4 * channels].transpose(0, 1).flatten(1)
    covariance = half @ half.T / half.shape[1]
    torch.testing.assert_close(covariance, torch.eye(4 * channels).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(out[:, 4 * channels :], -out[:, : 4 * channels])


def test_convolutions_start_by_handing_their_input_on() -> None:
    network = WhitenedCNN((3, 16, 16), 10, widths=(64, 96, 96))
    x = torch.randn(2, 24, 7, 7, generator=torch.Generator().manual_seed(0))
    out = network.groups[0](x)
    torch.testing.assert_close(out[:, :24], x)
    assert out[:, 24:].abs().max() > 0


@pytest.mark.parametrize(("depth", "count"), [(2, 6), (3, 9)])
def test_whitening_and_the_scale_of_batch_norm_are_not_trained(depth: int, count: int) -> None:
    network = WhitenedCNN((3, 16, 16), 10, depth=depth)
    frozen = {n for n, p in network.named_parameters() if not p.requires_grad}
    modules = network.named_modules()
    norms = {f"{n}.weight" for n, m in modules if isinstance(m, nn.BatchNorm2d)}
    assert frozen == {"whiten.weight", "whiten.bias"} | norms
    assert len(norms) == count


def test_a_third_convolution_is_added_to_what_the_group_was_given() -> None:
    network = WhitenedCNN((3, 16, 16), 10, depth=3).eval()
    (first, *_), x = network.groups[4:5], torch.randn(2, 64, 7, 7)
    second, norm, _, third, last = first.layers
    inner = functional.gelu(norm(second(x)))
    torch.testing.assert_close(first(x), functional.gelu(last(third(inner)) + x))
    # Its filters start as the identity, and batch norm as nothing.
    torch.testing.assert_close(first(x), functional.gelu(functional.gelu(x) + x))


@pytest.mark.parametrize(
    ("name", "settings", "shape", "wrong"),
    [
        ("blok_cnn", {}, (1, 28, 28), "did you mean 'block_cnn'"),
        ("block_cnn", {"depth": 3}, (1, 28, 28), "doesn't take these settings"),
        ("block_cnn", {"widths": [-3]}, (1, 28, 28), "doesn't take these settings"),
        ("block_cnn", {"widths": "wide"}, (1, 28, 28), "doesn't take these settings"),
        ("block_cnn", {}, (1, 7, 28), "too small"),
        ("whitened_cnn", {}, (3, 8, 8), "too small"),
        ("whitened_cnn", {"depth": 4}, (3, 32, 32), "depth must be 2 or 3"),
    ],
)
def test_what_can_not_be_built_gets_one_line(
    name: str, settings: dict[str, object], shape: tuple[int, int, int], wrong: str
) -> None:
    with pytest.raises(UserError, match=wrong):
        build(name, settings, shape, 10)
