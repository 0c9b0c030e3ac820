"""Train one network on images that lie in memory."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from unmask.data.augment import Augmentation, Draws, augmented, draw, mixed
from unmask.data.images import Images
from unmask.errors import UserError
from unmask.runtime import environment_stamp, seeded, sha256
from unmask.saved_state import check_keys, reading
from unmask.train.adversary import Adversary
from unmask.train.averaging import Average
from unmask.train.batch_norm import whole_batch_statistics
from unmask.train.checks import check_network, check_parts, check_pictures, check_teacher
from unmask.train.config import FitConfig
from unmask.train.device import (
    autocast,
    described,
    drawing_from,
    fastest_convolutions,
    pick_device,
)
from unmask.train.distributed import processes
from unmask.train.evaluation import accuracy, logits_of
from unmask.train.history import EpochFigures, History
from unmask.train.optimizers import descend, optimizers
from unmask.train.schedules import SCHEDULES
from unmask.train.state import load_run, save_run
from unmask.train.teacher import Teacher
from unmask.train.tensorboard import Scalars

_ORDER_STREAM, _DROPOUT_STREAM = 3, 4
_SECONDS_BETWEEN_REPORTS = 0.2
# Fast adversarial training can lose all it has gained within an epoch (Wong et al., 2020).
_COLLAPSED, _COUNTS_FROM = 0.5, 0.3


@dataclass(frozen=True)
class FitProgress:
    """How far a run is: loss and accuracy are the epoch's so far, seconds_left an estimate."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    pictures_per_second: float
    seconds: float
    seconds_left: float


class FitInterrupted(KeyboardInterrupt):
    """Ctrl-C during fit: the model has its best weights so far, and history says what they are."""

    def __init__(self, history: History) -> None:
        super().__init__("training was interrupted")
        self.history = history


def fit(
    model: nn.Module,
    images: Images,
    config: FitConfig,
    *,
    validation: Images | None = None,
    adversary: Adversary | None = None,
    teacher: Teacher | None = None,
    start: str | None = None,
    directory: Path | None = None,
    checkpoints: bool = True,
    resume: bool = False,
    device: str = "auto",
    progress: Callable[[FitProgress], None] | None = None,
    tensorboard: bool = False,
) -> History:
    """Train a model that takes pixels in [0, 1], float[b, c, h, w], to logits.

    The model ends in eval mode with the weights of the best epoch (see History). The same seed,
    machine and number of threads give the same bits on the CPU. In processes that have joined (see
    train.distributed) each learns from its part of every batch, which changes nothing but
    rounding, what dropout draws and which view a teacher sees; the first alone writes and reads
    files.

    Args:
        model: trained in place, on the device.
        images: what is trained on.
        config: every setting.
        validation: measured after each epoch; their accuracy decides which epoch is best.
        adversary: changes what is learnt from, and its accuracy decides which epoch is best; a run
            that falls below half of its best has collapsed and ends.
        teacher: shares in what is learnt; its networks are moved to the device, in eval mode.
        start: a name for the weights that the model comes with, which a resumed run must share.
        directory: gets checkpoint.safetensors and history.jsonl after every epoch.
        checkpoints: whether it does; on a GPU writing can take longer than an epoch.
        resume: go on after the last whole epoch of the run whose checkpoint lies in directory, to
            the very figures it would have had.
        device: auto, cpu, cuda or cuda:N.
        progress: called about five times a second.
        tensorboard: write events to directory/tensorboard.

    Returns:
        The history of the run.

    Raises:
        FitInterrupted: Ctrl-C.
        UserError: images that can't be trained on, a checkpoint of another run, or a loss that
            isn't finite.
    """
    check_pictures(images, validation)
    run = _Run(model, images, config, validation, adversary, teacher, pick_device(device), progress)
    if start is not None:
        run.key["start"] = start
    file = directory / "checkpoint.safetensors" if directory and checkpoints else None
    if resume and file:
        run.restore(file)
    writes = run.together.first
    scalars = Scalars(directory, len(run.epochs)) if tensorboard and directory and writes else None
    ended = "interrupted"
    try:
        while not run.over:
            run.train_epoch()
            if file and writes:
                run.save(file)
            if scalars:
                scalars.add(run.epochs[-1])
        ended = "target" if run.reached else "collapsed" if run.collapsed else "finished"
    except KeyboardInterrupt:
        raise FitInterrupted(run.history(ended)) from None
    finally:
        run.keep_best()
    return run.history(ended)


class _Run:
    """One training run between two epochs."""

    def __init__(
        self,
        model: nn.Module,
        images: Images,
        config: FitConfig,
        validation: Images | None,
        adversary: Adversary | None,
        teacher: Teacher | None,
        device: torch.device,
        progress: Callable[[FitProgress], None] | None,
    ) -> None:
        self.adversary = adversary
        self.config, self.device, self.validation = config, device, validation
        self.progress, self.name = progress, images.name
        self.model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        pixels = torch.from_numpy(images.pixels).permute(0, 2, 3, 1)
        self.pixels = pixels.contiguous().to(device)
        self.labels = torch.from_numpy(images.labels).to(device)
        still = draw(Augmentation(), 1, seed=0, epoch=0).to(device)
        one = augmented(self.pixels[:1], config.augmentation, still)
        self.classes = len(images.class_names)
        check_network(self.model, one, self.classes)
        self.teacher = None if teacher is None else teacher.to(device)
        if teacher is not None:
            check_teacher(teacher, self.model, one, self.classes)
        self.steps = math.ceil(len(images) / config.batch_size)
        self.together = processes()
        smallest = min(len(p) for p in (images, validation) if p is not None)
        check_parts(self.together.count, min(smallest, len(images) // self.steps), adversary)
        self.optimizers = optimizers(model, config)
        self.learner = self.together.learner(self.model)
        self.average = Average(model, config)
        self.epochs: list[EpochFigures] = []
        self.best_epoch = 0
        self.best: dict[str, Tensor] = {}
        self.drawn_ahead: tuple[Draws, Tensor] | None = None
        self.train_seconds = self.other_seconds = 0.0
        self.key = {
            "config": config.as_dict(),
            "data": images.sha256,
            "validation": None if validation is None else validation.sha256,
        }
        if adversary is not None:
            self.key["adversary"] = adversary.as_dict()
        if teacher is not None:
            self.key["teacher"] = teacher.as_dict()
        self.together.agree(sha256(json.dumps(self.key).encode()), "images or settings")

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
        return len(self.epochs) >= self.config.epochs or self.reached or self.collapsed

    def train_epoch(self) -> None:
        """Train one epoch, validate, and note the figures and the best weights."""
        epoch = len(self.epochs)
        seed = int(seeded(self.config.seed, _DROPOUT_STREAM, epoch).integers(1 << 63))
        began, before = time.perf_counter(), self.train_seconds
        # Each process drops out units of its own.
        own_seed = seed + self.together.rank
        whole_batches = whole_batch_statistics(self.model, self.together)
        with drawing_from(own_seed, self.device), whole_batches, fastest_convolutions():
            loss, right, rate = self._pass(epoch, began)
        self.train_seconds += time.perf_counter() - began
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is not finite in epoch {epoch + 1}: training diverged",
                got=loss,
                do=f"lower the learning rate, {self.config.rate:g}, or use precision fp32",
            )
        began = time.perf_counter()
        validated: tuple[float | None, float | None, float | None] = (None, None, None)
        with self.average.applied():
            if self.validation is not None and epoch + 1 >= self.config.validate_from:
                validated = self._validate(self.validation)
            attacked = None if self.adversary is None else self._under_attack(self.adversary)
            self.other_seconds += time.perf_counter() - began
            pictures = len(self.labels) * (epoch + 1)
            self.epochs.append(
                EpochFigures(
                    epoch=epoch + 1,
                    step=self.steps * (epoch + 1),
                    pictures=pictures,
                    rate=rate,
                    train_loss=loss,
                    train_accuracy=right,
                    validation_loss=validated[0],
                    validation_accuracy=validated[1],
                    validation_averaged=validated[2],
                    validation_attacked=attacked,
                    train_seconds=self.train_seconds,
                    seconds=self.train_seconds + self.other_seconds,
                    pictures_per_second=len(self.labels) / (self.train_seconds - before),
                )
            )
            self._note_best()

    def _pass(self, epoch: int, began: float) -> tuple[float, float, float]:
        config, count = self.config, len(self.labels)
        draws, order = self.drawn_ahead or self._drawn(epoch)
        self.drawn_ahead = None
        batches = order.tensor_split(self.steps)
        total_steps = self.steps * config.epochs
        # The sum of the losses, and how many were right.
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        seen, reported, height = 0, 0.0, 0.0
        self.model.train()
        for i, batch in enumerate(batches):
            step = epoch * self.steps + i
            height = SCHEDULES[config.schedule](step, total_steps, config.warmup, config.end)
            part = batch[self.together.part(len(batch))]
            pictures, labels, targets = self._batch(part, draws)
            if self.adversary is not None:
                with autocast(self.device, config.precision):
                    pictures = self.adversary.attacked(
                        self.model, pictures, labels, part=step / total_steps
                    )
            with autocast(self.device, config.precision):
                logits = self.learner(pictures)
            loss = functional.cross_entropy(
                logits.float(), targets, label_smoothing=config.label_smoothing
            )
            # Gradients are averaged over processes, whose parts may differ by an image.
            share = len(part) * self.together.count / len(batch)
            descend(self.optimizers, loss * share, height)
            self.average.update(step + 1, total_steps)
            sums[0] += loss.detach() * len(part)
            sums[1] += (logits.detach().argmax(1) == labels).sum()
            seen += len(part)
            now = time.perf_counter()
            # The last step of an epoch always, since logs get their line from it.
            due = now - reported > _SECONDS_BETWEEN_REPORTS or i + 1 == len(batches)
            if self.progress and due:
                reported = now
                loss_so_far, right_so_far = (sums / seen).tolist()
                self._report(epoch, i + 1, loss_so_far, right_so_far, now - began)
        if self.device.type == "cuda" and epoch + 1 < config.epochs:
            # While the GPU is still at work on what it was given.
            self.drawn_ahead = self._drawn(epoch + 1)
        loss_sum, right = self.together.summed(sums).tolist()
        return loss_sum / count, right / count, config.rate * height

    def _drawn(self, epoch: int) -> tuple[Draws, Tensor]:
        """Return what happens to each image in that epoch, and the order they come in."""
        config, count = self.config, len(self.labels)
        draws = draw(config.augmentation, count, seed=config.seed, epoch=epoch)
        order = torch.from_numpy(seeded(config.seed, _ORDER_STREAM, epoch).permutation(count))
        return draws.to(self.device), order.to(self.device)

    def _batch(self, part: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """Return augmented images, their labels, and what is learnt: those or shares."""
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

    def _under_attack(self, adversary: Adversary) -> float:
        self.model.eval()
        return adversary.accuracy(self.model)

    def _note_best(self) -> None:
        figure = _figure(self.epochs[-1])
        best = _figure(self.epochs[self.best_epoch - 1]) if self.best_epoch else None
        if best is None or (figure is not None and figure >= best):
            self.best = {k: v.clone() for k, v in self.model.state_dict().items()}
            self.best_epoch = self.epochs[-1].epoch

    def _report(self, epoch: int, step: int, loss: float, right: float, spent: float) -> None:
        assert self.progress
        done = epoch + step / self.steps
        seconds = self.train_seconds + self.other_seconds + spent
        self.progress(
            FitProgress(
                epoch=epoch + 1,
                epochs=self.config.epochs,
                step=step,
                steps=self.steps,
                loss=loss,
                accuracy=right,
                pictures_per_second=len(self.labels) * step / self.steps / spent,
                seconds=seconds,
                seconds_left=seconds / done * (self.config.epochs - done),
            )
        )

    def keep_best(self) -> None:
        """Give the model its best weights, if an epoch has ended, and set it to eval mode."""
        if self.best:
            self.model.load_state_dict(self.best)
        self.model.eval()

    def history(self, ended: str) -> History:
        stamp = environment_stamp(
            **self.key,
            device=described(self.device),
            threads=torch.get_num_threads(),
            processes=self.together.count,
        )
        return History(tuple(self.epochs), self.best_epoch, ended, stamp)

    def save(self, file: Path) -> None:
        """Write the checkpoint and, beside it, the history."""
        header = {
            "key": self.key,
            "epochs": [asdict(e) for e in self.epochs],
            "best_epoch": self.best_epoch,
        }
        save_run(file, {**self._states(), "best": self.best}, self.optimizers, header)
        self.history("running").save(file.with_name("history.jsonl"))

    def restore(self, file: Path) -> None:
        """Go back to where the first process's checkpoint was written, if there is one."""
        if self.together.first and file.exists():
            self._restore(file)
        with self.together.copy_of(file) as copy:
            if copy:
                self._restore(copy)

    def _restore(self, file: Path) -> None:
        header, best = load_run(file, self.key, self._states(), self.optimizers)
        check_keys(header, ("key", "epochs", "best_epoch"), file)
        with reading(file):
            epochs = [EpochFigures.of(e) for e in header["epochs"]]
            history = History(tuple(epochs), header["best_epoch"], "interrupted")
            if not epochs or history.best is None:
                raise ValueError("it holds no epoch")
            if best.keys() != self.model.state_dict().keys():
                raise ValueError("the weights of its best epoch are others than the network's")
        self.best = {k: v.to(self.device, copy=True) for k, v in best.items()}
        self.best_epoch, self.epochs = history.best_epoch, epochs
        self.train_seconds = self.epochs[-1].train_seconds
        self.other_seconds = self.epochs[-1].seconds - self.train_seconds

    def _states(self) -> dict[str, dict[str, Tensor]]:
        return {"model": self.model.state_dict(), "average": self.average.state}


def _figure(epoch: EpochFigures) -> float | None:
    """The accuracy that decides which epoch is best and whether the target is exceeded."""
    if epoch.validation_attacked is not None:
        return epoch.validation_attacked
    averaged = epoch.validation_averaged
    return epoch.validation_accuracy if averaged is None else averaged
