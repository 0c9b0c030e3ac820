import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unmask.errors import UserError
from unmask.fool.goal import Goal, every_target

CLASSES = 5
logits_of = hnp.arrays(
    np.float32, (6, CLASSES), elements=st.floats(-50, 50, width=32), unique=True
).map(torch.from_numpy)
labels_of = st.lists(st.integers(0, CLASSES - 1), min_size=6, max_size=6).map(torch.tensor)
shifts = st.lists(st.integers(1, CLASSES - 1), min_size=6, max_size=6).map(torch.tensor)


@given(logits_of, labels_of, shifts)
@settings(deadline=None)
def test_the_margin_is_negative_where_the_goal_is_reached_and_nowhere_else(logits, labels, shift):
    for goal in (Goal(labels), Goal(labels, (labels + shift) % CLASSES)):
        assert torch.equal(goal.margin(logits) < 0, goal.reached(logits))


@given(logits_of, labels_of, shifts)
@settings(deadline=None)
def test_the_margin_is_the_difference_of_two_logits(logits, labels, shift):
    targets = (labels + shift) % CLASSES
    from_own, to_target = Goal(labels).margin(logits), Goal(labels, targets).margin(logits)
    for i in range(6):
        row = logits[i].tolist()
        of = [z for j, z in enumerate(row) if j != labels[i]]
        untargeted = torch.tensor(row[labels[i]]) - max(of)
        assert from_own[i] == untargeted
        of = [z for j, z in enumerate(row) if j != targets[i]]
        targeted = torch.tensor(max(of)) - row[targets[i]]
        assert to_target[i] == targeted


def test_what_is_not_finite_reaches_no_target_and_is_no_right_answer():
    logits = torch.tensor([[0.0, float("nan"), 1.0], [float("inf"), 0.0, 0.0], [0.0, 0.0, 1.0]])
    labels = torch.tensor([0, 0, 2])
    assert Goal(labels).reached(logits).tolist() == [True, True, False]
    assert Goal(labels, torch.tensor([1, 1, 1])).reached(logits).tolist() == [False] * 3


@given(st.lists(st.integers(0, 3), max_size=5), st.integers(4, 6))
@settings(deadline=None)
def test_every_target_pairs_each_picture_with_each_other_class(labels, classes):
    rows, goal = every_target(torch.tensor(labels, dtype=torch.int64), classes)
    pairs = list(zip(rows.tolist(), goal.targets.tolist(), strict=True))
    assert pairs == [(i, t) for i, own in enumerate(labels) for t in range(classes) if t != own]
    assert goal.labels.tolist() == [labels[i] for i in rows.tolist()]


def test_the_true_class_is_no_target():
    with pytest.raises(UserError, match="class 2 for image 1"):
        Goal(torch.tensor([0, 2]), torch.tensor([1, 2]))


def test_rows_of_a_goal():
    goal = Goal(torch.tensor([0, 1, 2]), torch.tensor([1, 2, 3]))
    assert goal[torch.tensor([True, False, True])].targets.tolist() == [1, 3]
    assert goal[1:].labels.tolist() == [1, 2]
    assert Goal(goal.labels)[1:].targets is None
    with pytest.raises(ValueError, match="3 labels, 1 targets"):
        Goal(goal.labels, torch.tensor([1]))
