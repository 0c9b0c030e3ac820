"""Experiments on texts: what a model may read of the words and of their padding."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from unmask.flow.measure.calls import logits_in

# The texts that a pass needs whose outputs are only compared, and those of which some have padding.
FEW, TEXTS = 4, 32


def placed(model: nn.Module, call: Callable[[nn.Module, Any], Any], x: Any) -> bool:
    """Return whether the places of words, which a table tells, lie along their second dimension.

    Args:
        model: the network.
        call: returns the output of a model for inputs.
        x: the words.
    """
    if x.is_floating_point() or x.ndim != 2 or x.shape[0] == x.shape[1]:
        return False
    found: list[Tensor] = []
    twin = copy.deepcopy(model).eval()
    for module in twin.modules():
        if isinstance(module, nn.Embedding):
            module.register_forward_pre_hook(lambda module, args: found.append(args[0]))
    with torch.no_grad(), contextlib.suppress(Exception):
        call(twin, x[: 2 * FEW])
    places = torch.arange(x.shape[1], device=x.device)
    return any(p.flatten().shape == places.shape and bool((p == places).all()) for p in found)


def leak(
    model: nn.Module, call: Callable[[nn.Module, Any], Any], inputs: Any, y: Tensor
) -> tuple[float | None, bool] | None:
    """Return how much of a word's output depends on later words, if its target is the next one.

    Also whether its target is that word itself, which it depends on, and on no later one.

    Args:
        model: the network, whose embeddings are cut off from their tables.
        call: returns the output of a model for inputs.
        inputs: the words, int64[texts, places], or several inputs of which one is a decoder's.
        y: their targets.
    """
    parts = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    texts = [t for t in parts if isinstance(t, Tensor) and _whole(t) and t.ndim == 2]
    found = [(x, known) for x in texts if (known := _relation(x, y)) is not None]
    if len(parts) > 1:
        # An encoder may read what a decoder is to write.
        found = [(x, known) for x, known in found if known == "next"]
    if len(found) != 1:
        return None
    x, same = found[0][0], found[0][1] == "same"
    words, last = x.shape[1], y.numel() // len(x)
    leaves: list[Tensor] = []
    few = x[:FEW].clone()
    taken = [t[:FEW] if isinstance(t, Tensor) and t.ndim and len(t) == len(x) else t for t in parts]
    embed(model, {few.shape}, leaves, few if len(parts) > 1 else None)
    output = logits_in(call(model, type(inputs)(taken) if len(parts) > 1 else few))
    if output is None or output.shape[:2] != few.shape or not leaves:
        return None
    place = words - 1 - last // 2
    end = output[:, place].float().square().sum()
    sizes = [
        g.abs().sum((0, 2))
        for g in torch.autograd.grad(end, leaves, allow_unused=True)
        if g is not None
    ]
    later = sum(float(s[place + 1 :].sum()) for s in sizes)
    total = sum(float(s.sum()) for s in sizes)
    if not 0 < total < math.inf:
        return None
    if not same:
        return later / total, False
    own = sum(float(s[place].sum()) for s in sizes)
    return None, later == 0 and 0 < own < total


def _relation(x: Tensor, y: Tensor) -> str | None:
    """Return whether words' targets are the "next" words or the "same", None for others."""
    if not len(x) or y.numel() % len(x):
        return None
    targets = y.reshape(len(x), -1)
    words, last = x.shape[1], targets.shape[1]
    if not FEW <= last <= words:
        return None
    # The last words may have the next for a target, or all but the very last.
    after = bool((targets[:, :-1] == x[:, words - last + 1 :]).all())
    within = last < words and bool((targets == x[:, words - last :]).all())
    if after or within:
        return "next"
    return "same" if last == words and bool((targets == x).all()) else None


def read(
    model: nn.Module, call: Callable[[nn.Module, Any], Any], inputs: Any
) -> tuple[float, float] | None:
    """Return the fraction of an output's gradient that comes to words, not to their padding.

    It is that of the texts that have both. The second is the fraction of their places that hold
    words.

    Args:
        model: the network, whose embeddings are cut off from their tables.
        call: returns the output of a model for inputs.
        inputs: the texts, int64[texts, places], alone or with their lengths and the like.
    """
    parts = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    x = next((t for t in parts if isinstance(t, Tensor) and _whole(t) and t.ndim == 2), None)
    padding = None if x is None else _padding(model, x)
    if x is None or padding is None:
        return None
    real = x != padding
    rows = (real.any(1) & ~real.all(1)).nonzero().flatten()[:TEXTS]
    if len(rows) < FEW:
        return None
    texts, n = x[rows], len(x)
    few = [t[rows] if isinstance(t, Tensor) and t.ndim and len(t) == n else t for t in parts]
    leaves: list[Tensor] = []
    embed(model, {texts.shape}, leaves)
    output = logits_in(call(model, type(inputs)(few) if len(parts) > 1 else texts))
    if output is None or len(leaves) != 1:
        return None
    (gradient,) = torch.autograd.grad(output.float().square().sum(), leaves, allow_unused=True)
    size, real = gradient.abs().flatten(2).sum(2), texts != padding
    total = float(size.sum())
    if not 0 < total < math.inf:
        return None
    return float(size[real].sum()) / total, float(real.float().mean())


def _whole(x: Tensor) -> bool:
    return not x.is_floating_point() and not x.is_complex() and x.dtype != torch.bool


def _padding(model: nn.Module, x: Tensor) -> int | None:
    """Return the word that is padding: as a table says, or as only the ends of texts repeat it."""
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    told = next((m.padding_idx for m in tables if m.padding_idx is not None), None)
    if told is not None or x.shape[1] < FEW:
        return told
    word = int(x[:, -1].mode().values)
    same = x == word
    ends = same[:, -2:].all(1) & ~same.all(1)
    within = bool((same[:, :-1] & ~same[:, 1:]).any())
    return None if within or int(ends.sum()) < max(FEW, len(x) // 4) else word


def embed(
    model: nn.Module,
    shapes: Collection[torch.Size],
    leaves: list[Tensor],
    words: Tensor | None = None,
) -> None:
    """Let a pass add the embeddings of words, cut off from their tables.

    Args:
        model: whose tables are hooked.
        shapes: of the words that are meant.
        leaves: receives the embeddings.
        words: that alone are meant, None for all of those shapes.
    """

    def cut(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        if args[0].shape not in shapes or not (words is None or torch.equal(args[0], words)):
            return output
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.register_forward_hook(cut)
