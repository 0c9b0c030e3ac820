"""The device on which a network runs, and its precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import nn

from unmask.errors import UserError, unknown

M = TypeVar("M", bound=nn.Module)
DEVICES = ("auto", "cpu", "cuda")


def pick_device(name: str) -> torch.device:
    """Return the device of that name.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:N"; "auto" is CUDA where there is one, otherwise the
            CPU.

    Raises:
        UserError: an unknown name, or CUDA where there is none.
    """
    kind = name.partition(":")[0]
    if kind not in DEVICES:
        raise unknown("device", name, DEVICES)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError("this machine or this PyTorch has no CUDA", got=name, do="use cpu")
    return torch.device(name)


def placed(model: M, device: torch.device) -> M:
    """Move a model to a device, with filters in the memory format in which they run fastest.

    Args:
        model: moved in place.
        device: where to.

    Returns:
        The model.
    """
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def described(device: torch.device) -> str:
    """Return the device's name and, for a GPU, its model."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def has_bf16(device: torch.device) -> bool:
    """Return whether the device computes in bfloat16 and doesn't only store it."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older versions of PyTorch have no such function.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(k, False) for k in ("avx512_bf16", "amx_bf16", "bf16"))


@contextlib.contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """Run forward passes inside the block in a precision.

    Args:
        device: where they run.
        precision: "auto", "bf16" or "fp32"; "auto" is bf16 where has_bf16 is true.
    """
    if precision == "bf16" or (precision == "auto" and has_bf16(device)):
        with torch.autocast(device.type, torch.bfloat16):
            yield
    else:
        with without_tf32():
            yield


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Make convolutions in single precision inside the block keep all its bits.

    By default PyTorch drops 13 of the 23 on GPUs that have TF32. A backward pass needs the block as
    much as a forward pass does. A precision set for single operations is left as it is.
    """
    cudnn = torch.backends.cudnn
    try:
        before = cudnn.allow_tf32
    except RuntimeError:
        # PyTorch raises this once its newer settings were used, which then decide.
        before = None
    if before:
        cudnn.allow_tf32 = False
    try:
        yield
    finally:
        if before:
            cudnn.allow_tf32 = True


@contextlib.contextmanager
def fastest_convolutions() -> Iterator[None]:
    """Make cuDNN time its algorithms inside the block and use the fastest for each shape.

    On a GPU the last bits may then differ from run to run; CPUs are not affected.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    cudnn.benchmark = True
    try:
        yield
    finally:
        cudnn.benchmark = before


@contextlib.contextmanager
def drawing_from(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's default generators of the CPU and the device inside the block.

    After it they continue as if nothing had been drawn; other devices' are never touched.

    Args:
        seed: of both.
        device: whose generator is seeded, besides the CPU's.
    """
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield
