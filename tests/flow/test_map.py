from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from unmask.data.mnist import load_mnist
from unmask.errors import UserError
from unmask.execution.executor import LocalExecutor
from unmask.flow.map import TrainabilityMap, run_map
from unmask.flow.map_plan import MapPlan
from unmask.flow.theory import phase
from unmask.sweep.engine import train_sweep


def test_default_plan_has_at_least_600_nets_about_the_critical_point() -> None:
    plan = MapPlan()
    assert len(plan.specs()) >= 600
    low, high = plan.sigma_w2_range()
    assert low < 1.761 < high
    assert plan.depths()[[0, -1]].tolist() == [2, 100]
    assert np.isfinite(plan.sigma_w2()).all()


def test_specs_lie_in_the_order_of_the_map() -> None:
    plan = MapPlan(columns=3, rows=2, deepest=9)
    specs = plan.specs()
    assert [s.depth for s in specs] == [2, 2, 2, 9, 9, 9]
    assert [s.sigma_w2 for s in specs] == pytest.approx([*plan.sigma_w2()] * 2)


def test_a_map_of_a_million_nets_makes_them_when_they_are_asked_for() -> None:
    tracemalloc.start()
    specs = MapPlan(columns=1000, rows=1000, deepest=1000).specs()
    assert len(specs) == 999_000
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    sigma_w2 = specs.plan.sigma_w2()
    for index in (0, 999, 1000, 123_456, 998_999):
        made = specs[index]
        assert (made.depth, made.sigma_w2) == (2 + index // 1000, sigma_w2[index % 1000])
    with pytest.raises(IndexError):
        specs[999_000]


def test_accuracies_are_those_of_a_sweep(tmp_path: Path) -> None:
    plan = MapPlan(columns=3, rows=2, deepest=5, steps=20, width=8, learning_rate=0.1)
    train, test = load_mnist()
    sweep = train_sweep(list(plan.specs()), train[:640], test=test[:2000], probe_epochs=())
    for on in (None, LocalExecutor()):
        found = run_map(plan, (train, test), folder=tmp_path / f"{on is None}" / "shards", on=on)
        np.testing.assert_array_equal(found.accuracy.ravel(), sweep.test["test_accuracy"])


def test_a_small_map_shows_the_theorys_phases() -> None:
    plan = MapPlan(sigma_w2_low=0.2, sigma_w2_high=1.76, columns=2, rows=2, deepest=40, steps=300)
    found = run_map(plan, load_mnist())
    # The ordered net of 40 layers is ten times deeper than its 6 xi_c; the critical one is not.
    assert found.trainable_depth[0] < 10 < 40 < found.trainable_depth[1]
    assert found.learned.tolist() == [[True, True], [False, True]]
    assert found.agreement == 1.0
    assert found.trainable_depth[0] == 6 * phase("tanh", 0.2, 0.05).xi_c


def test_diverged_nets_have_not_learned() -> None:
    plan = MapPlan(columns=2, rows=2)
    accuracy = np.array([[np.nan, 0.9], [0.1, 0.21]])
    found = TrainabilityMap(plan, accuracy, np.array([50.0, 50.0]), 1.76, 0.1, {})
    assert found.learned.tolist() == [[False, True], [False, True]]
    # Depth 2 should train for both columns, depth 100 for neither: one of each row is right.
    assert found.agreement == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": 1}, "columns of a map"),
        ({"steps": 0}, "steps of a map"),
        ({"sigma_w2_low": 3.0, "sigma_w2_high": 2.0}, "3 to 2"),
        ({"activation": "tahn"}, "did you mean 'tanh'"),
        ({"learning_rate": float("nan")}, "learning rate"),
    ],
)
def test_mistakes_get_one_clear_line(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        MapPlan(**change)


def test_more_steps_than_pictures() -> None:
    train, test = load_mnist()
    with pytest.raises(UserError, match="10 steps of 32, 320 in all"):
        run_map(MapPlan(steps=10), (train[:300], test))
