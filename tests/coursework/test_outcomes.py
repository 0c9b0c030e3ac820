from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_up import CHANCE, diverge, history, plan, study
from unmask.coursework.study.outcomes import (
    ACCURACY_TOLERANCE,
    AGREES,
    DIFFERS,
    LOSS_TOLERANCE,
    NO_FIGURE,
    REPORT_RUNS,
    TOSS,
    Outcome,
    outcomes,
    spread,
    trained_bar,
)
from unmask.sweep.history import FINISHED, SweepHistory
from unmask.sweep.spec import grid

finite = st.floats(-1e6, 1e6)


def cell(depth: int, activation: str, runs: list[tuple[float, float]]) -> Outcome:
    """The outcome of one cell whose seeds end with these losses and accuracies."""
    specs = tuple(grid(depth=depth, activation=activation, seed=range(len(runs)), epochs=1))
    made = SweepHistory.empty(specs, (0,), {})
    made.status[:] = FINISHED
    made.test["test_loss"][:] = [loss for loss, _ in runs]
    made.test["test_accuracy"][:] = [accuracy for _, accuracy in runs]
    (outcome,) = outcomes(made, CHANCE)
    return outcome


@given(st.lists(finite, min_size=2, max_size=8), st.integers(0, 3))
def test_a_spread_is_that_of_the_figures_there_are(values: list[float], missing: int) -> None:
    found = spread([*values, *[math.nan] * missing])
    assert found.count == len(values)
    assert found.mean == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert found.std == pytest.approx(statistics.stdev(values), rel=1e-6, abs=1e-6)
    assert (found.low, found.high) == (min(values), max(values))


def test_one_figure_has_no_spread_and_none_has_no_mean() -> None:
    one, none = spread([0.5]), spread([math.nan])
    assert (one.count, one.mean, one.low, one.high) == (1, 0.5, 0.5, 0.5)
    assert math.isnan(one.std)
    assert none.count == 0
    assert math.isnan(none.mean)


def test_a_net_has_trained_a_tenth_of_the_way_from_chance_to_perfect() -> None:
    assert trained_bar(0.1) == pytest.approx(0.19)
    assert trained_bar(0.5) == pytest.approx(0.55)


def test_the_table_has_a_cell_for_each_depth_and_activation() -> None:
    table = study().outcomes
    assert [(o.depth, o.activation) for o in table] == [
        (d, a) for d in (5, 20, 40) for a in ("relu", "tanh", "sigmoid", "lecun")
    ]
    by_cell = {(o.depth, o.activation): o for o in table}
    tanh = by_cell[5, "tanh"]
    assert (tanh.seeds, tanh.trained, tanh.diverged) == (3, 3, 0)
    assert tanh.test_accuracy.mean == pytest.approx(0.961, abs=1e-6)
    assert tanh.test_accuracy.std == pytest.approx(0.001, abs=1e-6)
    assert tanh.test_loss.mean == pytest.approx(0.15, abs=1e-6)
    assert tanh.document == REPORT_RUNS[5, "tanh"]
    assert by_cell[20, "sigmoid"].trained == 0
    assert by_cell[40, "relu"].trained == 2


def test_relu_at_40_layers_is_told_as_a_toss_with_its_counts() -> None:
    (relu,) = (o for o in study().outcomes if (o.depth, o.activation) == (40, "relu"))
    assert relu.agreement == TOSS
    assert relu.sentence.startswith(
        "A toss of the seed: 2 of our 3 seeds train and 1 stays at chance. The report's run "
        "stayed at chance, one of the outcomes seen, that of 1 of 3 seeds;"
    )


TANH = REPORT_RUNS[5, "tanh"]
LOSS, ACCURACY = TANH.test_loss, TANH.test_accuracy


@pytest.mark.parametrize(
    ("runs", "agreement"),
    [
        ([(LOSS, ACCURACY)], AGREES),
        ([(LOSS - 0.01, ACCURACY - 0.01), (LOSS + 0.01, ACCURACY + 0.01)], AGREES),
        ([(LOSS, ACCURACY - ACCURACY_TOLERANCE)], AGREES),
        ([(LOSS, ACCURACY - ACCURACY_TOLERANCE - 0.0001)], DIFFERS),
        ([(LOSS, ACCURACY + ACCURACY_TOLERANCE + 0.0001)], DIFFERS),
        ([(LOSS + LOSS_TOLERANCE, ACCURACY)], AGREES),
        ([(LOSS + LOSS_TOLERANCE + 0.0001, ACCURACY)], DIFFERS),
        ([(2.3, CHANCE)], DIFFERS),
        ([(2.3, CHANCE), (LOSS, ACCURACY)], TOSS),
        ([(2.3, CHANCE), (LOSS, ACCURACY - 0.1)], DIFFERS),
    ],
)
def test_agreement_follows_the_stated_rule(runs: list[tuple[float, float]], agreement: str) -> None:
    outcome = cell(5, "tanh", runs)
    assert outcome.agreement == agreement
    opening = {AGREES: "Agrees:", DIFFERS: "Differs:", TOSS: "A toss of the seed:"}[agreement]
    assert outcome.sentence.startswith(opening)


def test_a_sentence_says_how_far_the_document_lies_from_ours() -> None:
    outcome = cell(5, "tanh", [(0.12, 0.95), (0.11, 0.96)])
    assert outcome.sentence == (
        "Differs: the report's run trained, but its accuracy 0.9698 lies 0.0098 above ours "
        "(0.9500 to 0.9600; more than the tolerance of 0.005) and its loss 0.1042 lies 0.0058 "
        "below ours (0.1100 to 0.1200); all 2 of our seeds train."
    )


def test_a_cell_that_the_document_lacks_is_said_to_have_no_figure() -> None:
    outcome = cell(7, "tanh", [(0.1, 0.97)])
    assert (outcome.agreement, outcome.document) == (NO_FIGURE, None)
    assert outcome.sentence == "The report has no figure for this cell; our one seed trains."


def test_diverged_seeds_are_counted_and_are_like_no_run_of_the_document() -> None:
    made = history(plan(depths=(5,), activations=("tanh",)))
    diverge(made, 0)
    (one,) = outcomes(made, CHANCE)
    assert (one.trained, one.diverged, one.test_accuracy.count) == (2, 1, 2)
    assert "2 of our 3 seeds train and 1 diverges" in one.sentence
    for row in (1, 2):
        diverge(made, row)
    (every,) = outcomes(made, CHANCE)
    assert every.agreement == DIFFERS
    assert np.isnan(every.test_accuracy.mean)
    assert "none of our 3 seeds trains and 3 diverge" in every.sentence


def test_the_documents_table_is_whole() -> None:
    assert {d for d, _ in REPORT_RUNS} == {5, 20, 40}
    assert {a for _, a in REPORT_RUNS} == {"relu", "tanh", "sigmoid"}
    assert len(REPORT_RUNS) == 9
    at_chance = {k for k, run in REPORT_RUNS.items() if run.test_accuracy == CHANCE}
    assert at_chance == {(5, "sigmoid"), (20, "sigmoid"), (40, "sigmoid"), (40, "relu")}
