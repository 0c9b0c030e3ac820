"""Devices and precisions by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from unmask.data.images import Images
from unmask.errors import UserError
from unmask.models.classifier import Classifier
from unmask.train.config import FitConfig
from unmask.train.device import (
    autocast,
    drawing_from,
    has_bf16,
    pick_device,
    without_tf32,
)
from unmask.train.evaluation import logits_of
from unmask.train.fit import fit

CPU = torch.device("cpu")


def product(precision: str) -> torch.dtype:
    with autocast(CPU, precision):
        return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


def test_precision_is_what_was_asked_for_and_automatic_where_it_is_computed_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert product("fp32") == torch.float32
    assert product("bf16") == torch.bfloat16
    for flag, expected in (("avx512_bf16", torch.bfloat16), ("avx2", torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda f=flag: {f: True}, raising=False)
        assert product("auto") == expected


def test_a_pytorch_that_can_not_tell_computes_in_single_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not has_bf16(CPU)


def test_devices_are_picked_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto").type == "cuda"
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == CPU
    with pytest.raises(UserError, match="no CUDA: got cuda; use cpu"):
        pick_device("cuda")
    with pytest.raises(UserError, match="unknown device"):
        pick_device("gpu")


def tf32() -> bool:
    return torch.backends.cudnn.allow_tf32


def test_single_precision_keeps_all_its_bits_forward_and_backward(
    shapes: Images, make: Callable[..., Classifier]
) -> None:
    seen: dict[str, list[bool]] = {"forward": [], "backward": []}

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = make()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen["forward"].append(tf32())
            logits: torch.Tensor = self.inner(x)
            if logits.requires_grad:
                logits.register_hook(lambda _: seen["backward"].append(tf32()))
            return logits

    assert tf32(), "PyTorch's default, or there is nothing to test"
    config = FitConfig(epochs=1, batch_size=120, precision="fp32")
    fit(Watched(), shapes, config, device="cpu")
    assert seen["forward"][1:] == seen["backward"] == [False, False]
    logits_of(Watched(), shapes, precision="fp32")
    assert seen["forward"][-1] is False
    assert tf32(), "and it is as it was"


def test_no_other_devices_random_numbers_are_touched(
    shapes: Images, make: Callable[..., Classifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(seed: int) -> None:
        raise AssertionError("every GPU was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", fail)
    with pytest.raises(AssertionError):
        torch.manual_seed(0)
    fit(make(), shapes, FitConfig(epochs=1, batch_size=120), device="cpu")


def test_what_is_drawn_depends_on_the_seed_alone_and_nothing_is_drawn_outside() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with drawing_from(3, CPU):
        first = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    with drawing_from(3, CPU):
        assert torch.equal(torch.rand(4), first)
    expected = torch.rand(4, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first, expected)


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="an older PyTorch")
def test_a_precision_set_for_convolutions_alone_is_kept() -> None:
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision
    try:
        convolutions.fp32_precision = "ieee"
        with without_tf32():
            assert convolutions.fp32_precision == "ieee"
        assert convolutions.fp32_precision == "ieee"
    finally:
        convolutions.fp32_precision = before
    assert tf32()
