"""The study of depth against activation: gradients in nets of 5, 20 and 40 layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unmask.coursework.study.comparison import Comparison, compare
from unmask.coursework.study.outcomes import Outcome, outcomes
from unmask.coursework.study.plan import StudyPlan
from unmask.coursework.study.profiles import Claim, Profile, claims, profiles
from unmask.data.images import Images
from unmask.data.mnist import load_mnist
from unmask.execution.executor import Executor
from unmask.sweep.engine import SweepProgress, train_sweep
from unmask.sweep.history import SweepHistory
from unmask.sweep.task import Engine

HISTORY_FILE = "history.npz"
DEAD_PROBE_PICTURES = 1000


@dataclass(frozen=True, eq=False)
class Study:
    """What the study found: every net's history and the tables drawn from it.

    Args:
        plan: what was trained.
        history: of every net.
        chance: the test accuracy of always predicting the most frequent class, 0 to 1.
        outcomes: the report's table B.
        profiles_start: the largest gradients of part C at the initialisation.
        profiles_after: the same after plan.probe_epoch epochs.
        claims: the report's claims about profiles_after.
        comparison: part D, empty when tanh and LeCun's activation are not both in the plan.
    """

    plan: StudyPlan
    history: SweepHistory
    chance: float
    outcomes: tuple[Outcome, ...]
    profiles_start: tuple[Profile, ...]
    profiles_after: tuple[Profile, ...]
    claims: tuple[Claim, ...]
    comparison: tuple[Comparison, ...]

    @staticmethod
    def of(plan: StudyPlan, history: SweepHistory, chance: float) -> Study:
        """Return the study with its tables drawn from a history of the plan's nets."""
        start, after = profiles(history, 0), profiles(history, plan.probe_epoch)
        return Study(
            plan=plan,
            history=history,
            chance=chance,
            outcomes=outcomes(history, chance),
            profiles_start=start,
            profiles_after=after,
            claims=claims(after),
            comparison=compare(history, (start, after)),
        )

    @property
    def stamp(self) -> dict[str, Any]:
        """The history's provenance with the plan and the command that replays it."""
        return {**self.history.stamp, "command": self.plan.command(), "plan": asdict(self.plan)}


def chance_of(test: Images) -> float:
    """Return the accuracy of always predicting the most frequent class of these images."""
    return float(np.bincount(test.labels).max() / len(test))


def run_study(
    plan: StudyPlan,
    *,
    images: tuple[Images, Images] | None = None,
    folder: Path | None = None,
    resume: bool = False,
    threads: int | None = None,
    engine: Engine | None = None,
    device: str = "cpu",
    on: Executor | None = None,
    progress: Callable[[SweepProgress], None] | None = None,
) -> Study:
    """Train the plan's nets and return what was found.

    Args:
        plan: what to train.
        images: training and test images, by default MNIST's.
        folder: where the history is kept while the nets train and after; None for nowhere.
        resume: don't train the nets again that the folder's history holds.
        threads: nets at once, by default one for each core.
        engine: see train_sweep.
        device: see train_sweep.
        on: see train_sweep.
        progress: called as the nets train.

    Raises:
        UserError: when the plan doesn't fit the images, or the folder holds a study and resume is
            not set.
        SweepInterrupted: on Ctrl-C, with every finished net kept in the folder.
    """
    checkpoint = None if folder is None else folder / HISTORY_FILE
    train, test = load_mnist() if images is None else images
    training, validation = plan.divide(train)
    history = train_sweep(
        plan.specs(),
        training,
        validation=validation,
        test=test,
        probe_batch=training[: plan.batch_size],
        dead_probe=validation[:DEAD_PROBE_PICTURES],
        probe_epochs=(0, plan.probe_epoch),
        threads=threads,
        engine=engine,
        device=device,
        on=on,
        progress=progress,
        checkpoint=checkpoint,
        resume=resume,
    )
    return Study.of(plan, history, chance_of(test))
