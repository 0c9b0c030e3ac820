"""The predicted RMS of activations and gradients in every layer of a finite random network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unmask.flow.theory.gaussian import Floats, Nonlinearity, Phi, nonlinearity
from unmask.runtime import seeded

if TYPE_CHECKING:
    from unmask.sweep.spec import NetSpec

_DRAWS, _STREAM = 256, 7
_LOG10_RMS = 0.5 / math.log(10)


@dataclass(frozen=True)
class WeightLayer:
    """A fully connected layer with random weights.

    Args:
        fan_in: its number of inputs.
        fan_out: its number of outputs.
        sigma_w2: fan_in Var(w).
        sigma_b2: Var(b).
    """

    fan_in: int
    fan_out: int
    sigma_w2: float
    sigma_b2: float = 0.0


@dataclass(frozen=True)
class Profile:
    """The expected figures of a random network, float64[layers] each, the softmax layer last.

    Args:
        activation_rms: the RMS of a layer's outputs, as SweepHistory measures it: a geometric mean
            over seeds.
        gradient_rms: the RMS of |dE/dW| over a layer's weights for the images' mean loss, likewise.
        activation_spread: the standard deviation over seeds of log10 of activation_rms, NaN for the
            softmax outputs.
        gradient_spread: the standard deviation over seeds of log10 of gradient_rms.
    """

    activation_rms: Floats
    gradient_rms: Floats
    activation_spread: Floats
    gradient_spread: Floats

    def gradient_band(self, deviations: float = 2.0) -> tuple[Floats, Floats]:
        """Return gradient_rms that many standard deviations (of log10) below and above."""
        factor = 10 ** (deviations * self.gradient_spread)
        return self.gradient_rms / factor, self.gradient_rms * factor


def weight_layers(spec: NetSpec, inputs: int, classes: int) -> tuple[WeightLayer, ...]:
    """Return the layers that a spec's initialisation draws, the softmax layer last.

    Glorot's sigma_w2 is 2 fan_in / (fan_in + fan_out), so its first and last layers differ from the
    rest; for an orthogonal layer that widens it is fan_in / fan_out.

    Args:
        spec: depth, width and initialisation.
        inputs: values of an image.
        classes: outputs of the softmax layer.
    """
    sizes = [inputs, *[spec.width] * spec.depth, classes]
    return tuple(
        WeightLayer(n_in, n_out, _sigma_w2(spec, n_in, n_out), spec.sigma_b2 or 0.0)
        for n_in, n_out in itertools.pairwise(sizes)
    )


def predict(
    phi: Phi,
    layers: Sequence[WeightLayer],
    inputs: NDArray[Any],
    labels: NDArray[np.int64],
    *,
    loss: str = "cross_entropy",
    output_gradients: NDArray[Any] | None = None,
) -> Profile:
    """Return the profile of random networks of these layers on a mini-batch, from theory alone.

    In a wide network the covariance of two images in each layer, and that of their back-propagated
    errors, are fixed (Schoenholz et al. 2017; Jacot et al. 2018), and the mean square of dE/dW is
    the mean over all pairs of their product. The spread over seeds follows, to first order, from
    the fluctuations that the finite width adds in every layer (Hanin and Nica 2020 for ReLU);
    orthogonal layers fluctuate less than that. The theory doesn't cover a signal that grows from
    layer to layer about a mean other than zero, such as softplus's under He's initialisation.

    Args:
        phi: the activation function of the hidden layers, see nonlinearity.
        layers: from the input to the softmax layer.
        inputs: float[images, fan_in], as the network receives them; only the products between
            images matter, so one image with the right mean square predicts the gradient of a single
            image.
        labels: int64[images], in [0, classes).
        loss: "cross_entropy" or "half_squared".
        output_gradients: dE/dlogits of each image's own loss, float[images, classes]; None takes
            their expectation over random networks from loss and labels.
    """
    phi = nonlinearity(phi)
    x = np.asarray(inputs, np.float64)
    outputs = [x @ x.T / x.shape[1]]
    hidden = []
    for layer in layers[:-1]:
        hidden.append(_hidden_layer(phi, layer.sigma_w2 * outputs[-1] + layer.sigma_b2))
        outputs.append(hidden[-1].outputs)
    last = layers[-1]
    logits = last.sigma_w2 * outputs[-1] + last.sigma_b2
    draws, output_rms = _softmax_errors(logits, labels, last.fan_out, loss)
    if output_gradients is not None:
        draws = np.asarray(output_gradients, np.float64)[None]
    squares, arriving = _backward(layers, outputs, hidden, _products(draws))
    likeness = _likeness(outputs, hidden, arriving)
    forward, backward = _fluctuations(phi, layers, hidden, likeness)
    shift, spread = _fluctuation_of_errors(draws, outputs[-1])
    means = np.array([np.diagonal(product).mean() for product in outputs[1:]])
    return Profile(
        activation_rms=np.append(np.sqrt(means) * np.exp(-forward / 4), output_rms),
        gradient_rms=np.exp((squares + shift) / 2 - backward / 4),
        activation_spread=np.append(np.sqrt(forward) * _LOG10_RMS, math.nan),
        gradient_spread=np.sqrt(backward + spread) * _LOG10_RMS,
    )


@dataclass(frozen=True)
class _Hidden:
    """A hidden layer's expectations over pairs of images, float64[images, images] each.

    Args:
        variance: of its pre-activations v, the mean over the images.
        correlations: of v.
        outputs: the products of phi(v).
        slopes: the products of phi'(v).
    """

    variance: float
    correlations: Floats
    outputs: Floats
    slopes: Floats


def _hidden_layer(phi: Nonlinearity, fields: Floats) -> _Hidden:
    q = np.diagonal(fields)
    values, slopes = phi.expand(q)
    c = _correlations(fields)
    return _Hidden(float(q.mean()), c, values.products(c), slopes.products(c))


def _correlations(products: Floats) -> Floats:
    squares = np.diagonal(products)
    norms = np.sqrt(np.outer(squares, squares))
    return np.clip(np.divide(products, norms, where=norms > 0, out=np.eye(len(norms))), -1, 1)


def _mean_unlike(values: Floats) -> float:
    """Return the mean over the pairs of different images, or 1 where there is only one."""
    n = len(values)
    return float((values.sum() - np.trace(values)) / (n * (n - 1))) if n > 1 else 1.0


def _softmax_errors(
    logits: Floats, labels: NDArray[np.int64], classes: int, loss: str
) -> tuple[Floats, float]:
    """Return draws of dE/dlogits, float64[draws, images, classes], and the softmax outputs' RMS.

    Args:
        logits: their covariance, float64[images, images], equal for all classes; logits of
            different classes are independent.
    """
    values, vectors = np.linalg.eigh(logits)
    root = vectors * np.sqrt(np.maximum(values, 0))
    z = root @ seeded(0, _STREAM).standard_normal((_DRAWS, len(root), classes))
    y = np.exp(z - z.max(2, keepdims=True))
    y /= y.sum(2, keepdims=True)
    error: Floats = y - np.eye(classes)[labels]
    if loss == "half_squared":
        error = y * (error - (y * error).sum(2, keepdims=True))
    return error, math.sqrt(np.mean(y * y))


def _products(draws: Floats) -> Floats:
    """Return the mean over draws of the products of images' errors."""
    products: Floats = np.tensordot(draws, draws, ((0, 2), (0, 2))) / len(draws)
    return products


def _fluctuation_of_errors(draws: Floats, outputs: Floats) -> tuple[float, float]:
    """Return how the drawn errors make ln of the last layer's mean square of dE/dW fluctuate.

    Returns:
        The mean of that logarithm less ln of the mean square's mean, and its variance.
    """
    squares = (draws * (outputs @ draws)).sum((1, 2))
    if not (squares > 0).all():
        return 0.0, 0.0
    logarithms = np.log(squares / squares.mean())
    return float(logarithms.mean()), float(logarithms.var())


def _backward(
    layers: Sequence[WeightLayer],
    outputs: Sequence[Floats],
    hidden: Sequence[_Hidden],
    errors: Floats,
) -> tuple[Floats, list[Floats]]:
    """Return ln of the expected mean square of dE/dW by layer, and the errors reaching each layer.

    Args:
        outputs: of the layer below each, the inputs first.
        errors: products of the images' dE/dlogits.

    Returns:
        The logarithms, and for every hidden layer the products of the errors from above, each on
        its own scale.
    """
    scale = 0.0
    squares, arriving = np.empty(len(layers)), []
    for i in range(len(layers) - 1, -1, -1):
        mean_square = float((errors * outputs[i]).mean()) / layers[i].fan_out
        squares[i] = scale + math.log(mean_square) if mean_square > 0 else -math.inf
        if i:
            # Squares of gradients leave the range of floats long before the gradients do.
            peak = float(np.abs(errors).max()) or 1.0
            errors, scale = errors / peak, scale + math.log(peak)
            arriving.append(errors)
            errors = layers[i].sigma_w2 * errors * hidden[i - 1].slopes
    return squares, arriving[::-1]


def _likeness(
    outputs: Sequence[Floats], hidden: Sequence[_Hidden], arriving: Sequence[Floats]
) -> Floats:
    """Return how alike the images' contributions to a gradient are, float64[2, hidden].

    It is 1 where they differ by a factor only and 1 / n where n equal contributions have nothing in
    common. The first row is for the gradient of the layer's own weights, the second for that of
    layer 1's.
    """
    found = np.ones((2, len(hidden)))
    down = outputs[0]
    for k, (layer, errors) in enumerate(zip(hidden, arriving, strict=True)):
        down = down * layer.slopes
        down = down / (np.abs(down).max() or 1.0)
        for row, products in enumerate((outputs[k] * layer.slopes, down)):
            shares = products @ errors
            shares = shares / (np.abs(shares).max() or 1.0)
            whole = np.trace(shares)
            if whole > 0:
                found[row, k] = (shares * shares.T).sum() / whole**2
    return np.clip(found, 0, 1)


def _fluctuations(
    phi: Nonlinearity,
    layers: Sequence[WeightLayer],
    hidden: Sequence[_Hidden],
    likeness: Floats,
) -> tuple[Floats, Floats]:
    """Return the variance over seeds of ln of the mean square of outputs[hidden] and dE/dW[layers].

    Hidden layer k adds, with a variance that falls as 1 / width, a relative fluctuation u_k to the
    mean square of its outputs and b_k to that of the errors it passes back. u_k changes the
    variance q of all later layers, and with it what they pass forward and back. Images that differ
    fluctuate independently, so their mean fluctuates less.
    """
    depth = len(hidden)
    new, both, carry, bend = np.zeros((4, depth))
    back = np.zeros((2, depth))
    for k, layer in enumerate(hidden):
        samples = phi.sample(layer.variance)
        squares = np.concatenate([samples.value**2, samples.slope**2])
        means = samples.mean(squares)
        if layer.variance == 0 or not means.all():
            continue
        from_weights = 1 - layers[k].sigma_b2 / layer.variance
        carry[k], bend[k] = samples.elasticity(squares) * from_weights
        series = samples.series(squares / means[:, None])
        same = 1 / len(layer.correlations)
        ((uu, ub), (_, bb)) = series.products(np.ones((2, 2)))
        ((vv, vc), (_, cc)) = series.products(np.full((2, 2), _mean_unlike(layer.correlations)))
        new[k] = (same * uu + (1 - same) * vv - 1) / layers[k].fan_out
        both[k] = (same * ub + (1 - same) * vc - 1) / layers[k].fan_out
        alike = likeness[:, k]
        back[:, k] = (alike * 3 * bb + (1 - alike) * cc - 1) / layers[k].fan_out
    # reach[k, l]: how much of u_k = 1 is in the outputs of layer l; bent[k, l]: in its slopes.
    reach, bent = np.zeros((depth, depth)), np.zeros((depth, depth + 1))
    for k in range(depth):
        reach[k, k:] = np.cumprod([1.0, *carry[k + 1 :]])
        bent[k, k + 1 : depth] = reach[k, k : depth - 1] * bend[k + 1 :]
    forward = (reach**2 * new[:, None]).sum(0)
    above = bent[:, ::-1].cumsum(1)[:, ::-1]
    backward = np.empty(depth + 1)
    order = np.arange(depth)
    for l in range(depth + 1):
        part = above[:, l] + (reach[:, l - 1] if l else 0.0)
        further = (order - l) / np.maximum(order, 1)
        passed = back[0] + (back[1] - back[0]) * further + 2 * part * both
        backward[l] = (part**2 * new).sum() + passed[l:].sum()
    return forward, np.maximum(backward, 0.0)


def _sigma_w2(spec: NetSpec, n_in: int, n_out: int) -> float:
    if spec.init == "mean_field":
        return spec.sigma_w2 or 0.0
    if spec.init == "orthogonal":
        return min(1.0, n_in / n_out)
    family = spec.init.partition("_")[0]
    return {"glorot": 2 * n_in / (n_in + n_out), "he": 2.0, "lecun": 1.0}[family]
