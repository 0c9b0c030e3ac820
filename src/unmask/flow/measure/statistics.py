"""A network's gradient flow at one training step: scalars, layer by layer."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from unmask.flow.measure.calls import Cut, LossCall, OutputStats
from unmask.flow.measure.magnitude import Magnitude

if TYPE_CHECKING:
    pass

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SATURATED_BELOW, DEAD_BELOW = 0.05, 0.001
# With a momentum below this batch normalisation hardly leaves the statistics that it begins with.
NEVER = 5e-4
# Codes, such as those of a text's words, are 0 but for this few of their entries, which have at
# least this size.
SPARSE, SMALL = 0.9, 0.02


@dataclass(frozen=True)
class Slopes:
    """The derivative phi' of the activation that follows a layer, over units and images.

    Args:
        activation: its name.
        quantiles: of |phi'|, at QUANTILES.
        rms: sqrt(E[phi'^2]).
        supremum: the largest |phi'| that the activation can have.
        saturated: the fraction of (unit, image) pairs with |phi'| below 5 % of the supremum.
        dead: the fraction of units with |phi'| below 0.1 % of the supremum for each of the last
            dead_pictures images.
        dead_pictures: the number of those images.
    """

    activation: str
    quantiles: tuple[float, ...]
    rms: float
    supremum: float
    saturated: float
    dead: float
    dead_pictures: int


@dataclass(frozen=True)
class LayerStats:
    """One layer at one step; what could not be measured is None.

    For large batches, output, output_gradient and slopes are taken over the first images.

    Args:
        name: as in named_modules.
        kind: the class of the module.
        matrix: whether the layer mixes units (linear, convolution, attention, ...), rather than
            being a gain or a norm.
        frozen: whether none of its weights is trained.
        fan_in: the inputs of one unit.
        weight: of W.
        weight_gradient: of dE/dW.
        weight_spread: the standard deviation over units of the weights relative to their RMS; 0
            when all units are alike.
        gradient_spread: the same of the weights' gradients.
        output: of z = Wx + b, before the activation.
        output_size: entries of z an image.
        output_gradient: of dE/dz.
        variation: the standard deviation of z over images, relative to the RMS of z.
        spread: the standard deviation of z over units, relative to the RMS of z.
        slopes: of the activation that follows.
        update_to_weight_ratio: RMS(change of W) / RMS(W), measured around the optimiser's step.
        expected_gain: the decrease of the loss to first order, -sum dE/dW * change of W.
        beside: the first layer that reads the same tensor, where this is not the first.
        matched: of several weights W, as a mean and a deviation, the sum of |dE/dW| |W| over the
            product of their joint norms, at most 1.
        drawn: whether it is frozen and looks freshly initialised, None where that can't be told;
            see drawn.drawn.
    """

    name: str
    kind: str
    matrix: bool
    frozen: bool
    fan_in: int
    weight: Magnitude | None = None
    weight_gradient: Magnitude | None = None
    weight_spread: float | None = None
    gradient_spread: float | None = None
    output: Magnitude | None = None
    output_size: int = 0
    output_gradient: Magnitude | None = None
    variation: float | None = None
    spread: float | None = None
    slopes: Slopes | None = None
    update_to_weight_ratio: float | None = None
    expected_gain: float | None = None
    beside: str | None = None
    matched: float = 1.0
    drawn: bool | None = False

    @property
    def units(self) -> int:
        """Return the number of units, 0 where the weights were not measured."""
        return self.weight.count // self.fan_in if self.weight is not None else 0

    def feeds(self, after: LayerStats) -> bool:
        """Return whether a layer's outputs can be another one's inputs, by their number."""
        return self.output_size == after.fan_in


@dataclass(frozen=True)
class InputStats:
    """The input of the first layer that mixes units.

    Args:
        mean: of the entries.
        std: their standard deviation.
        maximum: of |x|.
        variation: the standard deviation over images relative to the RMS, None for one image.
        computed: whether another network computed it.
        images: how many there were.
        drowned: of a table, the fraction of the columns of numbers that vary by less than a
            hundredth of the one that varies most; None for images.
        zero: the fraction of the entries that are exactly 0.
    """

    mean: float
    std: float
    maximum: float
    variation: float | None = None
    computed: bool = False
    images: int = 1
    drowned: float | None = None
    zero: float = 0.0

    def joined(self, other: InputStats) -> InputStats:
        """Return the statistics of these images and of others together."""
        images = self.images + other.images
        share = other.images / images
        mean = (1 - share) * self.mean + share * other.mean
        square = sum(
            part * (x.mean**2 + x.std**2) for part, x in ((1 - share, self), (share, other))
        )
        deviation, largest = (
            math.sqrt(max(square - mean * mean, 0.0)),
            max(self.maximum, other.maximum),
        )
        computed, zero = self.computed or other.computed, min(self.zero, other.zero)
        return InputStats(mean, deviation, largest, None, computed, images, zero=zero)

    @property
    def coded(self) -> bool:
        """Return whether these are codes, as of a text's words: few entries are other than 0."""
        size = math.hypot(self.mean, self.std)
        return SPARSE < self.zero < 1 and size > SMALL * math.sqrt(1 - self.zero)


@dataclass(frozen=True)
class Experiments:
    """Outcomes of changing a batch, each None where it could not be tried.

    Args:
        mixed: the fraction of an output's input gradient that belongs to other images of the batch,
            0 where images don't mix.
        swapped: the relative change of the loss when the images are permuted and their labels
            aren't.
        through_time: the gradient of a recurrent layer's first inputs over that of its last.
        severed: the fraction of the places of an image, or of the times of a sequence, that the
            output depends on and whose gradient is exactly 0.
        affine: how far the network is from a linear function of its images, 0 where it is one.
        random: how much the outputs of the same images differ in evaluation mode.
        linear: the accuracy of a linear fit on held-out images of the batches.
        chance: the accuracy of always predicting the most common class.
        nearest: the accuracy of predicting each image's label by the image that is nearest to it.
        images: the number of images of the fit.
        leak: where a word's target is the next word, the fraction of its output's gradient that
            belongs to later words.
        unshifted: whether a word's target is that word, which its output depends on, and on earlier
            ones, and not on later ones.
        read: the fraction of an output's gradient that comes to the words of texts, and not to
            their padding.
        last: the same of a model with recurrent layers, and the fraction of the places that hold
            words.
        place: how much an output changes with its image's place in the batch, over how much the
            outputs of images differ.
    """

    mixed: float | None = None
    swapped: float | None = None
    through_time: float | None = None
    severed: float | None = None
    affine: float | None = None
    random: float | None = None
    linear: float | None = None
    chance: float | None = None
    nearest: float | None = None
    images: int = 0
    leak: float | None = None
    unshifted: bool = False
    read: float | None = None
    last: tuple[float, float] | None = None
    place: float | None = None


@dataclass(frozen=True)
class Origin:
    """The source of the first NaN or infinity: an operation, the inputs or the weights.

    Args:
        place: "forward", "backward", "inputs", "targets", "weights", or "factors" of the loss.
        operation: its name in torch, "" where there is none.
        layer: that it belongs to, None where it isn't known.
        location: "file:line" in the user's code, likewise.
        infinite: whether the first was an infinity rather than NaN.
        half: whether it arose in float16, which ends at 65,504.
    """

    place: str
    operation: str = ""
    layer: str | None = None
    location: str | None = None
    infinite: bool = False
    half: bool = False


@dataclass(frozen=True)
class Dropped:
    """A dropout layer.

    Args:
        name: of the layer.
        rate: the probability of dropping a unit.
        kept: how many units of an image it keeps on average.
    """

    name: str
    rate: float
    kept: float


@dataclass(frozen=True)
class ParameterFacts:
    """The trainable tensors in a step; all entries but the numbers are names.

    Args:
        trainable: all trainable tensors.
        unheld: in no optimiser that stepped.
        unreached: without a gradient, not even one of zeros.
        still: with a gradient, but unchanged by the step.
        zero: with a gradient of zeros only.
        null: matrices of those whose entries are all 0 too.
        shared: in two optimisers.
        uncalled: layers that took no part in the forward pass.
        unregistered: attributes that hold weights, which no optimiser finds.
        strangers: modules with weights that ran inside the model without being part of it, each
            with its line.
        repeated: lists of modules that hold one module several times, and call it so on one tensor.
        foreign: the number of tensors that optimisers hold and the model doesn't.
        carried: whether the gradients still held those of an earlier step.
        scaled: the small factor by which gradients were multiplied between the backward pass and
            the step, other than by clipping, or None.
        half: whether a weight that stayed unchanged is in half precision.
        float16: whether layers compute in float16.
        rounded: the fraction of half-precision weights with a gradient that the step left as they
            were, None where there are none.
        memory: the largest momentum, or first beta, of the optimisers.
        decay: the weight decay added to gradients, relative to the gradients' own size.
        location: "file:line" of the step in the user's code.
        sent_back: that of the backward pass.
    """

    trainable: tuple[str, ...] = ()
    unheld: tuple[str, ...] = ()
    unreached: tuple[str, ...] = ()
    still: tuple[str, ...] = ()
    zero: tuple[str, ...] = ()
    null: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    uncalled: tuple[str, ...] = ()
    unregistered: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    foreign: int = 0
    carried: bool = False
    scaled: float | None = None
    half: bool = False
    float16: bool = False
    rounded: float | None = None
    memory: float = 0.0
    decay: float | None = None
    location: str | None = None
    sent_back: str | None = None


@dataclass(frozen=True)
class FlowStats:
    """The gradient flow of a network at one step.

    Args:
        step: from 0.
        layers: in order of execution.
        input: of the first layer that mixes units.
        loss: before the step, where it is known; the sum over backward passes.
        passes: backward passes since the step before, 0 where they weren't watched.
        loss_after: on the same batch after the step, where it is known.
        optimizer: its class, None before any optimiser has stepped.
        learning_rate: likewise.
        output: of the whole model.
        calls: of losses, where they were watched.
        cuts: places where the graph is cut.
        parameters: of the step, where they were watched.
        momentum: the name and the momentum of the batch normalisation whose running statistics
            are updated least sensibly: with a momentum of 0, else with the largest.
        maximises: whether an optimiser steps up the gradient.
        values_a_channel: the least number of values that a batch normalisation was given.
        dropout: the dropout layer that keeps the fewest units.
        experiments: the outcomes of changing the batch.
        origin: of the first NaN or infinity.
    """

    step: int
    layers: tuple[LayerStats, ...]
    input: InputStats | None = None
    loss: float | None = None
    passes: int = 1
    loss_after: float | None = None
    optimizer: str | None = None
    learning_rate: float | None = None
    output: OutputStats | None = None
    calls: tuple[LossCall, ...] = ()
    cuts: tuple[Cut, ...] = ()
    parameters: ParameterFacts | None = None
    values_a_channel: int | None = None
    momentum: tuple[str, float] | None = None
    maximises: bool = False
    dropout: Dropped | None = None
    experiments: Experiments | None = None
    origin: Origin | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the statistics as plain values, fit for JSON except for NaN and infinity."""
        return asdict(self)

    @property
    def matrix_layers(self) -> tuple[LayerStats, ...]:
        """Return the layers that mix units, from the input to the output."""
        return tuple(layer for layer in self.layers if layer.matrix)
