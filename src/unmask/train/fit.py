"""Training of one classifier on images in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unmask.data.augment import Augmentation, Draws, augmented, draw, mixed
from unmask.data.images import Images
from unmask.data.load import load_beside, load_training
from unmask.errors import UserError
from unmask.runtime import environment_stamp, seeded
from unmask.train.adversary import Adversary
from unmask.train.checks import check_network, check_parts, check_pictures, check_teacher
from unmask.train.config import FitConfig
from unmask.train.device import autocast, described, pick_device, placed
from unmask.train.distributed import processes
from unmask.train.evaluation import accuracy, logits_of
from unmask.train.history import EpochFigures, History
from unmask.train.loggers import Logger, TensorBoardLogger
from unmask.train.loop import Descent, Progress
from unmask.train.teacher import Teacher

_ORDER_STREAM = 3
# Fast adversarial training can lose all it has gained within an epoch (Wong et al., 2020).
_COLLAPSED, _COUNTS_FROM = 0.5, 0.3


@dataclass(frozen=True, kw_only=True)
class FitProgress(Progress):
    """How far a run is.

    Args:
        loss: the mean over the epoch so far.
        accuracy: likewise, on the augmented images, 0 to 1.
        pictures_per_second: images trained on a second, over the epoch so far.
        epoch, step and the rest: see Progress.
    """

    loss: float
    accuracy: float
    pictures_per_second: float


class FitInterrupted(KeyboardInterrupt):
    """Ctrl-C during fit: the model has its best weights so far.

    Args:
        history: the epochs so far.
    """

    def __init__(self, history: History) -> None:
        super().__init__("training was interrupted")
        self.history = history


def fit(
    model: nn.Module,
    images: Any,
    config: FitConfig,
    *,
    validation: Any = None,
    adversary: Adversary | None = None,
    teacher: Teacher | None = None,
    start: str | None = None,
    directory: str | Path | None = None,
    checkpoints: bool = True,
    resume: bool = False,
    device: str = "auto",
    progress: Callable[[FitProgress], None] | None = None,
    tensorboard: bool = False,
    log: Sequence[Logger] = (),
) -> History:
    """Train a model that takes pixels in [0, 1], float[b, c, h, w], to logits.

    The model ends in eval mode with the weights of the best epoch (see History). The same seed,
    machine and number of threads give the same bits on the CPU. Processes that have joined (see
    train.distributed) each train on their part of every batch. This changes nothing but rounding,
    what dropout draws and which view a teacher sees; only the first writes and reads files.

    Args:
        model: trained in place, on the device.
        images: what is trained on, as load_data takes it; of a name or folder its training images.
        config: every setting.
        validation: given likewise and measured after each epoch; their accuracy decides which epoch
            is best.
        adversary: changes the training images, and its accuracy decides which epoch is best; a run
            that falls below half of its best has collapsed and ends.
        teacher: its predictions are part of the targets; its networks are moved to the device, in
            eval mode.
        start: a name for the weights that the model comes with, which a resumed run must share.
        directory: gets checkpoint.safetensors and history.jsonl after every epoch.
        checkpoints: whether it gets them; on a GPU writing can take longer than an epoch.
        resume: continue after the last whole epoch of the run whose checkpoint is in directory, to
            the very figures of an uninterrupted run.
        device: auto, cpu, cuda or cuda:N.
        progress: called about five times a second.
        tensorboard: write events to directory/tensorboard.
        log: get each epoch's figures, see train.loggers.

    Returns:
        The history of the run.

    Raises:
        FitInterrupted: Ctrl-C.
        UserError: images that can't be trained on, a checkpoint of another run, or a loss that
            isn't finite.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        >>> history = unmask.fit(
        ...     model,
        ...     unmask.load_data("mnist", part="train", count=500),
        ...     unmask.FitConfig(epochs=2),
        ... )
        >>> len(history.epochs)
        2
    """
    if not isinstance(model, nn.Module):
        raise UserError(
            "fit trains a torch.nn.Module", got=type(model).__name__, do="give the network itself"
        )
    if not isinstance(config, FitConfig):
        raise UserError(
            "the settings are a FitConfig",
            got=type(config).__name__,
            do="FitConfig(epochs=...)",
        )
    if resume and directory is None:
        raise UserError("there is nothing to resume from", do="give the run's directory")
    directory = None if directory is None else Path(directory)
    images = load_training(images)
    validation = None if validation is None else load_beside(validation, images)
    check_pictures(images, validation)
    model = placed(model, pick_device(device))
    run = _Run(model, images, config, validation, adversary, teacher, start, progress)
    file = directory / "checkpoint.safetensors" if directory and checkpoints else None
    if resume and file:
        run.restore(file)
    if run.together.first:
        run.loggers = list(log)
        if tensorboard and directory:
            run.loggers.append(TensorBoardLogger(directory / "tensorboard", len(run.epochs)))
    ended = "interrupted"
    try:
        run.run(file)
        ended = "target" if run.reached else "collapsed" if run.collapsed else "finished"
    except KeyboardInterrupt:
        raise FitInterrupted(run.history(ended)) from None
    finally:
        run.keep_best()
    return run.history(ended)


class _Run(Descent[EpochFigures]):
    """A classifier's training, which keeps its best epoch by validation or under attack."""

    record = EpochFigures

    def __init__(
        self,
        model: nn.Module,
        images: Images,
        config: FitConfig,
        validation: Images | None,
        adversary: Adversary | None,
        teacher: Teacher | None,
        start: str | None,
        progress: Callable[[FitProgress], None] | None,
    ) -> None:
        self.config, self.validation, self.adversary = config, validation, adversary
        self.progress = progress
        device = next(model.parameters(), torch.empty(0)).device
        pixels = torch.from_numpy(images.pixels).permute(0, 2, 3, 1)
        self.pixels = pixels.contiguous().to(device)
        self.labels = torch.from_numpy(images.labels).to(device)
        still = draw(Augmentation(), 1, seed=0, epoch=0).to(device)
        one = augmented(self.pixels[:1], config.augmentation, still)
        self.classes = len(images.class_names)
        check_network(model, one, self.classes)
        self.teacher = None if teacher is None else teacher.to(device)
        if teacher is not None:
            check_teacher(teacher, model, one, self.classes)
        steps = math.ceil(len(images) / config.batch_size)
        smallest = min(len(p) for p in (images, validation) if p is not None)
        check_parts(processes().count, min(smallest, len(images) // steps), adversary)
        key: dict[str, Any] = {
            "config": config.as_dict(),
            "data": images.sha256,
            "validation": None if validation is None else validation.sha256,
        }
        told = {
            "adversary": None if adversary is None else adversary.as_dict(),
            "teacher": None if teacher is None else teacher.as_dict(),
            "start": start,
        }
        key |= {name: value for name, value in told.items() if value is not None}
        super().__init__(model, config, steps=steps, key=key, sums=2, reports=progress is not None)
        self.best_epoch = 0
        self.best: dict[str, Tensor] = {}
        self.train_seconds = 0.0
        self.loggers: list[Logger] = []
        self.drawn: dict[int, tuple[Draws, tuple[Tensor, ...]]] = {}

    @property
    def reached(self) -> bool:
        """Whether the last epoch's validation exceeds the target."""
        target = self.config.target
        figure = _figure(self.epochs[-1]) if self.epochs else None
        return target is not None and figure is not None and figure > target

    @property
    def collapsed(self) -> bool:
        """Whether the accuracy under attack has fallen below half of its best."""
        under_attack = [e.validation_attacked or 0.0 for e in self.epochs]
        best = max(under_attack, default=0.0)
        return best > _COUNTS_FROM and under_attack[-1] < _COLLAPSED * best

    @property
    def over(self) -> bool:
        """Whether no epoch is left to train, or the last one ends the run."""
        return super().over or self.reached or self.collapsed

    def begin(self, epoch: int) -> None:
        """Draw the augmentation of each image and the order of the images."""
        if epoch not in self.drawn:
            self.drawn[epoch] = self._drawn(epoch)
        self.drawn.pop(epoch - 1, None)

    def step(self, step: int) -> int:
        """Train on a batch; add its loss, and how many images were classified correctly."""
        epoch, i = divmod(step, self.steps)
        draws, batches = self.drawn[epoch]
        part = batches[i][self.together.part(len(batches[i]))]
        pictures, labels, targets = self._batch(part, draws)
        precision = self.config.precision
        if self.adversary is not None:
            done = step / (self.steps * self.count)
            with autocast(self.device, precision):
                pictures = self.adversary.attacked(self.model, pictures, labels, part=done)
        with autocast(self.device, precision):
            logits = self.learner(pictures)
        loss = functional.cross_entropy(
            logits.float(), targets, label_smoothing=self.config.label_smoothing
        )
        # Gradients are averaged over processes, whose parts may differ by an image.
        self.descend(loss * (len(part) * self.together.count / len(batches[i])), step)
        self.sums[0] += loss.detach() * len(part)
        self.sums[1] += (logits.detach().argmax(1) == labels).sum()
        if self.device.type == "cuda" and i + 1 == self.steps and epoch + 1 < self.count:
            # While the GPU still computes this epoch's last steps.
            self.drawn[epoch + 1] = self._drawn(epoch + 1)
        return len(part)

    def _drawn(self, epoch: int) -> tuple[Draws, tuple[Tensor, ...]]:
        config, count = self.config, len(self.labels)
        draws = draw(config.augmentation, count, seed=config.seed, epoch=epoch)
        order = torch.from_numpy(seeded(config.seed, _ORDER_STREAM, epoch).permutation(count))
        return draws.to(self.device), order.to(self.device).tensor_split(self.steps)

    def _batch(self, part: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """Return augmented images, their labels, and the targets: classes or probabilities."""
        augmentation, own = self.config.augmentation, draws[part]
        pictures, labels = augmented(self.pixels[part], augmentation, own), self.labels[part]
        if not augmentation.cutmix and self.teacher is None:
            return pictures, labels, labels
        targets = functional.one_hot(labels, self.classes).float()
        if augmentation.cutmix:
            mates = augmented(self.pixels[own.mate], augmentation, draws[own.mate])
            pictures, share = mixed(pictures, mates, own.square)
            others = functional.one_hot(self.labels[own.mate], self.classes).float()
            targets = others.lerp(targets, share[:, None])
        if self.teacher is not None:
            with autocast(self.device, self.config.precision):
                targets = self.teacher.targets(pictures, targets, augmentation)
        return pictures, labels, targets

    def _validate(self, images: Images) -> tuple[float, float, float | None]:
        config, labels = self.config, torch.from_numpy(images.labels)

        def logits(test_time: str) -> Tensor:
            part = logits_of(
                self.model,
                images[self.together.part(len(images))],
                test_time=test_time,
                device=self.device,
                precision=config.precision,
            )
            return self.together.gathered(part, len(images))

        single = logits("none")
        averaged = (
            None if config.test_time == "none" else accuracy(logits(config.test_time), labels)
        )
        return float(functional.cross_entropy(single, labels)), accuracy(single, labels), averaged

    def tell(self, where: Progress, means: list[float], spent: float) -> None:
        """Report loss and accuracy of the epoch so far."""
        assert self.progress
        loss, right = means
        rate = len(self.labels) * where.step / self.steps / spent
        self.progress(
            FitProgress(**vars(where), loss=loss, accuracy=right, pictures_per_second=rate)
        )

    def note(self, means: list[float], spent: float) -> EpochFigures:
        """Validate, and return the epoch's figures; keep the weights if they are the best."""
        epoch, began = len(self.epochs) + 1, time.perf_counter()
        self.train_seconds += spent
        validated: tuple[float | None, float | None, float | None] = (None, None, None)
        if self.validation is not None and epoch >= self.config.validate_from:
            validated = self._validate(self.validation)
        attacked = None
        if self.adversary is not None:
            attacked = self.adversary.accuracy(self.model.eval())
        self.seconds += time.perf_counter() - began
        loss, right = means
        figures = EpochFigures(
            epoch=epoch,
            step=self.steps * epoch,
            pictures=len(self.labels) * epoch,
            rate=self.rate,
            train_loss=loss,
            train_accuracy=right,
            validation_loss=validated[0],
            validation_accuracy=validated[1],
            validation_averaged=validated[2],
            validation_attacked=attacked,
            train_seconds=self.train_seconds,
            seconds=self.seconds,
            pictures_per_second=len(self.labels) / spent,
        )
        figure = _figure(figures)
        best = _figure(self.epochs[self.best_epoch - 1]) if self.best_epoch else None
        if best is None or (figure is not None and figure >= best):
            self.best = {k: v.clone() for k, v in self.model.state_dict().items()}
            self.best_epoch = epoch
        return figures

    def ended(self) -> None:
        """Log the epoch's figures."""
        figures = {k: v for k, v in asdict(self.epochs[-1]).items() if v is not None}
        epoch = figures.pop("epoch")
        for logger in self.loggers:
            logger.numbers(epoch, figures)

    def keep_best(self) -> None:
        """Give the model its best weights, if an epoch has ended, and set it to eval mode."""
        if self.best:
            self.model.load_state_dict(self.best)
        self.model.eval()

    def history(self, ended: str) -> History:
        """Return the epochs so far, with their provenance."""
        stamp = environment_stamp(
            **self.key,
            device=described(self.device),
            threads=torch.get_num_threads(),
            processes=self.together.count,
        )
        return History(tuple(self.epochs), self.best_epoch, ended, stamp)

    def header(self) -> dict[str, Any]:
        """Return what a checkpoint holds, with the best epoch."""
        return {**super().header(), "best_epoch": self.best_epoch}

    def kept(self) -> dict[str, dict[str, Tensor]]:
        """Return the weights of the best epoch."""
        return {"best": self.best}

    def take(
        self, header: dict[str, Any], epochs: list[EpochFigures], best: dict[str, Tensor]
    ) -> None:
        """Restore the best epoch and its weights."""
        history = History(tuple(epochs), header["best_epoch"], "interrupted")
        if history.best is None:
            raise ValueError("it holds no best epoch")
        if best.keys() != self.model.state_dict().keys():
            raise ValueError("the weights of its best epoch are others than the network's")
        self.best = {k: v.to(self.device, copy=True) for k, v in best.items()}
        self.best_epoch = history.best_epoch
        self.train_seconds = epochs[-1].train_seconds


def _figure(epoch: EpochFigures) -> float | None:
    """Return the accuracy that decides which epoch is best and whether the target is exceeded."""
    if epoch.validation_attacked is not None:
        return epoch.validation_attacked
    averaged = epoch.validation_averaged
    return epoch.validation_accuracy if averaged is None else averaged
