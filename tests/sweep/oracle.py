"""What the tests of the nets share: images, starting points and one measure of agreement."""

import numpy as np

from unmask.sweep.init import initial_parameters
from unmask.sweep.spec import NetSpec


def pictures(n, inputs, classes, seed=0):
    """Random images, dark for the most part as handwriting is, that their labels can be read
    from: each class has its own mean image."""
    generator = np.random.default_rng((n, inputs, classes, seed))
    labels = generator.integers(0, classes, n)
    means = np.random.default_rng((inputs, classes)).integers(0, 200, (classes, inputs))
    noisy = means[labels] + generator.integers(-55, 56, (n, inputs))
    ink = generator.random((n, inputs)) < 0.4
    return np.where(ink, noisy.clip(0, 255), 0).astype(np.uint8), labels.astype(np.int64)


def start(spec, inputs, classes):
    """Initial parameters with biases that are not zero, so that a lost bias shows."""
    generator = np.random.default_rng(spec.seed)
    return [
        (w, (b + 0.1 * generator.standard_normal(b.shape)).astype(np.float32))
        for w, b in initial_parameters(spec, inputs, classes)
    ]


def relative_difference(got, expected):
    """|got - expected| / |expected| in the Euclidean norm; 0 where both are 0."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    difference, size = np.linalg.norm(got - expected), np.linalg.norm(expected)
    return difference / size if size > 0 else float(difference)


def assert_layers_agree(got, expected, tolerance, what=""):
    """Every layer's W and b within tolerance in relative_difference."""
    assert len(got) == len(expected)
    for layer, (pair, expected_pair) in enumerate(zip(got, expected, strict=True), start=1):
        for name, a, b in zip("Wb", pair, expected_pair, strict=True):
            assert a.shape == b.shape
            difference = relative_difference(a, b)
            assert difference <= tolerance, f"{name} of layer {layer} {what}: {difference:.2e}"


def mean_field(sigma_w2, sigma_b2=0.05, **values):
    """A spec with mean-field initialisation."""
    return NetSpec(init="mean_field", sigma_w2=sigma_w2, sigma_b2=sigma_b2, **values)
