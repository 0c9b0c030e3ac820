"""The effect of changing a batch: mixed images, labels that don't matter, chance."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unmask.flow.measure.calls import logits_in
from unmask.flow.measure.layers import spread
from unmask.flow.measure.statistics import Experiments, FlowStats
from unmask.flow.measure.texts import embed, leak, placed, read

VARIED, SEEN = 0.01, 1e-3
LEAST_IMAGES, LEAST_TIMES, LEAST_PLACES = 8, 10, 4
# The images that a pass needs whose outputs are only compared, and that are put in another order.
FEW, ORDERED = 4, 32
# How many times as bright images are that must bend what is curved.
LOUD = 100
# The number of images of the linear fit, and of pixels of each.
_FIT_IMAGES, _PIXELS, _FOLDS = 200, 256, 5


def experiment(
    model: nn.Module,
    call: Callable[[nn.Module, Any], Any],
    loss: Callable[[nn.Module, Any, Any], Tensor],
    batches: Sequence[tuple[Any, Any]],
    rows: Sequence[tuple[Any, Any]] | None = None,
    *,
    curved: bool = False,
    cut: bool = False,
) -> Experiments:
    """Try the changes on copies of a model; the result of one that can't be tried is None.

    Args:
        model: the network, which stays as it is.
        call: returns the output of a model for inputs.
        loss: of a model, inputs and targets.
        batches: pairs of inputs and targets; the first is changed.
        rows: images and labels for the linear fit, None to fit the batches.
        curved: whether the network is known to apply an activation.
        cut: whether its forward is known to cut the graph.
    """
    x, y = batches[0]
    mixed = swapped = time = severed = words = place = None
    plain = isinstance(x, Tensor) and isinstance(y, Tensor) and x.ndim > 1
    if plain and LEAST_IMAGES <= len(x) == len(y):
        # Where every word has a label, texts may lie side by side.
        whole = x.is_floating_point() or y.shape[:2] != x.shape[:2]
        if whole and not _one_series(model, x, y):
            mixed = _quietly(lambda: _mixed(_alive(model), call, x))
            place = _quietly(lambda: _place(_alive(model), call, x, len(y)))
        swapped = _quietly(lambda: _swapped(_alive(model), call, loss, x, y))
        if any(isinstance(m, nn.RNNBase) for m in model.modules()):
            time = _quietly(lambda: _through_time(_alive(model), call, x))
        if cut:
            severed = _quietly(lambda: _severed(_alive(model), call, x))
    elif (plain and len(x) >= LEAST_IMAGES and placed(model, call, x)) or (
        isinstance(y, Tensor) and y.ndim and len(y) >= LEAST_IMAGES and _apart(x, len(y))
    ):
        mixed = _quietly(lambda: _mixed(_alive(model), call, x))
        place = _quietly(lambda: _place(_alive(model), call, x, len(y)))
    if isinstance(y, Tensor) and not y.is_floating_point():
        words = _quietly(lambda: leak(_alive(model), call, x, y))
    random = _quietly(lambda: _random(_alive(model), call, x)) if plain else None
    straight = plain and not curved
    affine = _quietly(lambda: _affine(_alive(model), call, x)) if straight else None
    fit = _quietly(lambda: _linear(batches if rows is None else rows)) if plain else None
    linear, chance, nearest, images = fit or (None, None, None, 0)
    later, unshifted = words or (None, False)
    words_in = any(isinstance(m, nn.Embedding) for m in model.modules())
    known = _quietly(lambda: read(_alive(model), call, x)) if words_in else None
    recurrent = any(isinstance(m, nn.RNNBase) for m in model.modules())
    return Experiments(
        *(mixed, swapped, time, severed, affine, random),
        *(linear, chance, nearest, images, later, unshifted),
        # Through long padding a recurrent layer's gradient fades, which is no mask.
        read=None if recurrent or known is None else known[0],
        last=known if recurrent else None,
        place=place,
    )


def _one_series(model: nn.Module, x: Tensor, y: Tensor) -> bool:
    """Return whether a recurrent layer reads one series, whose time comes before its batch of 1."""
    recurrent = [m for m in model.modules() if isinstance(m, nn.RNNBase)]
    first = bool(recurrent) and not any(m.batch_first for m in recurrent)
    return first and x.ndim == y.ndim == 3 and x.shape[1] == y.shape[1] == 1


def severs(stats: FlowStats) -> bool:
    """Return whether a step's forward pass cut the graph again and again at one line."""
    lines = Counter(c.location for c in stats.cuts if c.operation in (".detach()", ".data"))
    return max(lines.values(), default=0) >= LEAST_PLACES


def _alive(model: nn.Module) -> nn.Module:
    """Return a copy for evaluation, in which weights that start at zero have a usual size.

    The question is whether an output can depend on something, not whether it does before the first
    step.
    """
    twin = copy.deepcopy(model).eval()
    with torch.no_grad():
        for p in twin.parameters():
            if p.ndim > 1 and p.is_floating_point() and not bool(p.any()):
                p.normal_(0, 1 / math.sqrt(p[0].numel()))
    for m in twin.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is None:
            # Without running statistics it takes the batch's, which mixes no images by mistake.
            like = m.weight if m.affine else next(twin.parameters())
            m.running_mean = torch.zeros(m.num_features, device=like.device, dtype=like.dtype)
            m.running_var = torch.ones_like(m.running_mean)
    return twin


def _through_time(
    model: nn.Module, call: Callable[[nn.Module, Any], Any], x: Tensor
) -> float | None:
    """Return the least ratio, over recurrent layers, of a gradient's first tenth to its last.

    The gates of an LSTM or GRU are half shut at the start and open as they learn: for them the cube
    root of the ratio counts.
    """
    fed: list[tuple[Tensor, nn.RNNBase]] = []

    def take(module: nn.RNNBase, args: Any) -> Any:
        leaf = args[0].detach().requires_grad_()
        fed.append((leaf, module))
        return (leaf, *args[1:])

    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.register_forward_pre_hook(take)
            # It has a gradient in training mode only.
            module.train()
    output = logits_in(call(model, x[:LEAST_IMAGES]))
    output.float().square().sum().backward()
    ratios = []
    for leaf, layer in fed:
        if leaf.grad is None or leaf.ndim != 3:
            continue
        size = leaf.grad.double().square().sum((0, 2) if layer.batch_first else (1, 2)).sqrt()
        tenth = max(1, len(size) // 10)
        if len(size) >= LEAST_TIMES and float(size[-tenth:].mean()) > 0:
            ratio = float(size[:tenth].mean() / size[-tenth:].mean())
            ratios.append(ratio if isinstance(layer, nn.RNN) else ratio ** (1 / 3))
    return min(ratios, default=None)


def _severed(model: nn.Module, call: Callable[[nn.Module, Any], Any], x: Tensor) -> float | None:
    images = x[:LEAST_IMAGES].detach().clone().requires_grad_()
    output = logits_in(call(model, images))
    output.float().square().sum().backward()
    output = output.detach()
    along = next((d for d in range(1, x.ndim) if x.shape[d] >= LEAST_PLACES), None)
    if images.grad is None or along is None:
        return None
    size = images.grad.double().abs().sum([d for d in range(x.ndim) if d != along])
    silent = size == 0
    if not bool(silent.any()):
        return 0.0
    with torch.no_grad():
        others = images.clone().movedim(along, 0)
        others[silent] = others[silent].roll(1, 1)
        off = logits_in(call(model, others.movedim(0, along))) - output
    matters = _rms(off.double()) > SEEN * _rms(output.double())
    return float(silent.double().mean()) if matters else 0.0


def _quietly(measure: Callable[[], Any]) -> Any:
    # A model may not accept a changed batch: then there is no such figure.
    try:
        return measure()
    except Exception:
        return None


def _apart(inputs: Any, n: int) -> bool:
    """Return whether several inputs hold n images each, and none of them joins these on purpose."""
    if isinstance(inputs, Tensor):
        # A matrix of n x n may be the graph that joins them.
        return (
            inputs.ndim > 0
            and len(inputs) == n
            and not inputs.is_sparse
            and n not in inputs.shape[1:]
        )
    if isinstance(inputs, (tuple, list)):
        return len(inputs) > 0 and all(_apart(x, n) for x in inputs)
    return inputs is None


def _mixed(model: nn.Module, call: Callable[[nn.Module, Any], Any], inputs: Any) -> float | None:
    leaves: list[Tensor] = []
    words: list[Tensor] = []

    def few(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return type(x)(few(i) for i in x) if isinstance(x, (tuple, list)) else x
        images = x[:FEW].detach().clone()
        (leaves if x.is_floating_point() else words).append(images)
        return images.requires_grad_(x.is_floating_point())

    taken = few(inputs)
    # Of words the embeddings are what a gradient comes to.
    embed(model, {x.shape for x in words}, leaves)
    output = logits_in(call(model, taken))
    if output is None or output.ndim < 1 or len(output) != FEW or not leaves:
        return None
    if not isinstance(inputs, Tensor) and output.shape[1:] == (FEW,):
        # Each of one side is compared with all of the other.
        return None
    own = others = 0.0
    # Both ends, since a recurrent layer over the batch passes on in one direction only.
    for i in (0, FEW - 1):
        end = output[i].float().sum()
        found = torch.autograd.grad(end, leaves, allow_unused=True, retain_graph=True)
        for g in found:
            size = g.flatten(1).abs().sum(1) if g is not None else torch.zeros(FEW)
            own += float(size[i])
            others += float(size.sum() - size[i])
    if not math.isfinite(own + others) or own + others == 0:
        return None
    return others / (own + others)


def _place(
    model: nn.Module, call: Callable[[nn.Module, Any], Any], inputs: Any, n: int
) -> float | None:
    """Return how much outputs change with their images' order, over how much they differ."""
    straight = torch.arange(min(n, FEW))
    order = straight.roll(1)

    def rows(x: Any, places: Tensor) -> Any:
        if isinstance(x, (tuple, list)):
            return type(x)(rows(i, places) for i in x)
        return x[places.to(x.device)] if isinstance(x, Tensor) else x

    if not _apart(inputs, n):
        return None
    with torch.no_grad():
        one, other = (logits_in(call(model, rows(inputs, o))) for o in (straight, order))
        if one is None or not one.is_floating_point() or len(one) != len(order):
            return None
        size = _rms((one - one.mean(0)).double())
        moved = one[order.to(one.device)]
        off = _rms((other - moved).double())
        if size <= SEEN * _rms(one.double()) or off <= SEEN * size:
            return 0.0
        if one.shape[1:] == order.shape and torch.allclose(
            other, moved[:, order], atol=SEEN * size
        ):
            # Each is compared with all.
            return 0.0
        # What is drawn at random, or keeps a state, differs whatever the order.
        again = logits_in(call(model, rows(inputs, straight)))
    return off / size if _rms((one - again).double()) < SEEN * off else 0.0


class _Made(nn.Module):
    """A model whose output is known."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output, whatever the images."""
        return self.output


def _swapped(
    model: nn.Module,
    call: Callable[[nn.Module, Any], Any],
    loss: Callable[[nn.Module, Any, Any], Tensor],
    x: Tensor,
    y: Tensor,
) -> float | None:
    x, y = x[:ORDERED], y[:ORDERED]
    flat = y.reshape(len(y), -1)
    if bool((flat == flat[:1]).all()):
        return None
    order = torch.roll(torch.arange(len(x)), len(x) // 2 - 1)
    with torch.no_grad():
        # With statistics that were never updated, outputs may be of any size.
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train()
        made = call(model, x)
        output = logits_in(made)
        if output is None or spread(output, 0) < VARIED or float(output.abs().max()) < SEEN:
            # The outputs hardly differ, or their difference is lost in the loss's rounding.
            return None
        # Other labels for each image are other images for each label.
        before, after = (float(loss(_Made(made), x, labels)) for labels in (y, y[order]))
    if not math.isfinite(before) or before == 0:
        return None
    return abs(after - before) / abs(before)


def _random(model: nn.Module, call: Callable[[nn.Module, Any], Any], x: Tensor) -> float | None:
    """Return how much two passes of the same images in evaluation mode differ, over their size."""
    images = x[: FEW // 2]
    with torch.no_grad():
        one, two = (logits_in(call(model, images)) for _ in range(2))
    if one is None or not one.is_floating_point() or one.shape != two.shape:
        return None
    size, off = _rms(one.double()), _rms(one.double() - two.double())
    return off / size if size > 0 and math.isfinite(off) else None


def _affine(model: nn.Module, call: Callable[[nn.Module, Any], Any], x: Tensor) -> float | None:
    """Return |f(a) + f(b) - f(c) - f(a + b - c)| over the size of f's differences.

    It is 0, but for rounding, of a network that is a linear function of its images, and the larger
    one of images as they are and many times as bright: what hardly reaches a curved function passes
    it as if it were straight.
    """
    if not x.is_floating_point() or len(x) < 3:
        return None
    found = [_bend(model, call, x * scale) for scale in (1, LOUD)]
    return max(known) if len(known := [f for f in found if f is not None]) == len(found) else None


def _bend(model: nn.Module, call: Callable[[nn.Module, Any], Any], x: Tensor) -> float | None:
    a, b, c = (x.roll(i, 0)[:FEW] for i in range(3))
    with torch.no_grad():
        at = [logits_in(call(model, images)) for images in (a, b, c, a + b - c)]
        if any(z is None for z in at):
            return None
        f, g, h, whole = (z.double() for z in at)
        size = min(_rms(f - g), _rms(g - h), _rms(h - f))
        off = _rms(f + g - h - whole)
    # Where two of them are nearly the same, so are the other two, however curved the function.
    return off / size if size > VARIED * _rms(f) and math.isfinite(off) else None


def _rms(x: Tensor) -> float:
    return math.sqrt(float(x.square().mean()))


def _linear(batches: Sequence[tuple[Any, Any]]) -> tuple[float, float, float, int] | None:
    """Return how well labels are predicted by a ridge classifier, cross-validated, by always
    predicting the largest class, and by the nearest other image; and the number of images.
    """
    rows, labels = [], []
    for x, y in batches:
        if y.is_floating_point() or y.ndim != 1 or len(x) != len(y) or not x.is_floating_point():
            return None
        rows.append(x.detach().flatten(1).float().cpu())
        labels.append(y.detach().cpu())
    inputs, targets = torch.cat(rows).double().numpy(), torch.cat(labels).numpy()
    # Images that come again would be known by heart.
    once = np.unique(inputs, axis=0, return_index=True)[1]
    if len(once) < 0.5 * len(inputs):
        return None
    inputs, targets = inputs[np.sort(once)], targets[np.sort(once)]
    n = len(inputs)
    classes = np.unique(targets)
    if n < _FIT_IMAGES or not 1 < len(classes) <= n // 8 or not np.isfinite(inputs).all():
        return None
    inputs = inputs[:, :: max(1, inputs.shape[1] // _PIXELS)]
    inputs = (inputs - inputs.mean(0)) / (inputs.std(0) + 1e-9)
    aims = (targets[:, None] == classes).astype(float) - 1 / len(classes)
    right = 0
    fold = np.arange(n) % _FOLDS
    for k in range(_FOLDS):
        a, b = inputs[fold != k], aims[fold != k]
        gram = a.T @ a + 0.1 * n * np.eye(a.shape[1])
        weights = np.linalg.solve(gram, a.T @ b)
        right += int((classes[(inputs[fold == k] @ weights).argmax(1)] == targets[fold == k]).sum())
    counts = np.unique(targets, return_counts=True)[1]
    squares = np.square(inputs).sum(1)
    apart = squares[:, None] + squares - 2 * inputs @ inputs.T
    np.fill_diagonal(apart, np.inf)
    near = float((targets[apart.argmin(1)] == targets).mean())
    return right / n, float(counts.max() / n), near, n
