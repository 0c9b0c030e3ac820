"""One net of a sweep in plain PyTorch: the kernel's oracle, and the base of stacked nets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.models.activations import Activation, activation
from unmask.sweep.history import LAYER_STATISTICS
from unmask.sweep.spec import NetSpec

SATURATED, DEAD = 0.05, 0.001
_MOMENTUM = 0.9
_ADAM_BETAS, _ADAM_EPSILON = (0.9, 0.999), 1e-8
_EVALUATION_BATCH = 4096

Layers = list[tuple[Tensor, Tensor]]


class ReferenceNet:
    """A multilayer perceptron with the interface of the native net and autograd's gradients.

    Args:
        spec: the net.
        parameters: one (W[n_in, n_out], b[n_out]) a layer, copied.
        train_pixels: uint8[n, d], read as pixels / 255.
        train_labels: int64[n], 0 to classes - 1.
        classes: how many.
        device: any of PyTorch's.
        dtype: of all computations but probe; float64 makes it an oracle.
    """

    def __init__(
        self,
        spec: NetSpec,
        parameters: Iterable[tuple[NDArray[Any], NDArray[Any]]],
        train_pixels: NDArray[np.uint8],
        train_labels: NDArray[np.int64],
        classes: int,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._spec, self._classes = spec, classes
        self._activation = activation(spec.activation)
        self._device, self._dtype = torch.device(device), dtype
        self._layers: Layers = [
            (self._parameter(weights), self._parameter(biases)) for weights, biases in parameters
        ]
        self._pixels, self._labels = self._on_device(train_pixels), self._on_device(train_labels)
        self._update = UPDATES[spec.optimizer](flat(self._layers), spec.learning_rate)
        self._steps = 0

    def train(self, order: NDArray[np.uint32]) -> tuple[float, float, int]:
        """Train one epoch, in mini-batches of the images in that order; the last may be short.

        Args:
            order: uint32[m] into the training images.

        Returns:
            The mean loss and the accuracy over the images, each measured before its mini-batch's
            update, and -1. At a loss that is not finite the updates end, and the result is NaN, NaN
            and that step, counted from 1 over the net's life.
        """
        loss_sum, right = 0.0, 0
        index = self._on_device(order.astype(np.int64))
        for batch in torch.split(index, self._spec.batch_size):
            self._steps += 1
            labels = self._labels[batch]
            logits = self._logits(self._pixels[batch])
            loss = self._loss(logits, labels)
            if not math.isfinite(loss.item()):
                return math.nan, math.nan, self._steps
            self._update(torch.autograd.grad(loss, flat(self._layers)))
            loss_sum += loss.item() * len(batch)
            right += _right(logits, labels)
        return loss_sum / len(order), right / len(order), -1

    @torch.no_grad()
    def evaluate(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> tuple[float, float]:
        """Return the mean loss and the accuracy; of equal outputs the first is predicted.

        Args:
            pixels: uint8[m, d].
            labels: int64[m].
        """
        loss_sum, right = 0.0, 0
        batches = zip(
            torch.split(self._on_device(pixels), _EVALUATION_BATCH),
            torch.split(self._on_device(labels), _EVALUATION_BATCH),
            strict=True,
        )
        for some_pixels, some_labels in batches:
            logits = self._logits(some_pixels)
            loss_sum += self._loss(logits, some_labels).item() * len(some_labels)
            right += _right(logits, some_labels)
        return loss_sum / len(labels), right / len(labels)

    def gradients(
        self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]
    ) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Return dE/dW and dE/db of every layer, E the mean loss over these images.

        Args:
            pixels: uint8[m, d].
            labels: int64[m].
        """
        logits = self._logits(self._on_device(pixels))
        loss = self._loss(logits, self._on_device(labels))
        return _pairs(torch.autograd.grad(loss, flat(self._layers)))

    def probe(
        self,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64],
        dead_pixels: NDArray[np.uint8],
    ) -> dict[str, NDArray[np.float64]]:
        """Return every statistic of LAYER_STATISTICS as float64[layers]; see SweepHistory.

        It is computed in float64 whatever the net's own precision, so that no gradient underflows.

        Args:
            pixels: uint8[m, d], of the mini-batch.
            labels: int64[m].
            dead_pixels: uint8[k, d], over which units are judged dead.
        """
        inputs = (self._on_device(pixels), self._on_device(labels), self._on_device(dead_pixels))
        return layer_statistics(self._spec, self._layers, *inputs)

    def parameters(self) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Return a copy of every layer's (W, b) in the net's precision."""
        return _pairs(flat(self._layers))

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), device=self._device)

    def _parameter(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.tensor(array, dtype=self._dtype, device=self._device)
        return tensor.requires_grad_()

    def _logits(self, pixels: Tensor) -> Tensor:
        return fields(self._activation, self._layers, pixels.to(self._dtype) / 255)[-1]

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return mean_loss(self._spec.loss, logits, labels)


def fields(f: Activation, layers: Layers, inputs: Tensor) -> list[Tensor]:
    """Return v = y @ W + b of every layer, y being the output of the one before.

    Args:
        f: the activation of the hidden layers.
        layers: their weights and biases.
        inputs: [..., m, d], in [0, 1].

    Returns:
        [..., m, n_out] for each layer; the last are the logits.
    """
    (weights, biases), *later = layers
    values = [inputs @ weights + biases]
    for weights, biases in later:
        values.append(f.function(values[-1]) @ weights + biases)
    return values


def mean_loss(name: str, logits: Tensor, labels: Tensor) -> Tensor:
    """Return [...], the mean over the images of a loss on the softmax of the logits.

    Args:
        name: "cross_entropy", or "half_squared", 1/2 sum (T - y)^2 on the softmax outputs y.
        logits: [..., m, classes].
        labels: int64[..., m].
    """
    if name == "cross_entropy":
        by_class = -logits.log_softmax(-1)
        return by_class.gather(-1, labels.unsqueeze(-1)).squeeze(-1).mean(-1)
    targets = torch.nn.functional.one_hot(labels, logits.shape[-1])
    return 0.5 * (targets - logits.softmax(-1)).square().sum(-1).mean(-1)


def layer_statistics(
    spec: NetSpec, own: Layers, pixels: Tensor, labels: Tensor, dead_pixels: Tensor
) -> dict[str, NDArray[np.float64]]:
    """Return the statistics of ReferenceNet.probe for a net's layers.

    Args:
        spec: the net.
        own: its weights and biases.
        pixels: uint8[m, d], on the same device.
        labels: int64[m], likewise.
        dead_pixels: uint8[k, d], likewise.
    """
    f = activation(spec.activation)
    layers = [
        (w.detach().double().requires_grad_(), b.detach().double().requires_grad_()) for w, b in own
    ]
    *hidden, logits = fields(f, layers, pixels.double() / 255)
    loss = mean_loss(spec.loss, logits, labels)
    gradients = [dw.abs() for dw in torch.autograd.grad(loss, [w for w, _ in layers])]
    outputs = [*(f.function(v) for v in hidden), logits.softmax(1)]
    slopes = [f.derivative(v).abs() for v in hidden]
    *dead_hidden, _ = fields(f, layers, dead_pixels.double() / 255)
    dead = [
        (f.derivative(v).abs() < DEAD * f.lipschitz).all(0).double().mean() for v in dead_hidden
    ]
    none = logits.new_tensor(math.nan)
    statistics = {
        "gradient_max": [g.max() for g in gradients],
        "gradient_mean": [g.mean() for g in gradients],
        "gradient_rms": [_rms(g) for g in gradients],
        "activation_rms": [_rms(y) for y in outputs],
        "slope_mean_square": [*((s * s).mean() for s in slopes), none],
        "saturated": [*((s < SATURATED * f.lipschitz).double().mean() for s in slopes), none],
        "dead": [*dead, none],
    }
    return {k: torch.stack(statistics[k]).detach().cpu().numpy() for k in LAYER_STATISTICS}


Update = Callable[[Sequence[Tensor]], None]
Rate = float | Tensor


def _sgd(parameters: Sequence[Tensor], rate: Rate) -> Update:
    @torch.no_grad()
    def update(gradients: Sequence[Tensor]) -> None:
        for p, g in zip(parameters, gradients, strict=True):
            p -= rate * g

    return update


def _momentum(parameters: Sequence[Tensor], rate: Rate) -> Update:
    velocities = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def update(gradients: Sequence[Tensor]) -> None:
        for p, u, g in zip(parameters, velocities, gradients, strict=True):
            u.copy_(_MOMENTUM * u + g)
            p -= rate * u

    return update


def _adam(parameters: Sequence[Tensor], rate: Rate) -> Update:
    """Return the update of Kingma and Ba 2015, algorithm 1."""
    beta1, beta2 = _ADAM_BETAS
    means = [torch.zeros_like(p) for p in parameters]
    squares = [torch.zeros_like(p) for p in parameters]
    # On the device, where a recorded step can increment it.
    t = torch.zeros((), dtype=torch.float64, device=parameters[0].device)

    @torch.no_grad()
    def update(gradients: Sequence[Tensor]) -> None:
        t.add_(1)
        for p, m, s, g in zip(parameters, means, squares, gradients, strict=True):
            m.copy_(beta1 * m + (1 - beta1) * g)
            s.copy_(beta2 * s + (1 - beta2) * g * g)
            m_hat, s_hat = m / (1 - beta1**t), s / (1 - beta2**t)
            p -= rate * m_hat / (s_hat.sqrt() + _ADAM_EPSILON)

    return update


UPDATES: dict[str, Callable[[Sequence[Tensor], Rate], Update]] = {
    "sgd": _sgd,
    "momentum": _momentum,
    "adam": _adam,
}


def flat(layers: Layers) -> list[Tensor]:
    """Return W and b of every layer in turn."""
    return [tensor for layer in layers for tensor in layer]


def _pairs(tensors: Sequence[Tensor]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    arrays = [t.detach().cpu().numpy().copy() for t in tensors]
    return list(zip(arrays[::2], arrays[1::2], strict=True))


def _right(logits: Tensor, labels: Tensor) -> int:
    return int((logits.argmax(1) == labels).sum().item())


def _rms(x: Tensor) -> Tensor:
    """Return the root mean square; scaled by the peak, so that no square underflows."""
    peak = x.abs().max()
    return peak * (x / peak).square().mean().sqrt() if peak > 0 else peak
