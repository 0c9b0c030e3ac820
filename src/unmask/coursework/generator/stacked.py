"""Many small generators side by side, as stacked matrices."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Layer:
    """One fully connected layer of n generators.

    Args:
        weight: float[n, in, out].
        bias: float[n, out].
    """

    weight: Tensor
    bias: Tensor


class Generators:
    """n networks f_ij from the constant 1 through two hidden ReLU layers to size values each.

    All start from the same weights, Glorot-uniform with zero biases, so that the result for a pair
    doesn't depend on the pairs beside it.

    Args:
        count: n, the number of networks.
        size: the number of outputs.
        hidden: width of both hidden layers.
        generator: draws the weights, on the CPU.
        like: the dtype and device of the weights are those of this tensor.
    """

    def __init__(
        self, count: int, size: int, *, hidden: int, generator: torch.Generator, like: Tensor
    ) -> None:
        widths = (1, hidden, hidden, size)
        self.layers = []
        for fan_in, fan_out in itertools.pairwise(widths):
            limit = math.sqrt(6 / (fan_in + fan_out))
            drawn = torch.rand(fan_in, fan_out, generator=generator, dtype=torch.float64)
            weight = ((2 * drawn - 1) * limit).to(like).repeat(count, 1, 1)
            self.layers.append(Layer(weight, like.new_zeros(count, fan_out)))
        self._inputs: list[Tensor] = []

    def __call__(self) -> Tensor:
        """Return the outputs of the last layers, float[n, size], and keep what descend needs."""
        values = self.layers[0].weight.new_ones(len(self.layers[0].weight), 1)
        self._inputs = []
        for layer in self.layers:
            if self._inputs:
                values = values.relu()
            self._inputs.append(values)
            values = torch.baddbmm(layer.bias[:, None], values[:, None], layer.weight).squeeze(1)
        return values

    def start_at(self, values: Tensor) -> None:
        """Set the last biases so that the outputs equal values, float[n, size]."""
        self.layers[-1].bias += values - self()

    def errors(self, output_error: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return each layer's inputs and errors, by back-propagation through the call before.

        Args:
            output_error: float[n, size], the gradient at the output.

        Returns:
            For each layer the inputs, float[n, in], and the errors, float[n, out]: their outer
            product is the gradient of the weights, the errors are that of the biases.
        """
        found = []
        error = output_error
        for layer, inputs in zip(reversed(self.layers), reversed(self._inputs), strict=True):
            found.append((inputs, error))
            error = torch.bmm(layer.weight, error[..., None]).squeeze(2) * (inputs > 0)
        return found[::-1]

    def descend(self, output_error: Tensor) -> None:
        """Take one step of gradient descent that moves the output by about -output_error.

        The learning rate of each generator is one over the sensitivity of its output to its last
        layer.

        Args:
            output_error: float[n, size], the gradient at the output.
        """
        last = self._inputs[-1]
        rate = 1 / (1 + (last * last).sum(1, keepdim=True))
        for layer, (inputs, error) in zip(self.layers, self.errors(output_error), strict=True):
            step = -rate * error
            layer.weight.baddbmm_(inputs[..., None], step[:, None])
            layer.bias += step

    def keep(self, rows: Tensor) -> None:
        """Keep only the generators in rows, bool[n]."""
        self.layers = [Layer(layer.weight[rows], layer.bias[rows]) for layer in self.layers]
        self._inputs = [inputs[rows] for inputs in self._inputs]
