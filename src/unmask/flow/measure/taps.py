"""Taps on the functions of torch that every training loop calls; each only reports."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import RandomSampler
from torch.utils.data.dataloader import _BaseDataLoaderIter

# Clipping by value is measured this many times, then as rarely.
EACH = 32
_SCALER = {"__init__": "made", "scale": "scaled", "unscale_": "unscaled", "update": "updated"}


class Tapped:
    """While entered, reports what a loop does beside its forward passes and its steps.

    Exceptions of the callbacks, except for a BaseException, don't leave this class.

    Args:
        backward: receives the tensor that the pass starts from.
        finished: called when the pass has come to its end, which an interrupt may prevent.
        clip: receives the fraction of the gradient that clipping left, and what was clipped.
        zero: receives the optimiser or the module whose gradients were zeroed.
        schedule: receives every scheduler that stepped, and the figure that it was given or None.
        made: receives every new optimiser.
        scaler: receives every GradScaler, and what it did: "made", "scaled" a loss, "unscaled" the
            gradients, or was "updated".
        shuffled: called for every batch that a DataLoader draws in random order.
        loaded: of a load of weights by name, receives whether they were the model's own tensors,
            the names of those given, and of those that it lacked and that it didn't know.
    """

    def __init__(
        self,
        *,
        backward: Callable[[Any], None],
        finished: Callable[[], None] | None = None,
        clip: Callable[[float, list[Tensor]], None] | None = None,
        zero: Callable[[Any], None] | None = None,
        schedule: Callable[[Any, Any], None] | None = None,
        made: Callable[[Optimizer], None] | None = None,
        scaler: Callable[[Any, str], None] | None = None,
        shuffled: Callable[[], None] | None = None,
        loaded: Callable[[bool, list[str], list[str], list[str]], None] | None = None,
    ) -> None:
        self._undo: list[tuple[Any, str, Any, Any]] = []
        self._backward, self._clip, self._zero = backward, clip, zero
        self._schedule, self._made, self._scaler = schedule, made, scaler
        self._shuffled, self._loaded, self._finished = shuffled, loaded, finished
        self._valued = 0

    def __enter__(self) -> Tapped:
        self._wrap(torch.autograd, "backward", self._before_backward, before=True)
        finished = self._finished
        if finished is not None:
            self._wrap(torch.autograd, "backward", lambda *_: finished())
        if self._clip is not None:
            for place in (torch.nn.utils, torch.nn.utils.clip_grad):
                self._wrap_clip(place, "clip_grad_norm_")
                self._wrap_clip(place, "clip_grad_value_")
        zero, made = self._zero, self._made
        if zero is not None:
            for owner in (Optimizer, torch.nn.Module):
                self._wrap(owner, "zero_grad", lambda _, args, __: zero(args[0]))
        if made is not None:
            self._wrap(Optimizer, "__init__", lambda _, args, __: made(args[0]))
        if self._schedule is not None:
            for schedule in (LRScheduler, ReduceLROnPlateau):
                self._wrap(schedule, "step", self._after_schedule)
        scaler = self._scaler
        if scaler is not None:
            for name, did in _SCALER.items():
                self._wrap(
                    torch.amp.GradScaler, name, lambda _, args, __, did=did: scaler(args[0], did)
                )
        if self._shuffled is not None:
            self._wrap(_BaseDataLoaderIter, "__next__", self._after_batch)
        if self._loaded is not None:
            self._wrap(torch.nn.Module, "load_state_dict", self._after_load)
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

        self._put(place, name, original, tapped)

    def _put(self, place: Any, name: str, original: Any, mine: Any) -> None:
        setattr(place, name, mine)
        self._undo.append((place, name, original, mine))

    def _wrap_clip(self, place: Any, name: str) -> None:
        """Tap clipping; by value it returns no norm, and measuring it at every step is slow."""
        original, tell, by_norm = getattr(place, name), self._clip, name == "clip_grad_norm_"

        @functools.wraps(original)
        def tapped(parameters: Any, *args: Any, **kwargs: Any) -> Any:
            # Reading a generator would use it up.
            given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
            if by_norm:
                norm = original(given, *args, **kwargs)
                _quietly(self._after_clip, norm, (given, *args), kwargs)
                return norm
            self._valued += 1
            looks = tell is not None and (self._valued <= EACH or self._valued % EACH == 0)
            before = _norm(given) if looks else 0.0
            result = original(given, *args, **kwargs)
            if tell is not None and 0 < before < math.inf:
                _quietly(lambda *_: tell(_norm(given) / before, given), None, (), {})
            return result

        self._put(place, name, original, tapped)

    def _before_backward(self, result: Any, args: Any, kwargs: Any) -> None:
        self._backward(args[0] if args else kwargs.get("tensors"))

    def _after_clip(self, norm: Any, args: Any, kwargs: Any) -> None:
        limit = args[1] if len(args) > 1 else kwargs.get("max_norm")
        if self._clip is not None and 0 < float(norm) < math.inf:
            self._clip(min(1.0, float(limit) / float(norm)), args[0])

    def _after_schedule(self, result: Any, args: Any, kwargs: Any) -> None:
        # The constructor of a schedule steps it too, as step 0.
        if self._schedule is not None and getattr(args[0], "last_epoch", 0) > 0:
            self._schedule(args[0], args[1] if len(args) > 1 else kwargs.get("metrics"))

    def _after_batch(self, result: Any, args: Any, kwargs: Any) -> None:
        sampler = getattr(args[0], "_index_sampler", None)
        if self._shuffled is not None and isinstance(
            getattr(sampler, "sampler", sampler), RandomSampler
        ):
            self._shuffled()

    def _after_load(self, result: Any, args: Any, kwargs: Any) -> None:
        given = args[1] if len(args) > 1 else kwargs["state_dict"]
        if self._loaded is not None:
            missing, unexpected = result
            mine = {t.data_ptr() for t in (*args[0].parameters(), *args[0].buffers())}
            assigned = kwargs.get("assign") or len(args) > 3
            tensors = [t for t in given.values() if isinstance(t, Tensor) and t.numel()]
            own = bool(tensors) and not assigned and all(t.data_ptr() in mine for t in tensors)
            self._loaded(own, list(given), list(missing), list(unexpected))


def _norm(parameters: list[Tensor]) -> float:
    gradients = [p.grad for p in parameters if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0


def _quietly(tell: Callable[..., None], result: Any, args: Any, kwargs: Any) -> None:
    try:
        tell(result, args, kwargs)
    except Exception:
        # An observer never stops a training.
        return
