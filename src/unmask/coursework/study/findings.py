"""The study in a few sentences, each drawn from its tables."""

from __future__ import annotations

from unmask.coursework.study.comparison import throughout
from unmask.coursework.study.outcomes import AGREES, DIFFERS, REPORT_DEPTHS, TOSS, Outcome
from unmask.coursework.study.run import Study
from unmask.models.activations import activation
from unmask.text import figure, listed, moment


def findings(study: Study) -> tuple[str, ...]:
    """Return the findings: which nets trained, how small gradients become, tanh against LeCun."""
    found = [_trained(study), *_toss(study), _first_layer(study)]
    if study.comparison:
        found.append(throughout(study.comparison))
    return tuple(found)


def _trained(study: Study) -> str:
    nets = sum(o.seeds for o in study.outcomes)
    trained = sum(o.trained for o in study.outcomes)
    said = f"Of {nets} nets {trained} trained at all."
    counts = {
        kind: sum(o.agreement == kind for o in study.outcomes) for kind in (AGREES, TOSS, DIFFERS)
    }
    told = sum(counts.values())
    if not told:
        return said
    parts = [f"{counts[AGREES]} agree{'s' * (counts[AGREES] == 1)} with ours"]
    if counts[TOSS]:
        parts.append(f"{counts[TOSS]} {'is' if counts[TOSS] == 1 else 'are'} a toss of the seed")
    if counts[DIFFERS]:
        parts.append(f"{counts[DIFFERS]} differ{'s' * (counts[DIFFERS] == 1)}")
    return f"{said} Of the report's figures for {told} of these cells, {listed(parts)}."


def _toss(study: Study) -> list[str]:
    """Return what the seeds show about ReLU at 40 layers, of which the report has one run."""
    deepest = max(REPORT_DEPTHS)
    cell = [o for o in study.outcomes if (o.depth, o.activation) == (deepest, "relu")]
    return [
        f"ReLU at {deepest} layers {_certainty(o)}: {o.trained} of our {o.seeds} seeds "
        f"train{'s' * (o.trained == 1)}, by which the share of seeds that do lies between "
        f"{100 * o.trained_interval[0]:.0f} and {100 * o.trained_interval[1]:.0f} % (95 % "
        "confidence); the report's one run stayed at chance."
        for o in cell
        if o.seeds > 1
    ]


def _certainty(outcome: Outcome) -> str:
    if 0 < outcome.trained < outcome.seeds:
        return "is a toss of the seed"
    return "may be a toss of the seed, which one run can't show"


def _first_layer(study: Study) -> str:
    depth = max(study.plan.depths)
    deepest = [p for p in study.profiles_after if p.depth == depth and len(p.measured)]
    if not deepest:
        return f"Every net of {depth} layers diverged."
    ends = [
        f"{figure(p.median[0])} with {activation(p.activation).title}"
        for p in sorted(deepest, key=lambda p: -p.median[0])
    ]
    when = moment(study.plan.probe_epoch).capitalize()
    return (
        f"{when} the largest gradient that reaches the first of {depth} layers is {listed(ends)} "
        "(medians over seeds)."
    )
