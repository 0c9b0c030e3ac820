"""Devices and precisions by name."""

from __future__ import annotations

import pytest
import torch

from unmask.errors import UserError
from unmask.train.device import autocast, has_bf16, pick_device

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
