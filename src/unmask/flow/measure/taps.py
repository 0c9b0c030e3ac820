"""Taps on the functions of torch that every training loop calls; each only tells and passes on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class Tapped:
    """While entered, tells of backward passes, clipping, zeroing, schedules and new optimisers.

    Args:
        backward: is given what the pass starts from.
        clip: the norm of the gradient before clipping, and the norm that is allowed.
        zero: is called at optimizer.zero_grad().
        schedule: at scheduler.step().
        made: is given every optimiser that is made.

    What they raise, but for a BaseException, stays here.
    """

    def __init__(
        self,
        *,
        backward: Callable[[Any], None],
        clip: Callable[[float, float], None] | None = None,
        zero: Callable[[], None] | None = None,
        schedule: Callable[[], None] | None = None,
        made: Callable[[Optimizer], None] | None = None,
    ) -> None:
        self._undo: list[tuple[Any, str, Any, Any]] = []
        self._backward, self._clip, self._zero = backward, clip, zero
        self._schedule, self._made = schedule, made

    def __enter__(self) -> Tapped:
        self._wrap(torch.autograd, "backward", self._before_backward, before=True)
        if self._clip is not None:
            for place in (torch.nn.utils, torch.nn.utils.clip_grad):
                self._wrap(place, "clip_grad_norm_", self._after_clip)
        zero, made = self._zero, self._made
        if zero is not None:
            self._wrap(Optimizer, "zero_grad", lambda *_: zero())
        if made is not None:
            self._wrap(Optimizer, "__init__", lambda _, args, __: made(args[0]))
        if self._schedule is not None:
            self._wrap(LRScheduler, "step", self._after_schedule)
        return self

    def __exit__(self, *args: object) -> None:
        for place, name, original, mine in reversed(self._undo):
            if getattr(place, name) is mine:
                setattr(place, name, original)
        self._undo = []

    def _wrap(self, place: Any, name: str, tell: Callable[..., None], before: bool = False) -> None:
        original = getattr(place, name)

        @functools.wraps(original)
        def tapped(*args: Any, **kwargs: Any) -> Any:
            if before:
                _quietly(tell, None, args, kwargs)
            result = original(*args, **kwargs)
            if not before:
                _quietly(tell, result, args, kwargs)
            return result

        setattr(place, name, tapped)
        self._undo.append((place, name, original, tapped))

    def _before_backward(self, result: Any, args: Any, kwargs: Any) -> None:
        self._backward(args[0] if args else kwargs.get("tensors"))

    def _after_clip(self, norm: Any, args: Any, kwargs: Any) -> None:
        limit = args[1] if len(args) > 1 else kwargs.get("max_norm")
        if self._clip is not None:
            self._clip(float(norm), float(limit))

    def _after_schedule(self, result: Any, args: Any, kwargs: Any) -> None:
        # The constructor of a schedule steps it too, as step 0.
        if self._schedule is not None and getattr(args[0], "last_epoch", 0) > 0:
            self._schedule()


def _quietly(tell: Callable[..., None], result: Any, args: Any, kwargs: Any) -> None:
    try:
        tell(result, args, kwargs)
    except Exception:
        # An observer stops no training.
        return
