"""Running averages of a network's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from unmask.train.config import LoopConfig

_LOOKAHEAD_EVERY = 5


class Average:
    """A running average of a model's floating-point state, by the config's averaging."""

    def __init__(self, model: nn.Module, config: LoopConfig) -> None:
        self._kind, self._horizon = config.averaging, config.averaging_horizon
        self._live = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
        self.state: dict[str, Tensor] = {}
        if self._kind != "none":
            self.state = {k: v.clone() for k, v in self._live.items()}

    @torch.no_grad()
    def update(self, step: int, steps: int) -> None:
        """Take in the weights after a step, counted from 1, of steps in all.

        Lookahead moves the average by 1 - 0.95^5 (step / steps)^3 and puts the weights there; at
        the last step it doesn't move.
        """
        if self._kind == "ema":
            # The ramp keeps the first weights, which mean nothing, from lingering.
            keep = min(1 - 1 / self._horizon, step / (step + 10))
            self._move(1 - keep)
        elif self._kind == "lookahead" and (step % _LOOKAHEAD_EVERY == 0 or step == steps):
            if step < steps:
                self._move(1 - 0.95**_LOOKAHEAD_EVERY * (step / steps) ** 3)
            _copy(self.state, self._live)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the averaged weights inside the block, and its own again after."""
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
        """Give the model its averaged weights for good, where there are any."""
        if self.state:
            _copy(self.state, self._live)

    def _move(self, part: float) -> None:
        torch._foreach_lerp_(
            list(self.state.values()), [self._live[name] for name in self.state], part
        )


@torch.no_grad()
def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    torch._foreach_copy_([target[name] for name in source], list(source.values()))
