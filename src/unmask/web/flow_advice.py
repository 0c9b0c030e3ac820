"""The flow check of a setting of the page, and the setting that fixes what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from unmask.flow.check import FlowCheck, check_flow
from unmask.flow.judge import fixes
from unmask.flow.repair import RATES, of_network
from unmask.models.activations import activation
from unmask.sweep.init import initial_parameters
from unmask.sweep.spec import NetSpec
from unmask.web.flow_live import live_images

_STEPS, _BATCH = 8, 64
# The probe recognises torch's own functions; it measures the others.
_BY_TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    name: getattr(nn.functional, name)
    for name in ("relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus")
}


@dataclass(frozen=True)
class Advice:
    """A setting that should fix the worst verdict.

    Args:
        spec: the setting.
        words: what it changes, in words.
    """

    spec: NetSpec
    words: str


def judge(spec: NetSpec) -> FlowCheck:
    """Return the flow check of a setting's first net: a few steps of plain gradient descent."""
    network = as_module(spec)
    train = live_images()[0]
    rows = torch.from_numpy(train.pixels[: _STEPS * _BATCH]).flatten(1).float() / 255
    labels = torch.from_numpy(train.labels[: _STEPS * _BATCH])
    batches = list(zip(torch.split(rows, _BATCH), torch.split(labels, _BATCH), strict=True))

    def sgd(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=spec.learning_rate)

    loss = nn.functional.cross_entropy
    return check_flow(network, loss, iter(batches), optimizer=sgd, steps=_STEPS, seed=spec.seed)


def as_module(spec: NetSpec) -> nn.Module:
    """Return the untrained net of a spec as a PyTorch module that takes flat pixels in [0, 1]."""
    train = live_images()[0]
    inputs, classes = train.pixels[0].size, len(train.class_names)
    function = _BY_TORCH.get(spec.activation, activation(spec.activation).function)
    sizes = [inputs, *[spec.width] * spec.depth, classes]
    network = nn.Sequential()
    parameters = initial_parameters(spec, inputs, classes)
    shapes = zip(pairwise(sizes), parameters, strict=True)
    for k, ((fan_in, fan_out), (weights, biases)) in enumerate(shapes, 1):
        linear = nn.Linear(fan_in, fan_out, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weights.T))
            linear.bias.copy_(torch.from_numpy(biases))
        # The names that verdicts give the layers.
        network.add_module(f"layer {k}", linear)
        if k <= spec.depth:
            network.add_module(f"activation {k}", _Elementwise(function))
    return network


class _Elementwise(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x)


def advise(spec: NetSpec, check: FlowCheck) -> Advice | None:
    """Return the fix of the worst fault that a setting of the page can fix, or None."""
    kinds = [v.kind for v in check.at_least("warning")]
    networks = [_network_mended(spec, kind) for kind in kinds if kind not in RATES]
    rates = [_rate_mended(spec, kind, check) for kind in kinds if kind in RATES]
    order = [*networks, *rates] if of_network(check, set(kinds)) else [*rates, *networks]
    mended = next((m for m in order if m != spec), None)
    return None if mended is None else Advice(mended, _changes(spec, mended))


def _network_mended(spec: NetSpec, kind: str) -> NetSpec:
    dead = kind == "dead units" and spec.activation == "relu"
    return _critical(replace(spec, activation="leaky_relu") if dead else spec)


def _rate_mended(spec: NetSpec, kind: str, check: FlowCheck) -> NetSpec:
    history = list(check.history)
    low = kind == "learning rate too low"
    rate = fixes.faster_rate(history) if low else fixes.slower_rate(history)
    return replace(spec, learning_rate=float(fixes.rounded(rate)))


def _critical(spec: NetSpec) -> NetSpec:
    """Return the setting at its activation's critical point, or at tanh's where it has none."""
    name = spec.activation
    point = None if name in ("sigmoid", "softplus") else fixes.critical(name)
    if point is None:
        name, point = "tanh", fixes.critical("tanh")
    assert point is not None
    sigma_w2, sigma_b2 = (float(f"{value:.4g}") for value in point)
    return replace(spec, activation=name, init="mean_field", sigma_w2=sigma_w2, sigma_b2=sigma_b2)


def _changes(old: NetSpec, new: NetSpec) -> str:
    changes = []
    if new.activation != old.activation:
        changes.append(
            f"{activation(new.activation).title} instead of {activation(old.activation).title}"
        )
    if (new.init, new.sigma_w2, new.sigma_b2) != (old.init, old.sigma_w2, old.sigma_b2):
        changes.append(f"sigma_w2 = {new.sigma_w2:.3g}, sigma_b2 = {new.sigma_b2:.2g}")
    if new.learning_rate != old.learning_rate:
        changes.append(f"learning rate {new.learning_rate:g}")
    return ", ".join(changes)
