from __future__ import annotations

import numpy as np
import pytest

from unmask.data.mnist import load_mnist
from unmask.errors import UserError
from unmask.flow.map import MapPlan, TrainabilityMap, run_map
from unmask.flow.theory import phase


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
