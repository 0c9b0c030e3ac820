"""Reliability by hand, and of detections whose true probabilities are known."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.data.detection.dataset import AnnotatedImages
from unmask.errors import UserError
from unmask.mask.evaluate.confidence import (
    TOLERATED_GAP,
    Reliability,
    answers,
    cross_fitted,
    reliabilities,
)
from unmask.mask.runtime.calibration import Calibration, logit, sigmoid, tempered
from unmask.mask.runtime.detections import NOT_JUDGED, Detections

NAMES = ("with_mask", "without_mask", "mask_weared_incorrect")
SIDE = 2000


def test_bins_and_gaps_by_hand() -> None:
    confidence = np.array([0.9, 0.5, 0.6, 0.8])
    found = Reliability.of(confidence, np.array([True, False, True, True]), bins=2)
    assert [(b.count, b.right) for b in found.bins] == [(2, 1), (2, 2)]
    assert [b.confidence for b in found.bins] == pytest.approx([0.55, 0.85])
    assert found.mean_gap == pytest.approx((0.05 + 0.15) / 2)
    assert found.largest_gap == pytest.approx(0.15)
    assert found.overall is not None
    assert (found.overall.count, found.overall.right) == (4, 3)
    assert found.overall.confidence == pytest.approx(0.7)
    low, high = found.as_dict()["bins"][0]["right_interval_95"]
    assert low < 0.5 < high


def test_without_answers_there_is_no_gap() -> None:
    found = Reliability.of(np.zeros(0), np.zeros(0, bool))
    assert (found.bins, found.mean_gap, found.largest_gap, found.overall) == ((), 0, 0, None)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_every_answer_is_in_one_bin(answered: list[tuple[float, bool]]) -> None:
    confidence = np.array([c for c, _ in answered])
    right = np.array([r for _, r in answered])
    found = Reliability.of(confidence, right)
    assert sum(b.count for b in found.bins) == len(answered)
    assert sum(b.right for b in found.bins) == right.sum()
    assert sum(b.confidence * b.count for b in found.bins) == pytest.approx(confidence.sum())
    # The mean of absolute values is no less than the absolute value of the mean.
    assert found.mean_gap >= abs(right.mean() - confidence.mean()) - 1e-9
    assert found.largest_gap >= found.mean_gap - 1e-12


def drawn(
    pictures: int, *, slope: float, offset: float, temperature: float
) -> tuple[AnnotatedImages, list[Detections]]:
    """Images of 40 boxes each, whose stated scores are distorted from the true probabilities."""
    random = np.random.default_rng(5)
    corners = np.stack(np.meshgrid(np.arange(8), np.arange(5)), -1).reshape(-1, 2) * 100.0
    boxes = np.concatenate([corners, corners + 40], 1).astype(np.float32)
    truths, labels, found = [], [], []
    for _ in range(pictures):
        honest = random.beta(1.2, 0.8, len(boxes))
        is_face = random.random(len(boxes)) < honest
        kinds = random.dirichlet([2.0, 0.5, 0.3], len(boxes))
        label = (kinds.cumsum(1) < random.random((len(boxes), 1))).sum(1).clip(max=2)
        stated = tempered(kinds, 1 / temperature).astype(np.float32)
        score = sigmoid((logit(honest) - offset) / slope).astype(np.float32)
        truths.append(boxes[is_face])
        labels.append(label[is_face].astype(np.int64))
        found.append(
            Detections(boxes, stated.argmax(1).astype(np.int64), score, stated, NAMES, SIDE, SIDE)
        )
    return (
        AnnotatedImages(
            tuple(Path(f"{i}.png") for i in range(pictures)),
            np.full((pictures, 2), SIDE),
            tuple(truths),
            tuple(labels),
            NAMES,
            "drawn",
        ),
        found,
    )


def test_cross_fitted_answers_are_reliable_and_those_as_they_came_are_not() -> None:
    annotated, found = drawn(100, slope=0.4, offset=-0.8, temperature=2.5)
    part = np.arange(100) % 5
    fitted = reliabilities(annotated, cross_fitted(annotated, found, part, scale=1.0))
    for of in ("face", "class"):
        assert fitted[of].largest_gap < TOLERATED_GAP, of
        assert reliabilities(annotated, found)[of].largest_gap > 2 * TOLERATED_GAP, of


def test_a_part_is_calibrated_by_the_others_alone() -> None:
    annotated, found = drawn(10, slope=1.0, offset=0.0, temperature=1.0)
    part = np.arange(10) % 2
    before = cross_fitted(annotated, found, part, scale=1.0)
    # Nothing in the second part is a face any longer: what is said of the first must change,
    # and of the second not.
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    changed = AnnotatedImages(
        annotated.paths,
        annotated.sizes,
        tuple(none[0] if part[i] else annotated.boxes[i] for i in range(10)),
        tuple(none[1] if part[i] else annotated.labels[i] for i in range(10)),
        NAMES,
        "drawn",
    )
    after = cross_fitted(changed, found, part, scale=1.0)
    assert [d.as_dict() for d in before[1::2]] == [d.as_dict() for d in after[1::2]]
    assert before[0].as_dict() != after[0].as_dict()


def test_what_is_too_small_or_unsure_is_not_judged_and_counts_for_no_class() -> None:
    boxes = np.array([[0, 0, 30, 30], [50, 0, 58, 8], [90, 0, 120, 30]], np.float32)
    rows = np.array([[0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.4, 0.35, 0.25]], np.float32)
    found = Detections(
        boxes, np.zeros(3, np.int64), np.full(3, 0.8, np.float32), rows, NAMES, 200, 200
    )
    said = answers(found, Calibration(certain=0.5, smallest=10), scale=1.0)
    assert said.labels.tolist() == [0, NOT_JUDGED, NOT_JUDGED]
    # Seen at twice the size, the second one is large enough.
    assert answers(found, Calibration(certain=0.5, smallest=10), scale=2.0).labels[1] == 0
    assert len(answers(found, Calibration(face=0.81), scale=1.0)) == 0
    annotated = AnnotatedImages(
        (Path("a.png"),), np.array([[200, 200]]), (boxes,), (np.array([0, 1, 1]),), NAMES, "a"
    )
    found_of = reliabilities(annotated, [said])
    assert found_of["class"].overall is not None
    assert found_of["class"].overall.count == 1
    assert found_of["face"].overall is not None
    assert found_of["face"].overall.count == 3


def test_one_part_is_refused() -> None:
    annotated, found = drawn(2, slope=1.0, offset=0.0, temperature=1.0)
    with pytest.raises(UserError, match="two of them"):
        cross_fitted(annotated, found, np.zeros(2, np.int64), scale=1.0)
