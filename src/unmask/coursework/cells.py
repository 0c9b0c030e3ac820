"""A figure of the report beside ours: whether they agree, by a tolerance that has a reason.

A figure of one run is compared with the interval in which one more run of ours would lie, a
proportion with ours and the sampling error of both; both tolerances include the rounding of what
the report prints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from unmask.coursework.bounds.intervals import Interval
from unmask.coursework.sections import (
    AGREES,
    CORRECTED,
    DIFFERS,
    NOT_RUN,
    SOME_SEEDS,
    UNDECIDED,
    Cell,
)
from unmask.stats import student_t, wilson

_Z = 1.959964


def one_more(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % prediction interval of one more run: mean ± t s sqrt(1 + 1/n).

    Args:
        values: n runs, at least two, taken as normally distributed.

    Returns:
        The lower and the upper end.
    """
    array = np.asarray(values, np.float64)
    n = len(array)
    reach = student_t(n - 1) * float(array.std(ddof=1)) * math.sqrt(1 + 1 / n)
    mean = float(array.mean())
    return mean - reach, mean + reach


def not_run(document: str, reason: str) -> Cell:
    """Return the cell of a figure for which there is none of ours."""
    return Cell(document, "", NOT_RUN, reason)


def run_over_seeds(
    document: float,
    ours: Sequence[float],
    *,
    alike: Sequence[bool],
    limits: tuple[float, float] = (-math.inf, math.inf),
    decimals: int = 4,
    reason: str = "",
) -> Cell:
    """Return the cell of one run of the report beside our runs over seeds.

    Args:
        document: the report's figure.
        ours: our figures, one for each seed.
        alike: for each of ours, whether it ended as the report's run did (trained, or at chance);
            the report's figure is compared with those only.
        limits: the range of values that the figure can take, to which the interval is cut.
        decimals: how many the report prints.
        reason: why ours may differ, printed where it does.
    """
    n, k = len(ours), sum(alike)
    same = [value for value, good in zip(ours, alike, strict=True) if good]
    shown = f"{document:.{decimals}f}"
    told = _mean(ours, decimals)
    if not k:
        return Cell(shown, told, DIFFERS, f"None of our {n} seeds ended as the report's run did.")
    seeds = f"our {n} seeds" if k == n else f"the {k} of our {n} seeds that ended as it did"
    if k == 1:
        return Cell(
            shown,
            told,
            UNDECIDED,
            f"One seed alone ended as it did ({same[0]:.{decimals}f}): no spread.",
        )
    low, high = np.clip(one_more(same), *limits).tolist()
    rounding = 0.5 * 10.0**-decimals
    inside = low - rounding <= document <= high + rounding
    where = f"where one more run of {seeds} lies with 95 % certainty"
    span = f"{low:.{decimals}f} to {high:.{decimals}f}"
    if not inside:
        return Cell(shown, told, DIFFERS, f"Outside {span}, {where}. {reason}".strip())
    verdict = AGREES if k == n else SOME_SEEDS
    return Cell(shown, told, verdict, f"Within {span}, {where}.")


def proportion(
    document: float, right: int, count: int, *, of: int, decimals: int = 4, reason: str = ""
) -> Cell:
    """Return the cell of a proportion, printed in per cent with decimals - 2 places.

    The two agree when they differ by no more than the 95 % sampling error of both and the rounding.

    Args:
        document: the report's proportion, 0 to 1.
        right: how many of ours.
        count: out of how many of ours.
        of: out of how many the report's was measured.
        decimals: how many decimals of the proportion the report prints.
        reason: why ours may differ, printed where it does.
    """
    p = right / count
    spread = math.sqrt(p * (1 - p) / count + document * (1 - document) / of)
    reach = _Z * spread + 0.5 * 10.0**-decimals
    low, high = wilson(right, count)
    places = decimals - 2
    ours = f"{100 * p:.{places}f} %"
    apart = f"{100 * abs(p - document):.{places}f} points"
    allowed = f"{100 * reach:.{places}f}"
    between = f"ours lies between {100 * low:.1f} and {100 * high:.1f} % (95 %)"
    shown = f"{100 * document:.{places}f} %"
    if abs(p - document) <= reach:
        return Cell(shown, ours, AGREES, f"{apart} apart, chance allows {allowed}; {between}.")
    way = "higher" if p > document else "lower"
    why = f"Ours is {apart} {way}, chance allows {allowed}; {between}. {reason}"
    return Cell(shown, ours, DIFFERS, why.strip())


def exceeded(bar: float, right: int, count: int, *, of: str) -> Cell:
    """Return the cell of a proportion that exceeds a bar in the report.

    It agrees when ours exceeds it too, or when the 95 % interval of ours (Wilson, 1927) reaches
    above it.

    Args:
        bar: 0 to 1.
        right: how many of ours.
        count: out of how many.
        of: what was counted, in words.
    """
    low, high = wilson(right, count)
    p = right / count
    span = f"{100 * low:.2f} to {100 * high:.2f} % with 95 % confidence"
    told = f"{right:,} of {count:,} {of}: {span}."
    good = p > bar or high > bar
    if good and p <= bar:
        told = f"Not above the bar, but within what chance does: {told}"
    return Cell(f"> {100 * bar:g} %", f"{100 * p:.2f} %", AGREES if good else DIFFERS, told)


def all_of(document: str, good: int, count: int, why: str) -> Cell:
    """Return the cell of a claim of the report about all, which holds for good of count."""
    return Cell(document, f"{good} of {count}", AGREES if good == count else DIFFERS, why)


def seen(document: str, holds: int, seeds: int, why: str) -> Cell:
    """Return the cell of a claim about the report's one run, which holds for some of our seeds."""
    verdict = AGREES if holds == seeds else SOME_SEEDS if holds else DIFFERS
    return Cell(document, f"{holds} of {seeds} seeds", verdict, why)


def interval(document: Interval, ours: Interval, *, decimals: int = 4, why: str = "") -> Cell:
    """Return the cell of an interval: it agrees when both ends do, as the report rounds them.

    Whether an end is attained is printed but changes no verdict.

    Args:
        document: the report's interval.
        ours: the exact one.
        decimals: how many the report prints.
        why: the reason of a correction, printed where the ends differ.
    """
    pairs = ((document.low, ours.low), (document.high, ours.high))
    alike = all(a == b or abs(a - b) <= 0.5 * 10.0**-decimals for a, b in pairs)
    if not alike:
        return Cell(str(document), str(ours), CORRECTED, why)
    closed = (document.low_closed, document.high_closed) == (ours.low_closed, ours.high_closed)
    told = "The same ends." if closed else "The same ends; a round bracket is never attained."
    return Cell(str(document), str(ours), AGREES, told)


def _mean(values: Sequence[float], decimals: int) -> str:
    array = np.asarray(values, np.float64)
    array = array[np.isfinite(array)]
    if not len(array):
        return "diverged"
    mean = f"{array.mean():.{decimals}f}"
    return mean if len(array) < 2 else f"{mean} ± {array.std(ddof=1):.{decimals}f}"
