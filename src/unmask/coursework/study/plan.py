"""What the study trains: every setting of it, checked before anything is loaded that computes."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from unmask.errors import UserError, require_whole
from unmask.sweep.spec import NetSpec, grid

if TYPE_CHECKING:
    from unmask.data.images import Images

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
