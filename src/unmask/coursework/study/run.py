"""The study of depth against activation: gradients in nets of 5, 20 and 40 layers."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from unmask.coursework.study.comparison import Comparison, compare
from unmask.coursework.study.outcomes import Outcome, outcomes
from unmask.coursework.study.profiles import Claim, Profile, claims, profiles
from unmask.data.images import Images
from unmask.data.mnist import load_mnist
from unmask.errors import UserError, require_whole
from unmask.execution.executor import Executor
from unmask.sweep.engine import SweepProgress, train_sweep
from unmask.sweep.history import SweepHistory
from unmask.sweep.spec import NetSpec, grid
from unmask.sweep.task import Engine

HISTORY_FILE = "history.npz"
DEAD_PROBE_PICTURES = 1000
# For each depth and activation; more would take much memory before the first net trains.
MAX_SEEDS = 10_000


@dataclass(frozen=True)
class StudyPlan:
    """What the study trains; every default is the report's setting.

    Every depth is trained with every activation and the seeds 0 to seeds - 1.

    Args:
        depths: numbers of hidden layers, distinct.
        activations: names in ACTIVATIONS, distinct.
        seeds: nets for each depth and activation, 1 to 10000.
        width: hidden width.
        init: a name in INITS.
        sigma_w2: variance of the weights times fan-in, for the initialisation mean_field.
        sigma_b2: variance of the biases, for the initialisation mean_field.
        loss: "cross_entropy" or "half_squared".
        optimizer: as NetSpec takes it.
        learning_rate: above 0.
        batch_size: images in a batch.
        epochs: passes over the training images.
        probe_epoch: the largest gradients are taken at the start and after so many epochs, on the
            first batch_size training images; 1 to epochs.
        training_pictures: the nets train on so many of the first training images of MNIST.
        validation_pictures: and are validated on so many of the last.

    Raises:
        UserError: when a setting is out of its range.
    """

    depths: tuple[int, ...] = (5, 20, 40)
    activations: tuple[str, ...] = ("relu", "tanh", "sigmoid", "lecun")
    seeds: int = 3
    width: int = 32
    init: str = "glorot_uniform"
    sigma_w2: float | None = None
    sigma_b2: float | None = None
    loss: str = "cross_entropy"
    optimizer: str = "sgd"
    learning_rate: float = 0.01
    batch_size: int = 32
    epochs: int = 40
    probe_epoch: int = 3
    training_pictures: int = 48_000
    validation_pictures: int = 12_000

    def __post_init__(self) -> None:
        for name in ("depths", "activations"):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            if not values or len(set(values)) < len(values):
                raise UserError(
                    f"the study needs at least one of the {name}, each once",
                    got=" ".join(map(str, values)) or "none",
                    do=f"for example {' '.join(map(str, getattr(StudyPlan, name)))}",
                )
        for name, high in (
            ("seeds", MAX_SEEDS),
            ("epochs", 1 << 20),
            ("probe_epoch", 1 << 20),
            ("training_pictures", 1 << 31),
            ("validation_pictures", 1 << 31),
        ):
            what = name.replace("_", " ").replace("pictures", "images")
            require_whole(f"number of {what}", getattr(self, name), 1, high)
        if self.probe_epoch > self.epochs:
            raise UserError(
                "the gradients can't be probed after the training has ended",
                got=f"probe epoch {self.probe_epoch} of {self.epochs}",
                do=f"probe after 1 to {self.epochs}",
            )
        self.specs()

    def specs(self) -> list[NetSpec]:
        """Return the nets to train, by depth, then activation, then seed."""
        return grid(
            depth=self.depths,
            activation=self.activations,
            seed=range(self.seeds),
            **{
                name: getattr(self, name)
                for name in (
                    "width",
                    "init",
                    "sigma_w2",
                    "sigma_b2",
                    "loss",
                    "optimizer",
                    "learning_rate",
                    "batch_size",
                    "epochs",
                )
            },
        )

    def changes(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults, by name."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) != f.default
        }

    def departures(self) -> dict[str, Any]:
        """Return the changes that make the nets differ from the report's."""
        more_of_the_same = ("depths", "activations", "seeds")
        return {k: v for k, v in self.changes().items() if k not in more_of_the_same}

    def command(self) -> str:
        """Return the command line that runs this plan."""
        words = ["unmask", "flow", "study"]
        for name, value in self.changes().items():
            words.append(f"--{name.replace('_', '-').replace('pictures', 'images')}")
            words += map(str, value) if isinstance(value, tuple) else [str(value)]
        return shlex.join(words)

    def divide(self, images: Images) -> tuple[Images, Images]:
        """Return the images to train on and those to validate on.

        Args:
            images: the training set.

        Raises:
            UserError: when it has too few images for the plan.
        """
        wanted = self.training_pictures + self.validation_pictures
        if wanted > len(images):
            raise UserError(
                f"{images.name} has {len(images)} training images",
                got=f"{self.training_pictures} to train on and {self.validation_pictures} "
                f"to validate on, {wanted} in all",
                do="ask for fewer",
            )
        last = len(images) - self.validation_pictures
        return images[: self.training_pictures], images[last:]


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
