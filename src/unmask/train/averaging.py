"""Running averages of a network's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from unmask.train.config import LoopConfig

_LOOKAHEAD_EVERY = 5


class Average:
    """A running average of a model's floating-point state.

    Args:
        model: whose state is averaged; its tensors are changed in place.
        config: names the averaging and its horizon.
    """

    def __init__(self, model: nn.Module, config: LoopConfig) -> None:
        self._kind, self._horizon = config.averaging, config.averaging_horizon
        self._live = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
        self.state: dict[str, Tensor] = {}
        if self._kind != "none":
            self.state = {k: v.clone() for k, v in self._live.items()}

    @torch.no_grad()
    def update(self, step: int, steps: int) -> None:
        """Update the average after a step of the optimiser.

        Lookahead moves the average every five steps by 1 - 0.95^5 (step / steps)^3 and copies it
        into the weights; at the last step the average doesn't move (Zhang et al., 2019, as Jordan,
        2024, has it).

        Args:
            step: from 1.
            steps: how many there are in all.
        """
        if self._kind == "ema":
            # The ramp makes the average forget the first weights, which mean nothing.
            keep = min(1 - 1 / self._horizon, step / (step + 10))
            self._move(1 - keep)
        elif self._kind == "lookahead" and (step % _LOOKAHEAD_EVERY == 0 or step == steps):
            if step < steps:
                self._move(1 - 0.95**_LOOKAHEAD_EVERY * (step / steps) ** 3)
            _copy(self.state, self._live)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model its averaged weights inside the block, and its own again after it."""
        if self._kind != "ema":
            yield
            return
        own = {k: v.clone() for k, v in self._live.items()}
        _copy(self.state, self._live)
        try:
            yield
        finally:
            _copy(own, self._live)

    def settle(self) -> None:
        """Give the model its averaged weights permanently, where there are any."""
        if self.state:
            _copy(self.state, self._live)

    def _move(self, part: float) -> None:
        torch._foreach_lerp_(
            list(self.state.values()), [self._live[name] for name in self.state], part
        )


@torch.no_grad()
def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    torch._foreach_copy_([target[name] for name in source], list(source.values()))
