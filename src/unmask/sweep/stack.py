"""Nets of one shape trained at once in plain PyTorch, with one CUDA graph for a step of all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.models.activations import activation
from unmask.sweep.init import LayerParameters
from unmask.sweep.reference import (
    UPDATES,
    Layers,
    fields,
    flat,
    layer_statistics,
    mean_loss,
)
from unmask.sweep.spec import NetSpec

_MOST_NETS, _MOST_FLOATS = 512, 1 << 29
_EVALUATION_FLOATS = 1 << 26
_WARM_UPS = 3


def stackable(spec: NetSpec) -> tuple[object, ...]:
    """Return what nets must have in common to be stacked: all but initialisation, rate and seed."""
    shape = (spec.depth, spec.width, spec.activation)
    return (*shape, spec.loss, spec.optimizer, spec.batch_size, spec.epochs)


def most_in_a_stack(spec: NetSpec, inputs: int) -> int:
    """Return how many such nets fit into about 2 GB, from 1 to 512.

    Args:
        spec: of each.
        inputs: values of an image.
    """
    weights = spec.width * (inputs + spec.depth * spec.width)
    values = spec.batch_size * (inputs + spec.depth * spec.width)
    return max(1, min(_MOST_NETS, _MOST_FLOATS // (4 * weights + 3 * values)))


class StackedNets:
    """The operations of ReferenceNet for k nets at once, whose specs are stackable.

    Args:
        specs: of the nets.
        parameters: of each net, one (W[n_in, n_out], b[n_out]) a layer, copied.
        train_pixels: uint8[n, d], read as pixels / 255.
        train_labels: int64[n].
        device: any of PyTorch's.
        stop: uint8[1]; when it turns to 1 training ends within a step and its figures are
            meaningless.
        dtype: of all computations but probe.
    """

    def __init__(
        self,
        specs: Sequence[NetSpec],
        parameters: Iterable[Iterable[LayerParameters]],
        train_pixels: NDArray[np.uint8],
        train_labels: NDArray[np.int64],
        *,
        device: str | torch.device,
        stop: NDArray[np.uint8],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._spec, self._device, self._dtype = specs[0], torch.device(device), dtype
        self._activation, self._stop = activation(self._spec.activation), stop
        layers = zip(*parameters, strict=True)
        self._layers: Layers = [
            (
                self._parameter(np.stack([w for w, _ in layer])),
                self._parameter(np.stack([b for _, b in layer])[:, None]),
            )
            for layer in layers
        ]
        self._pixels, self._labels = self._on_device(train_pixels), self._on_device(train_labels)
        rates = np.array([s.learning_rate for s in specs])
        rate = torch.from_numpy(rates).to(dtype).to(self._device).view(-1, 1, 1)
        self._update = UPDATES[self._spec.optimizer](flat(self._layers), rate)
        none = torch.zeros(len(specs), dtype=torch.float64, device=self._device)
        self._loss_sums, self._right = none.clone(), none.clone()
        self._steps, self._broken_at = torch.zeros_like(none[0]), none.clone()
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def train(self, orders: NDArray[np.uint32]) -> list[tuple[float, float, int]]:
        """Train one epoch and return what ReferenceNet.train does for every net.

        A net whose loss is not finite must not be used any more; the others aren't affected by it.

        Args:
            orders: uint32[k, m], for each net into the training images.

        Returns:
            Mean loss, accuracy and the diverged step or -1, for each net.
        """
        self._loss_sums.zero_()
        self._right.zero_()
        index = self._on_device(orders.astype(np.int64))
        for batch in torch.split(index, self._spec.batch_size, dim=1):
            if self._stop[0]:
                break
            if self._device.type == "cuda":
                self._replay(batch)
            else:
                self._step(batch)
        count = orders.shape[1]
        figures = torch.stack([self._loss_sums / count, self._right / count, self._broken_at])
        return [
            (math.nan, math.nan, int(broken_at)) if broken_at else (loss, right, -1)
            for loss, right, broken_at in figures.T.tolist()
        ]

    @torch.no_grad()
    def evaluate(
        self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]
    ) -> list[tuple[float, float]]:
        """Return every net's mean loss and accuracy.

        Args:
            pixels: uint8[m, d].
            labels: int64[m].
        """
        nets, inputs, _ = self._layers[0][0].shape
        chunk = max(1, _EVALUATION_FLOATS // (nets * max(inputs, self._spec.width)))
        sums = torch.zeros(2, nets, dtype=torch.float64, device=self._device)
        batches = zip(
            torch.split(self._on_device(pixels), chunk),
            torch.split(self._on_device(labels), chunk),
            strict=True,
        )
        for some_pixels, some_labels in batches:
            logits = self._logits(some_pixels)
            wanted = some_labels.expand(nets, -1)
            sums[0] += mean_loss(self._spec.loss, logits, wanted) * len(some_labels)
            sums[1] += (logits.argmax(-1) == wanted).sum(-1)
        return [(loss, right) for loss, right in (sums / len(labels)).T.tolist()]

    def probe(
        self,
        net: int,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64],
        dead_pixels: NDArray[np.uint8],
    ) -> dict[str, NDArray[np.float64]]:
        """Return what ReferenceNet.probe does for one net.

        Args:
            net: its place in the stack, from 0.
            pixels: uint8[m, d], of the mini-batch.
            labels: int64[m].
            dead_pixels: uint8[k, d], over which units are judged dead.
        """
        own = [(w[net], b[net, 0]) for w, b in self._layers]
        inputs = (self._on_device(pixels), self._on_device(labels), self._on_device(dead_pixels))
        return layer_statistics(self._spec, own, *inputs)

    def _step(self, index: Tensor) -> None:
        losses, logits, gradients = self._gradients(index)
        self._steps += 1
        breaks = ~losses.isfinite() & (self._broken_at == 0)
        self._broken_at.copy_(torch.where(breaks, self._steps, self._broken_at))
        self._update(gradients)
        self._loss_sums += losses.detach() * index.shape[1]
        self._right += (logits.argmax(-1) == self._labels[index]).sum(-1)

    def _gradients(self, index: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        logits = self._logits(self._pixels[index])
        losses = mean_loss(self._spec.loss, logits, self._labels[index])
        return losses, logits, torch.autograd.grad(losses.sum(), flat(self._layers))

    def _replay(self, index: Tensor) -> None:
        size = index.shape[1]
        if size not in self._graphs:
            self._graphs[size] = self._recorded(index.clone())
        graph, place = self._graphs[size]
        place.copy_(index)
        graph.replay()

    def _recorded(self, place: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Return a graph of one step on the images whose indices are in place."""
        with torch.cuda.device(self._device):
            # Libraries initialise themselves at their first calls, which can't be recorded.
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UPS):
                    self._gradients(place)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._step(place)
        return graph, place

    def _logits(self, pixels: Tensor) -> Tensor:
        return fields(self._activation, self._layers, pixels.to(self._dtype) / 255)[-1]

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), device=self._device)

    def _parameter(self, array: NDArray[Any]) -> Tensor:
        return torch.tensor(array, dtype=self._dtype, device=self._device).requires_grad_()
