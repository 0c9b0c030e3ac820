from __future__ import annotations

from made_up import CHANCE, diverge, history, plan, study
from unmask.coursework.study.findings import findings
from unmask.coursework.study.run import Study


def test_the_findings_are_those_of_the_tables() -> None:
    trained, toss, first_layer, pair = findings(study())
    assert trained == (
        "Of 36 nets 26 trained at all. Of the report's figures for 9 of these cells, 7 agree "
        "with ours, 1 is a toss of the seed and 1 differs."
    )
    assert toss.startswith("ReLU at 40 layers is a toss of the seed: 2 of our 3 seeds train, ")
    assert "lies between 21 and 94 %" in toss
    assert first_layer == (
        "After 3 epochs the largest gradient that reaches the first of 40 layers is 0.060 with "
        "ReLU, 0.020 with tanh, 0.010 with LeCun and 5.0 × 10⁻⁴² with Sigmoid (medians over seeds)."
    )
    assert pair.startswith("The report says that the largest gradient of tanh is smaller")


def test_one_seed_says_nothing_of_a_toss() -> None:
    assert not any("ReLU at 40 layers" in line for line in findings(study(seeds=1)))


def test_seeds_that_all_end_alike_leave_the_toss_open() -> None:
    of = plan(activations=("relu",))
    made = history(of)
    made.test["test_accuracy"][:] = CHANCE
    toss = findings(Study.of(of, made, CHANCE))[1]
    assert toss.startswith("ReLU at 40 layers may be a toss of the seed")
    assert (
        "0 of our 3 seeds train, by which the share of seeds that do lies between 0 and 56 %"
        in toss
    )


def test_a_depth_where_all_diverged_is_told() -> None:
    of = plan(depths=(5,), activations=("relu",))
    made = history(of)
    for row in range(3):
        diverge(made, row)
    assert "Every net of 5 layers diverged." in findings(Study.of(of, made, CHANCE))
