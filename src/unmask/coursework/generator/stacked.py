"""Many small generators side by side, as stacked matrices."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Layer:
    """One fully connected layer of n generators: weight [n, in, out], bias [n, out]."""

    weight: Tensor
    bias: Tensor


class Generators:
    """n networks f_ij from the constant 1 through two hidden ReLU layers to size values each.

    All start from the same weights, Glorot-uniform with zero biases, drawn from generator (on the
    CPU), so that what is found for a pair doesn't depend on the pairs beside it.
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
        """Return what the last layers give, [n, size], and remember what descend needs."""
        values = self.layers[0].weight.new_ones(len(self.layers[0].weight), 1)
        self._inputs = []
        for layer in self.layers:
            if self._inputs:
                values = values.relu()
            self._inputs.append(values)
            values = torch.baddbmm(layer.bias[:, None], values[:, None], layer.weight).squeeze(1)
        return values

    def start_at(self, values: Tensor) -> None:
        """Make them give values, [n, size], by their last bias: pre-training in closed form."""
        self.layers[-1].bias += values - self()

    def errors(self, output_error: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return each layer's inputs [n, in] and errors [n, out] for those of the output.

        Their outer product is the weight's gradient, the errors are the bias's. It belongs to the
        call before.
        """
        found = []
        error = output_error
        for layer, inputs in zip(reversed(self.layers), reversed(self._inputs), strict=True):
            found.append((inputs, error))
            error = torch.bmm(layer.weight, error[..., None]).squeeze(2) * (inputs > 0)
        return found[::-1]

    def descend(self, output_error: Tensor) -> None:
        """Take one step of gradient descent that moves the output by about -output_error.

        The step of each generator is one over the sensitivity of its output to its last layer.
        """
        last = self._inputs[-1]
        rate = 1 / (1 + (last * last).sum(1, keepdim=True))
        for layer, (inputs, error) in zip(self.layers, self.errors(output_error), strict=True):
            step = -rate * error
            layer.weight.baddbmm_(inputs[..., None], step[:, None])
            layer.bias += step

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, bool[n]."""
        self.layers = [Layer(layer.weight[rows], layer.bias[rows]) for layer in self.layers]
        self._inputs = [inputs[rows] for inputs in self._inputs]
