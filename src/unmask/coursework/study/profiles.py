"""Part C of the study: the largest gradient of every layer, and the report's claims about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmask.coursework.study.outcomes import REPORT_DEPTHS, cells
from unmask.models.activations import activation as activation_named
from unmask.sweep.history import SweepHistory
from unmask.text import span

# How the report's words are read. Its axes are linear: a hundredth lies on the axis.
NEAR_ZERO = 0.01
ROUGHLY_CONSTANT = 10.0
ALIKE = 10.0
FALLS_TO_ZERO = 0.01

HOLDS, SOMETIMES, FAILS = "holds", "holds for some seeds", "does not hold"


@dataclass(frozen=True, eq=False)
class Profile:
    """The largest |dE/dw| of each layer, for every seed of one depth and activation.

    Args:
        depth: the number of hidden layers.
        activation: its name.
        epoch: when it was measured, 0 for the initialisation.
        maxima: float64[seeds, depth + 1], layer 1 nearest the input, the last the softmax layer,
            NaN where a seed had diverged.
    """

    depth: int
    activation: str
    epoch: int
    maxima: NDArray[np.float64]

    @property
    def measured(self) -> NDArray[np.float64]:
        """The rows of the seeds that had not diverged."""
        return self.maxima[~np.isnan(self.maxima).any(axis=1)]

    @property
    def median(self) -> NDArray[np.float64]:
        """The median over seeds, float64[depth + 1]; NaN when every seed had diverged."""
        if not len(self.measured):
            return np.full(self.depth + 1, np.nan)
        return np.asarray(np.median(self.measured, axis=0))


@dataclass(frozen=True)
class Claim:
    """A claim of the report about the gradients, and for how many seeds it holds.

    Args:
        depth: the number of hidden layers.
        activation: its name.
        holds: for how many seeds it holds.
        seeds: how many did not diverge.
        verdict: HOLDS, SOMETIMES or FAILS.
        sentence: the claim, how it was read, and what was measured.
    """

    depth: int
    activation: str
    holds: int
    seeds: int
    verdict: str
    sentence: str


def profiles(history: SweepHistory, epoch: int) -> tuple[Profile, ...]:
    """Return one profile for each depth and activation of the history, probed after that epoch."""
    probe = history.probe_epochs.index(epoch)
    maxima = history.layers["gradient_max"]
    return tuple(
        Profile(depth, activation, epoch, maxima[rows, probe, : depth + 1])
        for (depth, activation), rows in cells(history).items()
    )


def claims(found: tuple[Profile, ...]) -> tuple[Claim, ...]:
    """Return the report's claims about these profiles, each compared with every seed.

    The report describes 5, 20 and 40 hidden layers with sigmoid, tanh and ReLU, after 3 epochs.

    Args:
        found: the profiles of one epoch.
    """
    by_cell = {(p.depth, p.activation): p for p in found if len(p.measured)}
    judged = []
    for (depth, activation), profile in by_cell.items():
        if depth not in REPORT_DEPTHS:
            continue
        if activation == "sigmoid":
            judged.append(_near_zero(profile))
        elif activation == "tanh":
            judged.append(_roughly_constant(profile))
        elif activation == "relu" and depth == max(REPORT_DEPTHS):
            judged.append(_falls_to_zero(profile))
        elif activation == "relu" and (depth, "tanh") in by_cell:
            judged.append(_as_tanh(profile, by_cell[depth, "tanh"]))
    return tuple(judged)


def _near_zero(profile: Profile) -> Claim:
    under = (profile.measured < NEAR_ZERO).sum(axis=1).tolist()
    hidden = profile.measured[:, :-1].max(axis=1)
    return _claim(
        profile,
        "near zero everywhere",
        f"all hidden layers stay under {NEAR_ZERO:g}",
        hidden < NEAR_ZERO,
        f"{span(under)} of the {profile.depth + 1} layers are under it, the largest hidden one "
        f"has {span(hidden)} and the softmax layer {span(profile.measured[:, -1])}",
    )


def _roughly_constant(profile: Profile) -> Claim:
    ratio = _ratio(profile.measured.max(axis=1), profile.measured.min(axis=1))
    return _claim(
        profile,
        "roughly constant over the layers",
        f"the largest and the smallest layer differ by a factor of at most {ROUGHLY_CONSTANT:g}",
        ratio <= ROUGHLY_CONSTANT,
        f"the factor is {span(ratio)}",
    )


def _as_tanh(profile: Profile, tanh: Profile) -> Claim:
    ratio = _ratio(profile.measured, tanh.median)
    apart = np.maximum(ratio, _ratio(tanh.median, profile.measured)).max(axis=1)
    return _claim(
        profile,
        "as with tanh",
        f"every layer is within a factor of {ALIKE:g} of tanh's median",
        apart <= ALIKE,
        f"the farthest layer is a factor of {span(apart)} away",
    )


def _falls_to_zero(profile: Profile) -> Claim:
    share = _ratio(profile.measured[:, 0], profile.measured[:, -1])
    return _claim(
        profile,
        "falling to zero",
        f"layer 1 has less than {FALLS_TO_ZERO:g} of the softmax layer's",
        share < FALLS_TO_ZERO,
        f"it has {span(share)} of it",
    )


def _claim(
    profile: Profile, says: str, rule: str, holds: NDArray[np.bool_], measured: str
) -> Claim:
    k, n = int(holds.sum()), len(holds)
    title = activation_named(profile.activation).title
    verdict = HOLDS if k == n else SOMETIMES if k else FAILS
    seeds = (
        f"for {k} of {n} seeds" if n > 1 else "for our one seed" if k else "not for our one seed:"
    )
    sentence = (
        f"{title} at {profile.depth} layers, in the report “{says}”: {seeds} {rule}; {measured}."
    )
    return Claim(profile.depth, profile.activation, k, n, verdict, sentence)


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return above / below, where 0 / 0 is 1: two layers without any gradient are alike."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((above == 0) & (below == 0), 1.0, np.divide(above, below))
