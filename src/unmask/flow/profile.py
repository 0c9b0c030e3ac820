"""The prediction of mean-field theory for a model's layers, beside the measured profile."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.flow.feed import Batch, Loss, call
from unmask.flow.measure.statistics import FlowStats
from unmask.flow.measure.wrappers import unwrap
from unmask.flow.theory import Profile, WeightLayer, nonlinearity, predict
from unmask.flow.theory.gaussian import Floats
from unmask.models.activations import ACTIVATIONS

IMAGES = 16
# How many standard errors the mean of weights drawn about zero may differ from it.
_OFF_CENTRE = 6.0
_DIGITS = 1e-3


@dataclass(frozen=True)
class Prediction:
    """The profile that theory predicts for a multilayer perceptron, and the measured one.

    Args:
        names: of the weight layers, from the input to the output.
        activation: of the hidden layers.
        pictures: the number of images of both profiles.
        layers: their sizes, and the sigma_w2 and sigma_b2 of their weights.
        expected: the predicted profile.
        gradient_rms: the measured RMS of dE/dW, float64[layers].
        activation_rms: the measured RMS of phi(z), float64[layers], NaN for the output layer.
    """

    names: tuple[str, ...]
    activation: str
    pictures: int
    layers: tuple[WeightLayer, ...]
    expected: Profile
    gradient_rms: Floats
    activation_rms: Floats

    def within(self, deviations: float = 2.0) -> int:
        """Return how many layers' gradients lie within that many standard deviations."""
        low, high = self.expected.gradient_band(deviations)
        return int(((low <= self.gradient_rms) & (self.gradient_rms <= high)).sum())


@dataclass(frozen=True)
class NoPrediction:
    """The reason, as a clause, why theory makes no prediction for a model."""

    reason: str


def predicted_flow(
    model: nn.Module, loss_fn: Loss, pair: Batch, stats: FlowStats
) -> Prediction | NoPrediction:
    """Predict the profile of a model, unchanged, for the first IMAGES images of a batch.

    Theory covers multilayer perceptrons: a chain of linear layers, the same activation after each
    but the last, weights drawn about zero. Whether a model is one is not read from its code but
    tested: such a chain, built from its weights, must give the same outputs. The errors at the
    output are the model's own, so any loss will do. The profile is measured in float64, since
    gradients can be too small for float32.

    Args:
        model: the network, which does not change.
        loss_fn: of output and targets.
        pair: inputs and targets, a tensor each.
        stats: of the model's first step.

    Returns:
        The prediction and the measurement, or why there is none.

    Raises:
        UserError: for a model that unwrap refuses.
    """
    network = unwrap(model)
    inputs, targets = pair
    if not (isinstance(inputs, Tensor) and isinstance(targets, Tensor) and len(inputs)):
        return NoPrediction("its batch is more than a tensor of inputs and one of targets")
    x, y = inputs[:IMAGES], targets[:IMAGES]
    linears = _linears(network, stats)
    if isinstance(linears, str):
        return NoPrediction(linears)
    chain = _Chain(linears, stats)
    if chain.phi is None:
        return NoPrediction("its layers don't all have the same activation, one the theory knows")
    output = _output(network, x)
    if output is None or not chain.gives(x, output):
        return NoPrediction(
            "it does more than pass on the outputs of its linear layers, one after the other"
        )
    weight_layers = tuple(_weight_layer(linear) for linear in linears)
    astray = [n for n, w in zip(chain.names, weight_layers, strict=True) if w is None]
    if astray:
        return NoPrediction(f"the weights or biases of {astray[0]} were not drawn about zero")
    layers = tuple(w for w in weight_layers if w is not None)
    errors = _output_errors(loss_fn, output, y)
    if errors is None:
        return NoPrediction("nothing but zeros comes back from its loss")
    try:
        phi = nonlinearity(chain.phi)
    except UserError:
        return NoPrediction(f"theory can't take {chain.activation} for an activation")
    activations, gradients = chain.measured(x, errors)
    expected = predict(
        phi,
        layers,
        x.detach().flatten(1).double().cpu().numpy(),
        np.zeros(len(x), np.int64),
        # E is a mean over images, so each image's own error is larger by their number.
        output_gradients=errors.double().cpu().numpy() * len(x),
    )
    if not np.isfinite(expected.gradient_rms).all():
        return NoPrediction("its signal leaves the range of numbers")
    return Prediction(
        chain.names, chain.activation, len(x), layers, expected, gradients, activations
    )


def _linears(network: nn.Module, stats: FlowStats) -> list[nn.Linear] | str:
    """Return the linear layers in order of execution, or the reason why there is no such chain."""
    others = sorted({layer.kind for layer in stats.layers if layer.kind != "Linear"})
    if others:
        return f"it has layers of the kind {', '.join(others)}"
    if len(stats.layers) < 2 or any(layer.output is None for layer in stats.layers):
        return "it has fewer than two linear layers, or some that take no part"
    modules = [network.get_submodule(layer.name) for layer in stats.layers]
    linears = [m for m in modules if type(m) is nn.Linear]
    if len(linears) < len(modules):
        return "it has layers that only call themselves linear"
    if any(a.out_features != b.in_features for a, b in pairwise(linears)):
        return "its linear layers don't follow one another"
    return linears


class _Chain:
    """A chain of linear layers with an activation between them, in float64."""

    def __init__(self, linears: list[nn.Linear], stats: FlowStats) -> None:
        self.names = tuple(layer.name for layer in stats.layers)
        self.weights = [linear.weight.detach().double() for linear in linears]
        self.biases = [b if (b := x.bias) is None else b.detach().double() for x in linears]
        *hidden, last = [layer.slopes for layer in stats.layers]
        seen = {slopes.activation if slopes else "linear" for slopes in hidden}
        self.activation = seen.pop() if len(seen) == 1 and last is None else ""
        self.phi = _function(self.activation)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the output of every activation and that of the last layer."""
        assert self.phi is not None
        value = x.detach().double().flatten(1)
        values: list[Tensor] = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            if values:
                value = values[-1] = self.phi(value)
            value = nn.functional.linear(value, weight, bias)
            values.append(value)
        return values

    def gives(self, x: Tensor, output: Tensor) -> bool:
        """Return whether the chain's output equals this one, up to rounding."""
        if x.ndim < 2 or x[0].numel() != self.weights[0].shape[1]:
            return False
        own = self.forward(x)[-1]
        if own.shape != output.shape:
            return False
        return bool((own - output).abs().amax() <= _DIGITS * output.abs().amax())

    def measured(self, x: Tensor, errors: Tensor) -> tuple[Floats, Floats]:
        """Return the RMS of every activation's output, NaN for the last layer, and of dE/dW."""
        with torch.enable_grad():
            self.weights = [w.requires_grad_() for w in self.weights]
            *activations, output = self.forward(x)
            gradients = torch.autograd.grad(output, self.weights, errors.double())
        return (
            np.array([*map(_rms, activations), math.nan]),
            np.array([_rms(g) for g in gradients]),
        )


def _function(name: str) -> Callable[[Tensor], Tensor] | None:
    if name in ACTIVATIONS:
        return ACTIVATIONS[name].function
    # PReLU has a parameter, so it is no plain function.
    return getattr(nn.functional, name, None) if name not in ("", "prelu") else None


def _output(network: nn.Module, x: Tensor) -> Tensor | None:
    """Return the network's output for the images, or None where it needs another batch."""
    twin = copy.deepcopy(network)
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        try:
            output: Any = call(twin, x)
        except (RuntimeError, ValueError, TypeError):
            return None
    return output if isinstance(output, Tensor) else None


def _output_errors(loss_fn: Loss, output: Tensor, targets: Tensor) -> Tensor | None:
    """Return dE/dlogits, or None where there is none."""
    logits = output.detach().requires_grad_()
    with torch.enable_grad():
        loss = loss_fn(logits, targets)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise UserError("the loss is no scalar", do="reduce it, for instance with .mean()")
        (errors,) = torch.autograd.grad(loss, logits)
    return errors if errors.any() and errors.isfinite().all() else None


def _weight_layer(linear: nn.Linear) -> WeightLayer | None:
    """Return the layer in the terms of theory, or None where its weights aren't centred draws."""
    weights, biases = linear.weight.detach().double(), linear.bias
    variance = float(weights.var(correction=0))
    if not variance or not _centred(weights):
        return None
    if biases is not None and not _centred(biases.detach().double()):
        return None
    return WeightLayer(
        linear.in_features,
        linear.out_features,
        linear.in_features * variance,
        0.0 if biases is None else float(biases.detach().double().square().mean()),
    )


def _centred(values: Tensor) -> bool:
    error = float(values.std(correction=0)) / math.sqrt(values.numel())
    return abs(float(values.mean())) <= _OFF_CENTRE * error


def _rms(values: Tensor) -> float:
    return math.sqrt(float(values.detach().double().square().mean()))
