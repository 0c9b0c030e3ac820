"""Where a net starts: its parameters and the order of its images, both from its seed alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from unmask.runtime import seeded
from unmask.sweep.spec import NetSpec

LayerParameters = tuple[NDArray[np.float32], NDArray[np.float32]]
Parameters = list[LayerParameters]

_PARAMETER_STREAM, _ORDER_STREAM = 0, 1


def initial_parameters(spec: NetSpec, inputs: int, classes: int) -> Parameters:
    """Return the weights and biases of every layer, the softmax layer last, before training.

    Layer r (from 1) draws from the stream (seed, 0, r), W before b:

    ==============  =====================================================  =========================
    init            W                                                      paper
    ==============  =====================================================  =========================
    glorot_uniform  U(-a, a), a = sqrt(6 / (n_in + n_out))                 Glorot and Bengio 2010
    glorot_normal   N(0, 2 / (n_in + n_out))                               Glorot and Bengio 2010
    he_uniform      U(-a, a), a = sqrt(6 / n_in)                           He et al. 2015
    he_normal       N(0, 2 / n_in)                                         He et al. 2015
    lecun_uniform   U(-a, a), a = sqrt(3 / n_in)                           LeCun et al. 1998
    lecun_normal    N(0, 1 / n_in)                                         LeCun et al. 1998
    orthogonal      Haar: W'W = 1 if n_in >= n_out, otherwise WW' = 1      Saxe, McClelland and
                                                                           Ganguli 2014
    mean_field      N(0, sigma_w2 / n_in); b from N(0, sigma_b2)           Poole et al. 2016
    ==============  =====================================================  =========================

    The second argument of N is the variance, and no normal is truncated. Biases are 0 except for
    mean_field.

    Args:
        spec: the net.
        inputs: values of an image.
        classes: how many.

    Returns:
        One pair a layer: W float32[n_in, n_out], for y @ W + b, and b float32[n_out].
    """
    return list(draw_layers(spec, inputs, classes))


def draw_layers(spec: NetSpec, inputs: int, classes: int) -> Iterator[LayerParameters]:
    """Yield what initial_parameters returns, a layer at a time.

    Args:
        spec: the net.
        inputs: values of an image.
        classes: how many.
    """
    sizes = [inputs, *[spec.width] * spec.depth, classes]
    for layer, (n_in, n_out) in enumerate(itertools.pairwise(sizes), start=1):
        yield _layer(spec, seeded(spec.seed, _PARAMETER_STREAM, layer), n_in, n_out)


def epoch_order(spec: NetSpec, epoch: int, n: int) -> NDArray[np.uint32]:
    """Return the order in which an epoch shows the training images, uint32[n].

    Args:
        spec: the net, of which the seed counts.
        epoch: from 1.
        n: how many images there are.
    """
    return seeded(spec.seed, _ORDER_STREAM, epoch).permutation(n).astype(np.uint32)


def _layer(spec: NetSpec, generator: np.random.Generator, n_in: int, n_out: int) -> LayerParameters:
    biases = np.zeros(n_out, np.float32)
    if spec.init == "orthogonal":
        return _orthogonal(generator, n_in, n_out), biases
    if spec.init == "mean_field":
        weights = _normal(generator, (n_in, n_out), (spec.sigma_w2 or 0.0) / n_in)
        return weights, _normal(generator, (n_out,), spec.sigma_b2 or 0.0)
    family, _, shape = spec.init.partition("_")
    variance = {"glorot": 2 / (n_in + n_out), "he": 2 / n_in, "lecun": 1 / n_in}[family]
    draw = _uniform if shape == "uniform" else _normal
    return draw(generator, (n_in, n_out), variance), biases


def _uniform(
    generator: np.random.Generator, shape: tuple[int, ...], variance: float
) -> NDArray[np.float32]:
    bound = np.float32(math.sqrt(3 * variance))
    return (2 * generator.random(shape, np.float32) - 1) * bound


def _normal(
    generator: np.random.Generator, shape: tuple[int, ...], variance: float
) -> NDArray[np.float32]:
    return generator.standard_normal(shape, np.float32) * np.float32(math.sqrt(variance))


def _orthogonal(generator: np.random.Generator, n_in: int, n_out: int) -> NDArray[np.float32]:
    tall = generator.standard_normal((max(n_in, n_out), min(n_in, n_out)))
    q, r = np.linalg.qr(tall)
    # LAPACK chooses the signs of the factors: Q is Haar only if the diagonal of R is positive.
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return np.ascontiguousarray(q if n_in >= n_out else q.T, np.float32)
