from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unmask.coursework.bounds.intervals import Interval
from unmask.coursework.cells import (
    all_of,
    exceeded,
    interval,
    not_run,
    one_more,
    proportion,
    run_over_seeds,
    seen,
)
from unmask.coursework.sections import (
    AGREES,
    CORRECTED,
    DIFFERS,
    NOT_RUN,
    SOME_SEEDS,
    UNDECIDED,
)
from unmask.stats import student_t


@pytest.mark.parametrize("freedom", [1, 2, 3, 9, 29, 30, 31, 60, 1000])
def test_students_quantile_is_scipys(freedom: int) -> None:
    assert student_t(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=1e-4)


def test_the_interval_of_one_more_run_in_closed_form() -> None:
    # Of 0 and 2: mean 1, s = sqrt(2), t = 12.7062 with one degree of freedom.
    reach = 12.7062 * math.sqrt(2) * math.sqrt(1.5)
    assert one_more([0.0, 2.0]) == pytest.approx((1 - reach, 1 + reach), rel=1e-6)


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_one_more_run_falls_inside_19_times_of_20(seeds: int) -> None:
    drawn = np.random.default_rng(seeds).normal(0.96, 0.003, (4000, seeds + 1))
    inside = sum(low <= row[-1] <= high for row in drawn for low, high in [one_more(row[:-1])])
    # Four standard errors of a proportion of 4000.
    assert inside / len(drawn) == pytest.approx(0.95, abs=0.014)


def test_a_run_is_held_against_the_seeds_that_ended_alike() -> None:
    ours = [0.960, 0.962, 0.964, 0.1135]
    trained = [True, True, True, False]
    low, high = one_more(ours[:3])
    cell = run_over_seeds(0.965, ours, alike=trained)
    assert (cell.document, cell.verdict) == ("0.9650", SOME_SEEDS)
    assert f"{low:.4f} to {high:.4f}" in cell.why
    assert "3 of our 4 seeds" in cell.why
    assert run_over_seeds(0.965, ours[:3], alike=[True] * 3).verdict == AGREES
    # With one alone there is no spread, with none nothing alike.
    alone = run_over_seeds(0.1135, ours, alike=[False] * 3 + [True])
    assert alone.verdict == UNDECIDED
    assert "0.1135" in alone.why
    assert run_over_seeds(0.965, ours, alike=[False] * 4).verdict == DIFFERS


def test_what_the_document_rounds_away_is_no_difference() -> None:
    ours = [2.30098, 2.30098, 2.30098]
    assert run_over_seeds(2.3010, ours, alike=[True] * 3).verdict == AGREES
    beyond = run_over_seeds(2.3012, ours, alike=[True] * 3, reason="The reason.")
    assert beyond.verdict == DIFFERS
    assert beyond.why.endswith("The reason.")


def test_an_interval_ends_where_the_figure_does() -> None:
    cell = run_over_seeds(0.99, [0.97, 0.999], alike=[True, True], limits=(0, 1))
    assert "0.0000 to 1.0000" not in cell.why
    assert "to 1.0000" in cell.why


def test_seeds_that_diverged_are_no_figures() -> None:
    cell = run_over_seeds(0.5, [0.5, 0.5, math.nan], alike=[True, True, False])
    assert cell.ours == "0.5000 ± 0.0000"
    gone = run_over_seeds(0.5, [math.nan, math.nan], alike=[False, False])
    assert (gone.ours, gone.verdict) == ("diverged", DIFFERS)


@given(st.integers(50, 9950), st.integers(0, 200))
def test_proportions_agree_as_the_test_of_two_proportions_says(right: int, apart: int) -> None:
    p, document = right / 10_000, min(right + apart, 9_999) / 10_000
    error = math.sqrt((p * (1 - p) + document * (1 - document)) / 10_000)
    cell = proportion(document, right, 10_000, of=10_000)
    rounding = 0.00005
    expected = abs(p - document) <= stats.norm.ppf(0.975) * error + rounding
    assert (cell.verdict == AGREES) == expected


def test_a_proportion_says_why_it_is_another() -> None:
    cell = proportion(0.8849, 9000, 10_000, of=10_000, reason="Another network.")
    assert (cell.document, cell.ours, cell.verdict) == ("88.49 %", "90.00 %", DIFFERS)
    assert "1.51 points higher" in cell.why
    assert cell.why.endswith("Another network.")


def test_a_bar_is_exceeded_or_not() -> None:
    assert exceeded(0.993, 9953, 10_000, of="pictures").verdict == AGREES
    # 96.8 % of 400: the interval, 94.6 to 98.1, holds 97.
    within = exceeded(0.97, 387, 400, of="faces")
    assert (within.verdict, "Not above the bar" in within.why) == (AGREES, True)
    assert exceeded(0.97, 360, 400, of="faces").verdict == DIFFERS


def test_an_interval_is_right_or_corrected() -> None:
    lecun = Interval(0.01, 1.7159 * 2 / 3 + 0.01, False, True)
    assert interval(Interval(0.01, 1.1539, False, True), lecun).verdict == AGREES
    relu = interval(Interval(0, math.inf, True, False), Interval(-math.inf, math.inf), why="Signs.")
    assert (relu.verdict, relu.why) == (CORRECTED, "Signs.")
    both = Interval(-math.inf, math.inf, False, False)
    assert interval(both, both).verdict == AGREES
    open_end = interval(Interval(0, 1), Interval(0, 1, False, True))
    assert (open_end.verdict, open_end.ours) == (AGREES, "(0, 1]")


def test_statements_hold_for_all_for_some_or_for_none() -> None:
    assert [seen("so", k, 3, "").verdict for k in (3, 1, 0)] == [AGREES, SOME_SEEDS, DIFFERS]
    assert [all_of("all", k, 45, "").verdict for k in (45, 44)] == [AGREES, DIFFERS]
    assert not_run("88.49 %", "no images").verdict == NOT_RUN
