"""Exercises 1 B to D: depth against activation, the gradient of every layer, tanh against LeCun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from unmask.coursework.cells import not_run, run_over_seeds, seen
from unmask.coursework.exercise import Exercise, Task
from unmask.coursework.sections import AGREES, DIFFERS, Cell, Picture, Section, Table
from unmask.coursework.study.comparison import SIMILAR, Comparison
from unmask.coursework.study.outcomes import REPORT_DEPTHS, REPORT_RUNS, trained_bar
from unmask.coursework.study.outcomes import cells as rows_of
from unmask.coursework.study.profiles import Claim
from unmask.coursework.study.run import Study, run_study
from unmask.models.activations import activation as activation_named
from unmask.sweep.engine import SweepProgress
from unmask.text import span

_ACTIVATIONS = ("relu", "tanh", "sigmoid")
_SAYS = {
    "sigmoid": "near zero everywhere",
    "tanh": "roughly constant",
    "relu": "as tanh",
}
_DEEPEST_RELU = "falling to zero"
_SIMILAR, _SMALLER = "similar", "tanh smaller throughout"


def _run(task: Task) -> tuple[Section, ...]:
    plan = task.length.study

    def progress(p: SweepProgress) -> None:
        told = f"training {p.nets_total} nets of {plan.epochs} epochs"
        task.progress(told, p.net_epochs_done / max(p.net_epochs_total, 1))

    study = run_study(plan, folder=task.folder, resume=True, progress=progress)
    task.progress("drawing", None)
    pictures = _pictures(task.draw.study(study))
    b, c, d = _sections(
        lambda depth, name: _outcome(study, depth, name),
        {(claim.depth, claim.activation): claim for claim in study.claims},
        {pair.depth: pair for pair in study.comparison},
        "The report has it, this run has not.",
    )
    changed = plan.departures()
    unlike = f" Not the report's settings: {', '.join(changed)}." if changed else ""
    settings = (
        f"{plan.seeds} seeds each, {plan.epochs} epochs; width {plan.width}, plain gradient "
        f"descent at {plan.learning_rate:g}, batches of {plan.batch_size}, Glorot-uniform weights: "
        f"the report names none of these, they were found by trying.{unlike}"
    )
    return (
        replace(b, settings=settings, pictures=(pictures["accuracy"],)),
        replace(
            c,
            settings=f"The largest |∂E/∂w| of each layer for the same {plan.batch_size} images "
            f"after {plan.probe_epoch} epochs.",
            pictures=(pictures["gradients-trained"],),
        ),
        replace(
            d,
            settings="f(x) = 1.7159 tanh(2x/3) + 0.01x.",
            pictures=tuple(p for n, p in pictures.items() if n.startswith("tanh-lecun")),
        ),
    )


def _missing(reason: str) -> tuple[Section, ...]:
    return _sections(lambda depth, name: None, {}, {}, reason)


def _sections(
    outcome: Callable[[int, str], tuple[Cell, Cell] | None],
    claims: dict[tuple[int, str], Claim],
    pairs: dict[int, Comparison],
    reason: str,
) -> tuple[Section, Section, Section]:
    accuracies, losses, words, against = [], [], [], []
    for depth in REPORT_DEPTHS:
        accuracy: list[Cell] = []
        loss: list[Cell] = []
        said: list[Cell] = []
        for name in _ACTIVATIONS:
            run = REPORT_RUNS[depth, name]
            both = outcome(depth, name) or (
                not_run(f"{run.test_accuracy:.4f}", reason),
                not_run(f"{run.test_loss:.4f}", reason),
            )
            accuracy.append(both[0])
            loss.append(both[1])
            deep_relu = name == "relu" and depth == max(REPORT_DEPTHS)
            text = _DEEPEST_RELU if deep_relu else _SAYS[name]
            claim = claims.get((depth, name))
            said.append(
                not_run(text, reason)
                if claim is None
                else seen(text, claim.holds, claim.seeds, _read(claim))
            )
        title = f"{depth} layers"
        accuracies.append((title, tuple(accuracy)))
        losses.append((title, tuple(loss)))
        words.append((title, tuple(said)))
        pair = pairs.get(depth)
        against.append(
            (
                title,
                (not_run(_SIMILAR, reason), not_run(_SMALLER, reason))
                if pair is None
                else _compared(pair),
            )
        )
    titles = tuple(activation_named(name).title for name in _ACTIVATIONS)
    return (
        Section(
            "Exercise 1 B",
            "Depth against activation",
            "MNIST through 5, 20 and 40 hidden layers of three activations: test loss and accuracy "
            "after 40 epochs, one run each.",
            tables=(
                Table(
                    "Test accuracy after 40 epochs",
                    tuple(f"{title} accuracy" for title in titles),
                    tuple(accuracies),
                ),
                Table(
                    "Test loss after 40 epochs",
                    tuple(f"{title} loss" for title in titles),
                    tuple(losses),
                ),
            ),
            notes=(
                "One run is no result: a net of one cell can train with one seed and stay at "
                "chance with the next. So ours is a mean and a standard deviation over seeds, and "
                "the report's run is held against the interval in which one more run of ours "
                "would lie. Of 20 figures that agree in truth one falls outside by chance.",
            ),
        ),
        Section(
            "Exercise 1 C",
            "The largest gradient of every layer",
            "The largest gradient by layer for one mini-batch after 3 epochs: of sigmoid near zero "
            "everywhere, of tanh roughly constant, of ReLU as tanh's at 5 and 20 layers and "
            "falling to zero at 40.",
            tables=(Table("What the report's curves show", titles, tuple(words)),),
        ),
        Section(
            "Exercise 1 D",
            "tanh against LeCun's activation",
            "Learning curves of both over 40 epochs, which are similar, and the largest gradient "
            "by layer, which is smaller for tanh throughout.",
            tables=(
                Table(
                    "What the report's curves show",
                    ("learning curves", "largest gradients"),
                    tuple(against),
                ),
            ),
        ),
    )


def _outcome(study: Study, depth: int, name: str) -> tuple[Cell, Cell] | None:
    """Return the cells of accuracy and loss, or None for a cell that was not trained."""
    rows = rows_of(study.history).get((depth, name))
    if rows is None:
        return None
    run = REPORT_RUNS[depth, name]
    bar = trained_bar(study.chance)
    accuracy = study.history.test["test_accuracy"][rows].astype(np.float64)
    loss = study.history.test["test_loss"][rows].astype(np.float64)
    alike = (np.isfinite(loss) & ((accuracy > bar) == (run.test_accuracy > bar))).tolist()
    reason = (
        "The report names no settings: with those found by trying, ours is near it only."
        if run.test_accuracy > bar
        else "Both are on the plateau at chance, that of a net which knows how common each class "
        f"is and nothing of the images (log 10 is {np.log(10):.4f})."
    )
    return (
        run_over_seeds(
            run.test_accuracy, accuracy.tolist(), alike=alike, limits=(0, 1), reason=reason
        ),
        run_over_seeds(
            run.test_loss, loss.tolist(), alike=alike, limits=(0, np.inf), reason=reason
        ),
    )


def _read(claim: Claim) -> str:
    """Return how the report's words are read, and what was measured."""
    rule = claim.sentence.partition(": ")[2]
    return f"{rule[:1].upper()}{rule[1:]}"


def _compared(pair: Comparison) -> tuple[Cell, Cell]:
    gap = abs(round(pair.accuracy_left - pair.accuracy_right, 4))
    curves = Cell(
        _SIMILAR,
        f"{pair.accuracy_left:.4f} and {pair.accuracy_right:.4f}",
        AGREES if gap <= SIMILAR else DIFFERS,
        f"Median validation accuracy of tanh and LeCun's activation after {pair.epochs} epochs; "
        f"they are called similar when at most {SIMILAR:g} apart.",
    )
    start, after = pair.counts[0], pair.counts[-1]
    smaller = Cell(
        _SMALLER,
        f"in {after.smaller} of {after.layers} layers",
        AGREES if after.smaller == after.layers else DIFFERS,
        f"By medians over seeds after {after.epoch} epochs, with ratios of tanh's to LeCun's of "
        f"{span([after.ratio_low, after.ratio_high])}; at the start it is smaller in "
        f"{start.smaller} of {start.layers} ({span([start.ratio_low, start.ratio_high])}).",
    )
    return curves, smaller


def _pictures(drawn: dict[str, tuple[str, str]]) -> dict[str, Picture]:
    told = {
        "accuracy": "Test accuracy of every seed, one panel a depth; bars are the report's "
        "single runs, the dotted line is always naming the commonest class.",
        "gradients-trained": "The largest gradient of every layer, layer 1 nearest the input; "
        "thick: medians over seeds, thin: every seed. The report draws linear axes, on which "
        "small gradients are all near zero; this axis is logarithmic.",
        "tanh-lecun-curves": "Learning curves: accuracy above, loss below; solid on validation "
        "images, dashed on training images. Lines: medians over seeds; bands: lowest to "
        "highest.",
        "tanh-lecun-gradients": "The largest gradient of every layer of tanh and of LeCun's "
        "activation.",
    }
    return {
        name: Picture(
            caption,
            caption.partition(";")[0].partition(":")[0],
            *drawn[name],
        )
        for name, caption in told.items()
        if name in drawn
    }


STUDY = Exercise("study", "Exercises 1 B to D: depth against activation", _run, _missing)
