"""Targets and losses against values worked out by hand."""

import math

import numpy as np
import pytest
import torch

from unmask.mask.training.loss import IGNORED, focal, giou, losses, reaching, targets
from unmask.mask.training.network import Heads


def faces(*entries: tuple[list[float], int]) -> tuple[np.ndarray, np.ndarray]:
    boxes = np.array([box for box, _ in entries], np.float32).reshape(-1, 4)
    return boxes, np.array([label for _, label in entries], np.int64)


def test_heat_is_a_gaussian_a_third_of_the_box_wide() -> None:
    # Middle (30, 30) is in cell 7; one sixth of 24 pixels is one cell.
    wanted = targets([faces(([18, 18, 42, 42], 1))], 64, 64)
    heat = wanted.heat[0]
    assert heat[7, 7] == 1
    for dy, dx in ((0, 1), (1, 1), (2, 0), (-2, 1)):
        expected = math.exp(-0.5 * (dx * dx + dy * dy))
        assert heat[7 + dy, 7 + dx].item() == pytest.approx(expected, rel=1e-6)
    # The cells within exp(-r^2 / 2) >= 0.3, r^2 <= 2.4: the middle, 4 beside it, 4 at its corners.
    assert sorted(wanted.cells.tolist()) == [16 * r + c for r in (6, 7, 8) for c in (6, 7, 8)]
    assert wanted.faces == pytest.approx(1)
    assert set(wanted.labels.tolist()) == {1}


def test_the_smaller_face_has_the_cell_that_both_fill() -> None:
    wanted = targets([faces(([8, 8, 56, 56], 0), ([24, 24, 40, 40], 2))], 64, 64)
    middle = wanted.cells.tolist().index(8 * 16 + 8)
    assert wanted.labels[middle] == 2
    assert wanted.faces == pytest.approx(2)


def test_nothing_is_asked_where_a_face_is_ignored() -> None:
    wanted = targets([faces(([16, 32, 24, 48], IGNORED))], 64, 64)
    assert not len(wanted.cells)
    expected = torch.ones(16, 16, dtype=torch.bool)
    expected[8:12, 4:6] = False
    assert torch.equal(wanted.asked[0], expected)


def test_focal_loss_at_even_odds() -> None:
    logits, heat = torch.zeros(3), torch.tensor([1.0, 0.0, 0.5])
    asked = torch.ones(3, dtype=torch.bool)
    # Each is 0.25 log 2, the last also times (1 - 0.5)^4.
    expected = 0.25 * math.log(2) * (1 + 1 + 0.5**4)
    assert focal(logits, heat, asked).item() == pytest.approx(expected, rel=1e-6)
    asked[1] = False
    expected -= 0.25 * math.log(2)
    assert focal(logits, heat, asked).item() == pytest.approx(expected, rel=1e-6)


def test_giou_by_hand() -> None:
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 1, 1]])
    b = torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3], [2, 0, 3, 1]])
    # Equal; 1 of 7 with a hull of 9; apart by one with a hull of 3.
    expected = torch.tensor([1.0, 1 / 7 - 2 / 9, 0 - 1 / 3])
    torch.testing.assert_close(giou(a, b), expected)


def test_sides_reach_from_the_middle_of_their_cell() -> None:
    cells = torch.tensor([0, 5, 16 + 6])
    boxes = reaching(torch.tensor([[1.0, 2, 3, 4]]).repeat(3, 1), cells, torch.Size((2, 4, 4)))
    x, y = torch.tensor([2.0, 6, 10]), torch.tensor([2.0, 6, 6])
    torch.testing.assert_close(boxes, torch.stack([x - 1, y - 2, x + 3, y + 4], 1))


def test_the_right_answer_costs_nothing_but_its_uncertainty() -> None:
    wanted = targets([faces(([20, 20, 44, 44], 1))], 64, 64)
    shape = (1, 16, 16)
    sides = torch.zeros(1, 4, 16, 16)
    columns, rows = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="xy")
    x, y = (columns + 0.5) * 4, (rows + 0.5) * 4
    sides[0] = torch.stack([x - 20, y - 20, 44 - x, 44 - y])
    face = torch.full(shape, -30.0)
    face[wanted.heat >= 1] = 30.0
    classes = torch.zeros(1, 3, 16, 16)
    found = losses(Heads(face, sides, classes), wanted, torch.tensor([1.0, 2.0, 3.0]))
    assert found.face.item() == pytest.approx(0, abs=1e-6)
    assert found.sides.item() == pytest.approx(0, abs=1e-6)
    assert found.classes.item() == pytest.approx(2 * math.log(3), rel=1e-5)
