from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from made_up import pictures
from unmask.coursework.study.plan import StudyPlan
from unmask.coursework.study.run import HISTORY_FILE, chance_of, run_study
from unmask.errors import UserError
from unmask.sweep.engine import SweepInterrupted, SweepProgress
from unmask.sweep.history import FINISHED, SweepHistory

TINY: dict[str, Any] = {
    "depths": (1, 3),
    "activations": ("tanh", "lecun"),
    "seeds": 2,
    "width": 5,
    "batch_size": 16,
    "epochs": 2,
    "probe_epoch": 1,
    "learning_rate": 0.1,
    "training_pictures": 200,
    "validation_pictures": 50,
}


def test_the_defaults_are_the_documents() -> None:
    specs = StudyPlan().specs()
    assert len(specs) == 36
    assert [(s.depth, s.activation, s.seed) for s in specs[:5]] == [
        (5, "relu", 0),
        (5, "relu", 1),
        (5, "relu", 2),
        (5, "tanh", 0),
        (5, "tanh", 1),
    ]
    assert {(s.width, s.init, s.loss, s.optimizer) for s in specs} == {
        (32, "glorot_uniform", "cross_entropy", "sgd")
    }
    assert {(s.learning_rate, s.batch_size, s.epochs) for s in specs} == {(0.01, 32, 40)}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"depths": ()}, "at least one of the depths, each once: got none"),
        ({"activations": ("tanh", "tanh")}, "activations, each once: got tanh tanh"),
        ({"activations": ("tahn",)}, "unknown activation: got 'tahn'; did you mean 'tanh'?"),
        ({"depths": (0,)}, "the depth must be a whole number: got 0"),
        ({"seeds": 0}, "number of seeds must be a whole number: got 0; give 1 to 10000"),
        ({"epochs": 0}, "number of epochs must be a whole number: got 0"),
        ({"epochs": 2}, "got probe epoch 3 of 2"),
        ({"validation_pictures": 0}, "validation images must be a whole number"),
        ({"learning_rate": float("nan")}, "the learning rate must be a positive number: got nan"),
        ({"init": "mean_field"}, "needs sigma_w2"),
    ],
)
def test_what_can_not_be_trained_is_refused(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as refusal:
        StudyPlan(**settings)
    assert line in str(refusal.value)


def test_the_last_pictures_validate_and_the_first_train() -> None:
    images = pictures(300)
    training, validation = StudyPlan(**TINY).divide(images)
    assert np.array_equal(training.pixels, images.pixels[:200])
    assert np.array_equal(validation.pixels, images.pixels[250:])
    with pytest.raises(UserError, match="got 200 to train on and 50 to validate on, 250 in all"):
        StudyPlan(**TINY).divide(pictures(249))


def test_only_what_changes_a_net_departs_from_the_document() -> None:
    plan = StudyPlan(depths=(5,), seeds=9, epochs=10)
    assert plan.changes() == {"depths": (5,), "seeds": 9, "epochs": 10}
    assert plan.departures() == {"epochs": 10}
    assert StudyPlan().command() == "unmask flow study"
    assert plan.command() == "unmask flow study --depths 5 --seeds 9 --epochs 10"


def test_chance_is_the_share_of_the_commonest_class() -> None:
    images = pictures(1000)
    assert chance_of(images) == max(np.unique(images.labels, return_counts=True)[1]) / 1000


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_a_study_trains_probes_and_is_kept(engine: Any, tmp_path: Path) -> None:
    plan = StudyPlan(**TINY)
    seen: list[SweepProgress] = []
    study = run_study(
        plan,
        images=(pictures(250), pictures(100, seed=5)),
        folder=tmp_path,
        threads=1,
        engine=engine,
        progress=seen.append,
    )
    assert (study.history.status == FINISHED).all()
    assert study.history.probe_epochs == (0, 1)
    assert all(np.isfinite(p.median).all() and (p.median > 0).all() for p in study.profiles_after)
    assert len(study.outcomes) == 4
    assert all(o.seeds == 2 for o in study.outcomes)
    assert [c.depth for c in study.comparison] == [1, 3]
    assert seen[-1].nets_done == 8
    assert study.stamp["command"] == plan.command()
    kept = SweepHistory.load(tmp_path / HISTORY_FILE)
    assert np.array_equal(kept.test["test_loss"], study.history.test["test_loss"])


def test_a_study_is_not_begun_over_another_but_resumed(tmp_path: Path) -> None:
    images = pictures(250), pictures(100, seed=5)
    plan = StudyPlan(**TINY)
    first = run_study(plan, images=images, folder=tmp_path, threads=1)
    before = (tmp_path / HISTORY_FILE).read_bytes()
    with pytest.raises(UserError, match="already holds a sweep"):
        run_study(plan, images=images, folder=tmp_path, threads=1)
    other = StudyPlan(**{**TINY, "width": 6})
    with pytest.raises(UserError, match="belongs to another sweep"):
        run_study(other, images=images, folder=tmp_path, threads=1, resume=True)
    assert (tmp_path / HISTORY_FILE).read_bytes() == before
    again = run_study(plan, images=images, folder=tmp_path, threads=1, resume=True)
    assert [o.sentence for o in again.outcomes] == [o.sentence for o in first.outcomes]


def test_an_interrupted_study_goes_on_to_the_same_figures(tmp_path: Path) -> None:
    images = pictures(250), pictures(100, seed=5)
    plan = StudyPlan(**TINY)

    def stop(progress: SweepProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SweepInterrupted):
        run_study(plan, images=images, folder=tmp_path, threads=1, progress=stop)
    resumed = run_study(plan, images=images, folder=tmp_path, threads=1, resume=True)
    whole = run_study(plan, images=images, threads=1)
    assert np.array_equal(resumed.history.test["test_loss"], whole.history.test["test_loss"])
    assert np.array_equal(
        resumed.history.layers["gradient_max"],
        whole.history.layers["gradient_max"],
        equal_nan=True,
    )
