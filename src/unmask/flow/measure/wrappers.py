"""The network inside its wrappers, or the reason why it can't be measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch._C._functorch import peek_interpreter_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode

from unmask.errors import UserError
from unmask.models.imported import refuse_lazy

WITHOUT_FORCE_EAGER = "update torch to 2.6 or later, or probe the network before torch.compile"


def transformed() -> bool:
    """Return whether what runs now is compiled, traced, batched by vmap or counted, not trained.

    Its tensors may have no values, and what an observer computes would be recorded too.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or peek_interpreter_stack() is not None
        or _get_current_dispatch_mode() is not None
    )


def unwrap(model: Any) -> nn.Module:
    """Return the network under torch.compile, DataParallel and DistributedDataParallel.

    Args:
        model: a network with parameters, in any of these wrappers.

    Raises:
        UserError: for anything that isn't a network or has no parameters; for scripted, sharded or
            lazily shaped networks; and for DataParallel over several devices, whose replicas live
            for one forward pass only.
    """
    if not isinstance(model, nn.Module):
        raise UserError(
            "the model is no torch.nn.Module",
            got=type(model).__name__,
            do="give the network itself, or a function that returns it",
        )
    if compiled(model) and not hasattr(torch.compiler, "set_stance"):
        raise UserError("the model is compiled", do=WITHOUT_FORCE_EAGER)
    while True:
        if isinstance(model, nn.DataParallel):
            if len(getattr(model, "device_ids", ())) > 1:
                raise UserError(
                    "DataParallel makes new replicas at every step, which can't be measured",
                    got=f"{len(model.device_ids)} devices",
                    do="probe model.module on one device, or use DistributedDataParallel",
                )
            model = model.module
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            break
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UserError(
                "a scripted network can't be measured",
                got=type(module).__name__,
                do="give the network before torch.jit.script or torch.jit.trace",
            )
        if type(module).__name__.startswith(("FullyShardedDataParallel", "FSDP")):
            raise UserError(
                "a sharded network can't be measured: no process sees a whole layer",
                got=type(module).__name__,
                do="check it on one device before it is sharded",
            )
    network: nn.Module = model
    parameters = list(network.parameters())
    if not parameters:
        raise UserError(
            "the model has no parameters", got=type(model).__name__, do="nothing to train"
        )
    refuse_lazy(network)
    return network


def compiled(model: nn.Module) -> bool:
    """Return whether any part of the model goes through torch.compile."""
    return any(
        hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) is not None
        for m in model.modules()
    )


def is_part(module: nn.Module, networks: Sequence[nn.Module]) -> bool:
    """Return whether a module has weights of one of the networks only, as a slice of its layers.

    Args:
        module: that is called.
        networks: that are known; a module that holds one of them is no part of it.
    """
    weights = {id(p) for p in module.parameters()}
    inside = set(module.modules())
    return any(
        network not in inside and weights <= {id(p) for p in network.parameters()}
        for network in networks
    )
