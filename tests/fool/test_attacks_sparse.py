"""Attacks in L1 and L0 against two classes that a plane divides, where the greedy is best."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import unmask
from unmask.cli.main import main
from unmask.errors import UserError
from unmask.fool.goal import Goal
from unmask.fool.norms import Threat
from unmask.fool.outcome import Adversarials, judge
from unmask.fool.victim import Victim


class Plane(nn.Module):
    """Two logits of 64 values whose difference is a weighted sum."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = nn.Parameter(torch.randn((2, 64), generator=generator))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - 0.5).flatten(1) @ self.weights.T


MODEL = Plane().eval()
IMAGES = torch.rand((24, 1, 8, 8), generator=torch.Generator().manual_seed(1))
LABELS = MODEL(IMAGES).argmax(1)


def closed_form() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The smallest L1 and L0 change of each image to the other class, between 0 and 1."""
    pixels = IMAGES.flatten(1).double().numpy()
    weights = MODEL.weights.detach().double().numpy()
    sums, counts = [], []
    for x, own in zip(pixels, LABELS.tolist(), strict=True):
        apart = weights[1 - own] - weights[own]
        missing = -(x - 0.5) @ apart
        room = np.where(apart > 0, 1 - x, x)
        gain = np.abs(apart) * room
        # A sum is spent where a unit gains most, a value where it gains most in all.
        order = np.argsort(-np.abs(apart))
        before = np.cumsum(gain[order]) - gain[order]
        spent = np.clip((missing - before) / np.abs(apart[order]), 0, room[order])
        sums.append(spent.sum())
        counts.append(1 + np.searchsorted(np.cumsum(np.sort(gain)[::-1]), missing))
    return np.array(sums), np.array(counts, dtype=np.float64)


def size(changed: Tensor, norm: str) -> NDArray[np.float64]:
    """The judged size of each change, infinite where the class stayed."""
    victim, steps = Victim.of(MODEL), torch.zeros(len(changed), dtype=torch.int64)
    outcome = judge(victim, IMAGES, Adversarials(changed, steps), Goal(LABELS), Threat.of(norm))
    return np.where(outcome.reached, outcome.size, np.inf)


def test_the_fewest_values_are_those_that_gain_most() -> None:
    _, fewest = closed_form()
    assert 1 <= fewest.min() < fewest.max()
    assert (size(unmask.attacks.sigma_zero(MODEL, IMAGES, LABELS), "l0") == fewest).all()
    found = size(unmask.attacks.fmn(MODEL, IMAGES, LABELS, norm="l0"), "l0")
    assert (found >= fewest).all()
    assert found.mean() < 1.5 * fewest.mean()


def test_the_descent_alone_comes_near_the_fewest_values() -> None:
    victim, threat = Victim.of(MODEL), Threat.of("l0")
    _, fewest = closed_form()
    generator = torch.Generator().manual_seed(0)
    found = unmask.fool.attacks.sparse.sigma_zero(
        victim, IMAGES, Goal(LABELS), threat, generator=generator, greedy=False
    )
    sizes = size(found.pixels, "l0")
    assert (sizes >= fewest).all()
    assert sizes.mean() < 1.3 * fewest.mean()


@pytest.mark.parametrize("name", ["fmn", "pdpgd"])
def test_the_smallest_sum_of_changes_is_found(name: str) -> None:
    smallest, _ = closed_form()
    found = size(getattr(unmask.attacks, name)(MODEL, IMAGES, LABELS, norm="l1"), "l1")
    ratio = found / smallest
    assert ratio.min() > 1 - 1e-4
    assert np.median(ratio) < 1.03
    assert ratio.max() < 1.15


@pytest.mark.parametrize("name", ["apgd", "apgd_t"])
def test_within_a_sum_of_changes_those_fall_that_can(name: str) -> None:
    smallest, _ = closed_form()
    eps = float(np.median(smallest))
    changed = getattr(unmask.attacks, name)(MODEL, IMAGES, LABELS, eps=eps, norm="l1")
    assert float((changed - IMAGES).abs().flatten(1).sum(1).max()) <= eps + 1e-4
    fooled = np.isfinite(size(changed, "l1"))
    assert not fooled[smallest > eps].any()
    assert fooled[smallest < 0.9 * eps].all()


@pytest.mark.parametrize(("norm", "eps"), [("l1", 1.0), ("l0", 2)])
def test_an_audit_in_either_norm_finds_the_closed_form(norm: str, eps: float) -> None:
    smallest, fewest = closed_form()
    pixels = (IMAGES * 255).round() / 255
    labels = MODEL(pixels).argmax(1)
    found = unmask.audit(MODEL, (pixels, labels), norm=norm, eps=eps, pairs=1, steps=60)
    best = smallest if norm == "l1" else fewest
    # The images were rounded to 8 bits.
    assert abs(float(np.median(found.worst.size)) - np.median(best)) <= 0.1 * np.median(best)
    assert found.robust(eps).value == pytest.approx(float((best > eps).mean()), abs=0.1)
    assert "Half of the images" in str(found)
    assert f"median_{norm}" in found.figures()


def test_what_needs_gradients_in_these_norms_is_refused_without() -> None:
    def answers(pixels: Tensor) -> Tensor:
        return MODEL(pixels)

    with pytest.raises(UserError, match="no attack in l0 does without gradients"):
        unmask.audit(answers, (IMAGES, LABELS), norm="l0", eps=3)
    with pytest.raises(UserError, match="knows no l0"):
        unmask.attacks.run("square", MODEL, IMAGES, LABELS, eps=3, norm="l0")


def test_the_command_counts_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [
        "fool",
        "audit",
        "mnist",
        "mnist",
        "--images",
        "4",
        "--pairs",
        "0",
        "--steps",
        "5",
        "--norm",
        "l0",
        "--json",
    ]
    assert main([*line, "--out", str(tmp_path / "audit")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "l0" in json.dumps(told)
    assert (tmp_path / "audit" / "report.html").exists()
