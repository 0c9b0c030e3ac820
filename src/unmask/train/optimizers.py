"""Optimisers over groups of parameters, and Muon."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.train.config import FitConfig
from unmask.train.device import without_tf32

_REST_MOMENTUM = 0.85


def optimizers(model: nn.Module, config: FitConfig) -> list[torch.optim.Optimizer]:
    """Return what updates the model's trainable parameters, each of them once.

    Every group carries its peak rate as "peak"; lr is set at each step. Raises UserError when
    nothing is to be trained.
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
    # Without a bias, a norm follows, and what Muon does to the size of the filters is undone.
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


def _plain(groups: list[dict[str, Any]], config: FitConfig, *, fused: bool) -> Any:
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

    most_gradient: the length beyond which the gradient of all parameters together is cut.
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
    """Nesterov's momentum, orthogonalised filter by filter matrix, for convolutions.

    Each update is the nearest semi-orthogonal matrix to the momentum's, as three Newton-Schulz
    steps give it roughly, and each weight is kept at the norm of an orthogonal matrix, the root of
    its number of filters. (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon.)
    """

    def __init__(self, params: Iterable[Any], *, lr: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                momentum = state["momentum_buffer"].mul_(group["momentum"]).add_(p.grad)
                direction = p.grad.add(momentum, alpha=group["momentum"])
                p.mul_(len(p) ** 0.5 / p.norm())
                update = orthogonalised(direction.flatten(1)).view(p.shape)
                p.add_(update, alpha=-group["lr"])


def orthogonalised(matrix: Tensor, steps: int = 3) -> Tensor:
    """Return roughly the nearest semi-orthogonal matrix to a float[m, n] one.

    Each step applies 3.4445 x - 4.775 x^3 + 2.0315 x^5 to the singular values, which pushes
    those from about 0.05 up to between 0.7 and 1.2.
    """
    x: Tensor = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.775 * gram) @ x
    return x.T if tall else x
