"""What outputs of a model are: logits, probabilities, sigmoids or classes, told by their values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.models.answer import as_logits, scale_of, unscaled
from unmask.models.given import channels_of, dtype_of, failed, identity_of, not_finite_in
from unmask.models.load import load_model
from unmask.models.preprocessing import Wrapped, logits_in

LOGITS = torch.randn(32, 4, generator=torch.Generator().manual_seed(0)) * 3
SINGLE = torch.stack([torch.zeros(32), LOGITS[:, 0]], 1)


@pytest.mark.parametrize(
    ("rows", "scale", "back"),
    [
        (LOGITS, "logits", LOGITS),
        (LOGITS.log_softmax(1), "logits", LOGITS.log_softmax(1)),
        (LOGITS.softmax(1), "probabilities", LOGITS.log_softmax(1)),
        (100 * LOGITS.softmax(1), "percentages", LOGITS.log_softmax(1)),
        (LOGITS.sigmoid(), "sigmoids", LOGITS),
        (SINGLE, "logits", SINGLE),
        (torch.stack([torch.zeros(32), SINGLE[:, 1].sigmoid()], 1), "sigmoid", SINGLE),
    ],
)
def test_a_scale_is_told_and_undone(rows: Tensor, scale: Any, back: Tensor) -> None:
    assert scale_of(rows) == scale
    torch.testing.assert_close(unscaled(rows, scale), back, rtol=1e-3, atol=1e-3)


def test_few_numbers_between_0_and_1_may_be_logits() -> None:
    assert scale_of(LOGITS[:4].sigmoid()) == "logits"
    assert scale_of(torch.full((32, 4), 0.2)) == "logits"
    assert scale_of(torch.full((32, 4), torch.nan)) == "logits"


def test_classes_may_come_as_whole_numbers_of_any_type_but_not_as_integer_logits() -> None:
    classes = torch.tensor([3.0, 0.0, 2.0])
    found, alone = as_logits(classes, 3, None, likely=4)
    assert alone
    assert found.argmax(1).tolist() == [3, 0, 2]
    found, alone = as_logits((10 * LOGITS).long(), 32, None, likely=4)
    assert not alone
    assert found.shape == (32, 4)
    with pytest.raises(UserError, match="4 logits an image"):
        as_logits(torch.tensor([0.5, 1.5]), 2, None, likely=4)


def test_lists_sparse_and_squeezed_outputs_are_read_and_complex_ones_refused() -> None:
    for answer in (LOGITS.tolist(), LOGITS.to_sparse()):
        torch.testing.assert_close(as_logits(answer, 32, None, likely=4)[0], LOGITS)
    assert torch.equal(as_logits(LOGITS[0], 1, None, likely=4)[0], LOGITS[:1])
    assert as_logits([3, 0, 2], 3, None, likely=4)[1]
    with pytest.raises(UserError, match="complex"):
        as_logits(LOGITS.to(torch.complex64), 32, None, likely=4)


def test_a_network_with_quantised_layers_has_an_identity() -> None:
    whole = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    before = identity_of(whole)
    whole[1].register_buffer(
        "packed", torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    )
    assert identity_of(whole) not in (before, "")
    whole[1].weight.data[0, 0] = torch.nan
    assert not_finite_in(whole) == "1.weight"


def test_features_beside_logits_are_told_apart_by_their_width() -> None:
    features = torch.zeros(32, 7)
    for answer in ((features, LOGITS), {"features": features, "scores": LOGITS}):
        assert as_logits(answer, 32, None, likely=4)[0] is LOGITS
        assert logits_in(answer, 4) is LOGITS
        with pytest.raises(UserError, match="isn't clear which"):
            logits_in(answer)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_another_precision_gets_what_it_takes(dtype: torch.dtype) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).to(dtype)
    assert dtype_of(network) == dtype
    assert load_model(network)(torch.rand(2, 1, 2, 2)).dtype == torch.float32


def test_a_binary_sigmoid_is_wrapped_to_logits_once_there_are_enough_images() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    pixels = torch.rand(64, 1, 2, 2) * torch.linspace(-2, 2, 64)[:, None, None, None]
    with torch.no_grad():
        network[1].weight.fill_(1.0)
        network[1].bias.zero_()
    ended = load_model(nn.Sequential(network, nn.Sigmoid()))
    assert isinstance(ended, Wrapped)
    torch.testing.assert_close(ended(pixels)[:, 1], network(pixels)[:, 0], rtol=0.01, atol=0.01)
    assert "sigmoid" in ended.describe()


@pytest.mark.parametrize("size", ["224", -3, (8,), (8, 0)])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(UserError, match="size isn't usable"):
        load_model(nn.Flatten(), size=size)


def test_channels_are_those_of_the_first_convolution() -> None:
    assert channels_of(nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 4, 3))) == 1
    assert channels_of(nn.Sequential(nn.Flatten(), nn.Linear(3, 4))) is None
    assert channels_of(nn.Conv2d(2, 4, 3)) is None


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (TypeError("forward() missing 1 required positional argument: 'y'"), "the images alone"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "can't take images.*--size"),
        (RuntimeError("Input type (float) and bias type (c10::Half) should be the same"), "float"),
        (ZeroDivisionError("division by zero"), "the model failed on images.*by itself"),
    ],
)
def test_what_a_model_raises_decides_what_to_do(error: Exception, line: str) -> None:
    with pytest.raises(UserError, match=line):
        raise failed(error, (3, 8, 8))
