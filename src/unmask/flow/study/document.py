"""The figures of the course report that the study reproduces, as data.

The report trained every net once, for 40 epochs on MNIST, with the cross-entropy loss.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DocumentRun:
    """Test loss (nats) and test accuracy (0..1) of the document's one run of a net."""

    test_loss: float
    test_accuracy: float


DOCUMENT_DEPTHS = (5, 20, 40)

# (hidden layers, activation) -> the run. LeCun's activation appears in its curves only.
DOCUMENT_RUNS: dict[tuple[int, str], DocumentRun] = {
    (5, "relu"): DocumentRun(0.1211, 0.9651),
    (5, "tanh"): DocumentRun(0.1042, 0.9698),
    (5, "sigmoid"): DocumentRun(2.3012, 0.1135),
    (20, "relu"): DocumentRun(0.1454, 0.9617),
    (20, "tanh"): DocumentRun(0.1546, 0.9632),
    (20, "sigmoid"): DocumentRun(2.3014, 0.1135),
    (40, "relu"): DocumentRun(2.3010, 0.1135),
    (40, "tanh"): DocumentRun(0.1652, 0.9615),
    (40, "sigmoid"): DocumentRun(2.3012, 0.1135),
}
