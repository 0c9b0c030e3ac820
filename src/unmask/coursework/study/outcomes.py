"""Table B of the study: what each depth and activation reached, beside the report's figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unmask.stats import wilson
from unmask.sweep.history import DIVERGED, SweepHistory


@dataclass(frozen=True)
class ReportRun:
    """The report's one run of a net.

    Args:
        test_loss: in nats.
        test_accuracy: 0 to 1.
    """

    test_loss: float
    test_accuracy: float


REPORT_DEPTHS = (5, 20, 40)

# (hidden layers, activation) -> the run. LeCun's activation appears in its curves only.
REPORT_RUNS: dict[tuple[int, str], ReportRun] = {
    (5, "relu"): ReportRun(0.1211, 0.9651),
    (5, "tanh"): ReportRun(0.1042, 0.9698),
    (5, "sigmoid"): ReportRun(2.3012, 0.1135),
    (20, "relu"): ReportRun(0.1454, 0.9617),
    (20, "tanh"): ReportRun(0.1546, 0.9632),
    (20, "sigmoid"): ReportRun(2.3014, 0.1135),
    (40, "relu"): ReportRun(2.3010, 0.1135),
    (40, "tanh"): ReportRun(0.1652, 0.9615),
    (40, "sigmoid"): ReportRun(2.3012, 0.1135),
}


# A net has trained at all when it closed this fraction of the gap between chance and 1.
TRAINED_SHARE = 0.1
# How far outside the range of our seeds the report's one run may lie and still agree.
ACCURACY_TOLERANCE, LOSS_TOLERANCE = 0.005, 0.05

AGREES, TOSS, DIFFERS, NO_FIGURE = "agrees", "toss of the seed", "differs", "not in the report"


@dataclass(frozen=True)
class Spread:
    """A figure over seeds.

    Args:
        count: the number of seeds that have the figure.
        mean: NaN for none.
        std: the sample standard deviation, NaN for fewer than two.
        low: the smallest, NaN for none.
        high: the largest, NaN for none.
    """

    count: int
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Outcome:
    """One cell of the table: every seed of one depth and activation.

    Args:
        depth: the number of hidden layers.
        activation: its name.
        seeds: how many nets there are.
        trained: how many of them exceeded trained_bar.
        trained_interval: the 95 % confidence interval of the fraction of seeds that train, 0 to 1.
        diverged: how many had a loss that is not finite.
        test_loss: in nats, over the seeds.
        test_accuracy: 0 to 1, over the seeds.
        document: the report's run, None where it has none.
        agreement: AGREES, TOSS, DIFFERS or NO_FIGURE.
        sentence: the reason of the agreement.
    """

    depth: int
    activation: str
    seeds: int
    trained: int
    trained_interval: tuple[float, float]
    diverged: int
    test_loss: Spread
    test_accuracy: Spread
    document: ReportRun | None
    agreement: str
    sentence: str


def spread(values: ArrayLike) -> Spread:
    """Return mean, standard deviation and range of the values that are not NaN."""
    array = np.asarray(values, np.float64)
    array = array[~np.isnan(array)]
    if not len(array):
        return Spread(0, np.nan, np.nan, np.nan, np.nan)
    std = float(array.std(ddof=1)) if len(array) > 1 else np.nan
    return Spread(len(array), float(array.mean()), std, float(array.min()), float(array.max()))


def trained_bar(chance: float) -> float:
    """Return the test accuracy above which a net has trained at all.

    Args:
        chance: the accuracy of always predicting the most frequent class, 0 to 1.
    """
    return chance + TRAINED_SHARE * (1 - chance)


def cells(history: SweepHistory) -> dict[tuple[int, str], NDArray[np.intp]]:
    """Return the rows of every (depth, activation), in the order in which they first appear."""
    rows: dict[tuple[int, str], list[int]] = {}
    for row, spec in enumerate(history.specs):
        rows.setdefault((spec.depth, spec.activation), []).append(row)
    return {key: np.asarray(value, np.intp) for key, value in rows.items()}


def outcomes(history: SweepHistory, chance: float) -> tuple[Outcome, ...]:
    """Return the table, one cell for each depth and activation of the history.

    Args:
        history: of the study's nets.
        chance: the accuracy of always predicting the most frequent class, 0 to 1.
    """
    bar = trained_bar(chance)
    return tuple(
        _outcome(history, depth, activation, rows, bar)
        for (depth, activation), rows in cells(history).items()
    )


def _outcome(
    history: SweepHistory, depth: int, activation: str, rows: NDArray[np.intp], bar: float
) -> Outcome:
    loss = history.test["test_loss"][rows].astype(np.float64)
    accuracy = history.test["test_accuracy"][rows].astype(np.float64)
    diverged = history.status[rows] == DIVERGED
    document = REPORT_RUNS.get((depth, activation))
    trained = int((accuracy > bar).sum())
    agreement, sentence = _judge(loss, accuracy, diverged, document, bar)
    return Outcome(
        depth=depth,
        activation=activation,
        seeds=len(rows),
        trained=trained,
        trained_interval=wilson(trained, len(rows)),
        diverged=int(diverged.sum()),
        test_loss=spread(loss),
        test_accuracy=spread(accuracy),
        document=document,
        agreement=agreement,
        sentence=sentence,
    )


def _judge(
    loss: NDArray[np.float64],
    accuracy: NDArray[np.float64],
    diverged: NDArray[np.bool_],
    document: ReportRun | None,
    bar: float,
) -> tuple[str, str]:
    trained = accuracy > bar
    counts = _counts(trained, diverged)
    if document is None:
        return NO_FIGURE, f"The report has no figure for this cell; {counts}."
    document_trained = document.test_accuracy > bar
    alike = ~diverged & (trained == document_trained)
    ended = "trained" if document_trained else "stayed at chance"
    n, k = len(alike), int(alike.sum())
    if not k:
        return DIFFERS, f"Differs: the report's run {ended}, as none of ours did; {counts}."
    near_accuracy, place_accuracy = _place(
        document.test_accuracy, accuracy[alike], ACCURACY_TOLERANCE
    )
    near_loss, place_loss = _place(document.test_loss, loss[alike], LOSS_TOLERANCE)
    places = (
        f"its accuracy {document.test_accuracy:.4f} lies {place_accuracy} and "
        f"its loss {document.test_loss:.4f} lies {place_loss}"
    )
    seen = "" if k == n else f", one of the outcomes seen, that of {k} of {n} seeds"
    if not (near_accuracy and near_loss):
        return DIFFERS, f"Differs: the report's run {ended}{seen}, but {places}; {counts}."
    if k < n:
        return TOSS, f"A toss of the seed: {counts}. The report's run {ended}{seen}; {places}."
    return AGREES, f"Agrees: the report's run {ended} too, {places}; {counts}."


def _counts(trained: NDArray[np.bool_], diverged: NDArray[np.bool_]) -> str:
    n, k, d = len(trained), int(trained.sum()), int(diverged.sum())
    if n == 1:
        return f"our one seed {'trains' if k else 'diverges' if d else 'stays at chance'}"
    others = [f"{d} diverge" if d > 1 else "1 diverges"] * bool(d)
    stay = n - k - d
    others += [f"{stay} stay at chance" if stay > 1 else "1 stays at chance"] * bool(stay and k + d)
    if k == n:
        return f"all {n} of our seeds train"
    if stay == n:
        return f"all {n} of our seeds stay at chance"
    return " and ".join([f"{k or 'none'} of our {n} seeds train{'s' * (k < 2)}", *others])


def _place(figure: float, ours: NDArray[np.float64], tolerance: float) -> tuple[bool, str]:
    """Return whether the figure is near enough to the range of ours, and its place in words."""
    low, high = float(ours.min()), float(ours.max())
    span = f"{low:.4f} to {high:.4f}" if f"{low:.4f}" != f"{high:.4f}" else f"{low:.4f}"
    # Figures are printed to four decimals; a smaller difference doesn't count.
    gap = round(max(low - figure, figure - high, 0.0), 4)
    if not gap:
        return True, f"in our range ({span})" if low != high else f"on ours ({span})"
    near = gap <= tolerance
    beyond = "" if near else f"; more than the tolerance of {tolerance:g}"
    return near, f"{gap:.4f} {'below' if figure < low else 'above'} ours ({span}{beyond})"
