"""Where a network runs and in which precision."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from unmask.errors import UserError, unknown

DEVICES = ("auto", "cpu", "cuda")


def pick_device(name: str) -> torch.device:
    """Return the device of that name, "auto" being CUDA where there is one and the CPU elsewhere.

    Raises UserError for an unknown name and for a CUDA that isn't there.
    """
    kind = name.partition(":")[0]
    if kind not in DEVICES:
        raise unknown("device", name, DEVICES)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError("this machine or this PyTorch has no CUDA", got=name, do="use cpu")
    return torch.device(name)


def has_bf16(device: torch.device) -> bool:
    """Return whether the device computes in bfloat16, rather than only storing it."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older versions of PyTorch can't tell.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(k, False) for k in ("avx512_bf16", "amx_bf16", "bf16"))


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """Return the context in which forward passes run: precision is auto, bf16 or fp32."""
    if precision == "bf16" or (precision == "auto" and has_bf16(device)):
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()
