"""Optimisers over groups of parameters, and Muon."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.train.config import LoopConfig
from unmask.train.device import without_tf32

_REST_MOMENTUM = 0.85


def optimizers(model: nn.Module, config: LoopConfig) -> list[torch.optim.Optimizer]:
    """Return the optimisers of the model's trainable parameters, each of which is in one of them.

    Every group carries its peak rate as "peak"; lr is set at each step.

    Args:
        model: the network.
        config: the optimiser, its rates and its decay.

    Raises:
        UserError: the model has nothing to train.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise UserError(
            "the network has no parameter to train",
            got=f"{sum(1 for _ in model.parameters())} parameters, all frozen",
            do="set requires_grad",
        )
    linear = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    outputs = linear[-1:] or [m.weight for m in convolutions if m.bias is not None]
    head = {id(weight) for weight in outputs}
    # After a convolution without a bias comes a norm, which undoes Muon's scaling of the filters.
    normed = {id(m.weight) for m in convolutions if m.bias is None}
    filters = normed if config.optimizer in ("muon", "muon_adamw") else set()
    groups = (
        ([p for p in trained if id(p) in filters], config.rate, 0.0),
        (
            [p for p in trained if p.ndim > 1 and id(p) not in head | filters],
            config.rate,
            config.weight_decay,
        ),
        ([p for p in trained if id(p) in head], config.head_rate, config.weight_decay),
        ([p for p in trained if p.ndim <= 1], config.bias_rate, 0.0),
    )
    filter_groups, rest = (
        [
            {
                "params": parameters,
                "peak": config.rate if rate is None else rate,
                "weight_decay": decay,
            }
            for parameters, rate, decay in part
            if parameters
        ]
        for part in (groups[:1], groups[1:])
    )
    made: list[torch.optim.Optimizer] = []
    if filter_groups:
        made.append(Muon(filter_groups, lr=config.rate, momentum=config.momentum))
    if rest:
        made.append(_plain(rest, config, fused=trained[0].device.type in ("cpu", "cuda")))
    return made


def _plain(groups: list[dict[str, Any]], config: LoopConfig, *, fused: bool) -> Any:
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.rate, fused=fused)
    if config.optimizer in ("adamw", "muon_adamw"):
        return torch.optim.AdamW(groups, lr=config.rate, fused=fused)
    momentum = _REST_MOMENTUM if config.optimizer == "muon" else config.momentum
    return torch.optim.SGD(
        groups, lr=config.rate, momentum=momentum, nesterov=momentum > 0, fused=fused
    )


def descend(
    optimizers: Sequence[torch.optim.Optimizer],
    loss: Tensor,
    height: float,
    most_gradient: float | None = None,
) -> None:
    """Take one step down the loss's gradient, at height times every group's peak rate.

    Args:
        optimizers: as optimizers returns them.
        loss: a scalar.
        height: of the schedule, 0 to 1.
        most_gradient: the norm to which the gradient of all parameters together is clipped, None
            for none.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * height
        optimizer.zero_grad()
    with without_tf32():
        loss.backward()  # type: ignore[no-untyped-call]
    if most_gradient is not None:
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        torch.nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], most_gradient)
    for optimizer in optimizers:
        optimizer.step()


class Muon(torch.optim.Optimizer):
    """Nesterov's momentum, orthogonalised for each filter matrix, for convolutions.

    Each update is roughly the nearest semi-orthogonal matrix to the momentum's, by three
    Newton-Schulz steps. Each weight is kept at the norm of an orthogonal matrix, the root of its
    number of filters (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon).

    Args:
        params: parameters or groups of them, as torch.optim takes them.
        lr: the learning rate.
        momentum: 0 to 1.
    """

    def __init__(self, params: Iterable[Any], *, lr: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            # Filters of one shape are updated together, as a batch of matrices.
            alike: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(p.shape, []).append(p)
            for parameters in alike.values():
                self._update(parameters, group["lr"], group["momentum"])

    def _update(self, parameters: list[Tensor], rate: float, momentum: float) -> None:
        for p in parameters:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        directions = torch._foreach_add(gradients, buffers, alpha=momentum)
        updates = orthogonalised(torch.stack([d.flatten(1) for d in directions]))
        size = len(parameters[0]) ** 0.5
        for p, norm in zip(parameters, torch._foreach_norm(parameters), strict=True):
            p.mul_(size / norm)
        shaped = [u.view(p.shape) for u, p in zip(updates, parameters, strict=True)]
        torch._foreach_add_(parameters, shaped, alpha=-rate)


def orthogonalised(matrices: Tensor, steps: int = 3) -> Tensor:
    """Return roughly the nearest semi-orthogonal matrix to each matrix.

    Each Newton-Schulz step applies 3.4445 x - 4.775 x^3 + 2.0315 x^5 to the singular values, which
    moves those from about 0.05 up to between 0.7 and 1.2 (Jordan et al., 2024).

    Args:
        matrices: float[..., m, n].
        steps: how many.

    Returns:
        float[..., m, n].
    """
    x: Tensor = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.775 * gram) @ x
    return x.mT if tall else x
