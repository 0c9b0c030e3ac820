"""A run's whole state on disk, so that it resumes as if it had never stopped."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmask.errors import UserError
from unmask.models.checkpoint import TensorFile, write_tensors
from unmask.saved_state import reading

_DO = "choose another folder, or leave --resume out to start again"


def save_run(
    path: Path,
    states: Mapping[str, Mapping[str, Tensor]],
    optimizers: Sequence[torch.optim.Optimizer],
    header: dict[str, Any],
) -> None:
    """Write a run's state to one safetensors file, whole or not at all.

    Args:
        path: the file.
        states: tensors by the name of their group, and by their own.
        optimizers: whose state goes with them.
        header: plain values; its "key" is what load_run compares.

    Raises:
        UserError: the file can't be written.
    """
    tensors = {f"{group}/{k}": v for group, state in states.items() for k, v in state.items()}
    for k, optimizer in enumerate(optimizers):
        for i, parameter in enumerate(_parameters(optimizer)):
            for name, value in optimizer.state[parameter].items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer/{k}.{i}.{name}"] = value
    write_tensors(path, tensors, header)


@torch.no_grad()
def load_run(
    path: Path,
    key: dict[str, Any],
    states: Mapping[str, Mapping[str, Tensor]],
    optimizers: Sequence[torch.optim.Optimizer],
    dropped: Collection[str] = (),
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fill the states and optimisers in place.

    Args:
        path: what save_run wrote.
        key: what must be equal to the header's "key".
        states: groups of tensors to fill.
        optimizers: whose state is filled.
        dropped: names that earlier versions wrote into the key, and that change nothing.

    Returns:
        The header, and the tensors of the group "best".

    Raises:
        UserError: the file is damaged or of another run.
    """
    with reading(path):
        file = TensorFile(path)
    header = file.header if isinstance(file.header, dict) else {}
    _same_run(path, _without(header.get("key"), dropped), key)
    tensors = file.tensors()
    best = {k.removeprefix("best/"): v for k, v in tensors.items() if k.startswith("best/")}
    try:
        for group, state in states.items():
            for name, target in state.items():
                target.copy_(tensors[f"{group}/{name}"])
        for name, saved in tensors.items():
            if name.startswith("optimizer/"):
                k, i, entry = name.removeprefix("optimizer/").split(".", 2)
                parameter = _parameters(optimizers[int(k)])[int(i)]
                optimizers[int(k)].state[parameter][entry] = _laid_out(saved, parameter)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} doesn't fit the network it is to resume", got=str(error), do=_DO
        ) from error
    return header, best


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _laid_out(saved: Tensor, parameter: Tensor) -> Tensor:
    # Fused optimisers treat state and parameter as flat memory, so both need the same layout.
    if saved.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=saved.dtype).copy_(saved)
    if saved.ndim:
        raise ValueError(f"{list(saved.shape)} for a parameter of {list(parameter.shape)}")
    return saved.to(parameter.device)


def _same_run(path: Path, saved: Any, key: dict[str, Any]) -> None:
    if saved == key:
        return
    flat_saved, flat_key = _flat(saved if isinstance(saved, dict) else {}), _flat(key)
    name = next(k for k in [*flat_key, *flat_saved] if flat_key.get(k) != flat_saved.get(k))
    do = _DO
    if name == "epochs":
        do = (
            "a run's schedule depends on its epochs; to train what there is further, give "
            f"--start {path.with_name('model')} and another --out"
        )
    raise UserError(
        f"{path} is of another run, with another {name} than {flat_key.get(name)}",
        got=flat_saved.get(name),
        do=do,
    )


def _without(values: Any, names: Collection[str]) -> Any:
    if not isinstance(values, dict):
        return values
    return {k: _without(v, names) for k, v in values.items() if k not in names}


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_flat(value) if isinstance(value, dict) else {name: value})
    return flat
