"""Masks of attention, held against the padding of the words that a model reads."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# Scores to which this or less is added get no attention.
SHUT = -1e4


class Padding:
    """The padding of the texts of a step, as tables of words that know it tell."""

    def __init__(self) -> None:
        # Of encoder and decoder, in a few passes.
        self._found: deque[Tensor] = deque(maxlen=8)

    def alone_seen(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Return whether a call is attention that sees the padding and nothing else.

        Args:
            func: of torch that is called; a table of words is remembered.
            args: of the call.
            kwargs: of the call.
        """
        if func is functional.embedding:
            padding = kwargs.get("padding_idx", args[2] if len(args) > 2 else None)
            if padding is not None and args[0].ndim == 2:
                self._found.append(args[0] == padding)
            return False
        if not self._found:
            return False
        seen = _seen(func, args, kwargs)
        return seen is not None and any(
            _same(p, seen) for there in self._found for p in (there, there.T)
        )


def _seen(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return bool[texts, words]: the words that the last one of each text attends to."""
    if func is functional.multi_head_attention_forward:
        mask = kwargs.get("key_padding_mask")
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            return None
        return ~mask if mask.dtype == torch.bool else mask > SHUT
    if func is functional.scaled_dot_product_attention:
        mask = kwargs.get("attn_mask", args[3] if len(args) > 3 else None)
        if not isinstance(mask, Tensor) or mask.ndim != 4:
            return None
        last = mask[:, 0, -1]
        return last if last.dtype == torch.bool else last > SHUT
    return None


def _same(padding: Tensor, seen: Tensor) -> bool:
    if padding.shape != seen.shape:
        return False
    rows = padding.any(1) & ~padding.all(1)
    return bool(rows.any()) and torch.equal(padding[rows], seen[rows])
