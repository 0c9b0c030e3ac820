"""Make the CIFAR-10 classifier that ships: a small network that learns from a wide teacher.

Every choice is made on 5,000 training images held out; then teacher and student are trained on all
50,000 with what was chosen, the student from several seeds. No test image is read. Stages:

1. batch size and rates are chosen over a few epochs, the seconds an epoch of each network are
   measured, and epochs chosen that fit into --minutes;
2. the recipe wide on 45,000 images;
3. short runs of the recipe distilled, with other rates, fractions of the teacher and without one,
   of which the one with the lowest held-out cross-entropy is chosen;
4. that one in full on 45,000, whose temperature on the held-out images is fitted;
5. wide, then distilled from each seed, on all 50,000, divided by that temperature.

The models, log.txt and result.json lie in --out; result.json is written after every stage.
`ship_cifar10.py` measures them on the test images and ships the first seed's. On a GPU:

    python benchmarks/release/train_cifar10.py --source FOLDER --device cuda --minutes 8 --out OUT

Each stage is also a command, which takes hours on a processor; see docs/train.md.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from unmask.data.augment import Augmentation
from unmask.data.cifar10 import CLASSES, load_cifar10
from unmask.data.images import Images
from unmask.data.sheets import has_sheets, read_sheets
from unmask.errors import UserError
from unmask.models.classifier import Classifier
from unmask.runtime import environment_stamp
from unmask.train.device import pick_device
from unmask.train.evaluation import accuracy, evaluation_of, logits_of
from unmask.train.fit import FitProgress, fit
from unmask.train.history import History
from unmask.train.holdout import hold_out
from unmask.train.job import train_classifier
from unmask.train.recipes import Recipe, prepared, recipe
from unmask.train.teacher import Teacher
from unmask.train.temperature import fitted_temperature

# Beside the recipes' own: larger batches, and those with other rates or a warm-up.
_LARGE = {"batch_size": 1000, "rate": 0.17, "bias_rate": 53.0, "head_rate": 670.0}
STEPS: dict[str, dict[str, Any]] = {
    "as the recipe": {},
    "batch 1000": _LARGE,
    "batch 1000, lower rates": {**_LARGE, "rate": 0.12, "bias_rate": 26.5, "head_rate": 335.0},
    "batch 1000, warm-up": {**_LARGE, "warmup": 0.15},
}
HELD_OUT, SHORT, TEACHER_FRACTION, RESERVE = 0.1, 0.3, 0.5, 25.0
MOST_EPOCHS, FEWEST_EPOCHS = 200, 2


class OutOfTimeError(Exception):
    """A stage went on for longer than was left."""


class Release:
    """The stages, what is left of the time, and what was found."""

    def __init__(self, arguments: argparse.Namespace, train: Images, began: float) -> None:
        self.arguments, self.began = arguments, began
        self.out: Path = arguments.out
        self.device = str(pick_device(arguments.device))
        self.train = train
        self.part, self.held = hold_out(train, HELD_OUT, seed=0)
        self.steps: dict[str, Any] = {}
        self.result: dict[str, Any] = {
            "data": {"name": train.name, "sha256": train.sha256, "images": len(train)},
            "stamp": environment_stamp(),
            "stages": [],
        }
        if torch.cuda.is_available():
            self.result["gpu"] = torch.cuda.get_device_name()

    @property
    def left(self) -> float:
        return self.arguments.minutes * 60 - (time.monotonic() - self.began)

    def say(self, line: str) -> None:
        line = f"[{time.monotonic() - self.began:6.1f} s] {line}"
        print(line, flush=True)
        with (self.out / "log.txt").open("a") as file:
            file.write(line + "\n")

    def note(self, stage: str, **found: Any) -> None:
        self.result["stages"].append({"stage": stage, **found})
        (self.out / "result.json").write_text(json.dumps(self.result, indent=1))
        told = ", ".join(f"{k} {v}" for k, v in found.items() if not isinstance(v, (dict, list)))
        self.say(f"{stage}: {told}")

    def recipe(self, name: str, epochs: int, **changed: Any) -> Recipe:
        chosen = recipe("cifar10", name, len(self.train))
        settings = dict(chosen.settings)
        if self.arguments.width:
            settings["widths"] = [max(8, w // self.arguments.width) for w in settings["widths"]]
        config = replace(chosen.config, epochs=epochs, validate_from=epochs)
        slower = changed.pop("slower", 1.0)
        config = replace(config, **{**self.steps, **changed})
        config = config.at_rate(slower * config.rate)
        return replace(chosen, settings=settings, config=config, holdout=0.0)

    def fitted(
        self, chosen: Recipe, images: Images, teacher: Teacher | None, seed: int = 0
    ) -> tuple[Classifier, History]:
        """Train in memory, without a file, and stop when the time is up."""
        smoothing = chosen.config.label_smoothing if teacher is None else 0.0
        config = replace(chosen.config, seed=seed, label_smoothing=smoothing)
        model = prepared(chosen, images, seed=seed)
        history = fit(
            model, images, config, teacher=teacher, device=self.device, progress=self.watch
        )
        return model, history

    def watch(self, p: FitProgress) -> None:
        if self.left < 0:
            raise OutOfTimeError
        if p.epoch % 10 == 1 and p.step == p.steps:
            self.say(f"  epoch {p.epoch} of {p.epochs}: loss {p.loss:.4f}, right {p.accuracy:.4f}")

    def measured(self, model: Classifier) -> dict[str, float]:
        """Held-out figures, before and after the temperature that fits them."""
        labels = torch.from_numpy(self.held.labels)
        logits = logits_of(model, self.held)
        views = logits_of(model, self.held, test_time="flip_shift")
        temperature = fitted_temperature(logits, labels)
        plain, divided = (
            evaluation_of(scaled, self.held) for scaled in (logits, logits / temperature)
        )
        return {
            "accuracy": plain.accuracy,
            "averaged_accuracy": accuracy(views, labels),
            "loss": round(divided.loss, 5),
            "temperature": round(temperature, 4),
            "calibration_error": round(divided.calibration_error, 4),
            "calibration_error_undivided": round(plain.calibration_error, 4),
        }

    def seconds_an_epoch(self, name: str, teacher: Teacher | None) -> float:
        """Time the second of two epochs: in the first, algorithms are chosen."""
        count = min(len(self.part), self.arguments.timed_images)
        chosen = self.recipe(name, 2)
        _, history = self.fitted(chosen, self.part[:count], teacher)
        first, second = history.epochs
        return (second.train_seconds - first.train_seconds) * len(self.train) / count

    def choose_steps(self) -> None:
        """Choose batch size and rates by the held-out cross-entropy after a few epochs."""
        lowest, best = float("inf"), next(iter(STEPS))
        for name, steps in STEPS.items():
            self.steps = steps
            try:
                model, history = self.fitted(
                    self.recipe("distilled", self.arguments.step_epochs), self.part, None
                )
            except UserError as error:
                self.note(f"steps {name}", failed=str(error))
                continue
            found = self.measured(model)
            seconds = history.epochs[-1].train_seconds
            self.note(f"steps {name}", seconds=round(seconds, 2), **found)
            if found["loss"] < lowest:
                lowest, best = found["loss"], name
        self.steps = STEPS[best]
        self.note("steps chosen", candidate=best)

    def teacher_of(self, epochs: int, images: Images) -> tuple[Classifier, History]:
        """The wide network; at half the rates where it diverges."""
        try:
            return self.fitted(self.recipe("wide", epochs), images, None)
        except UserError as error:
            self.note("wide diverged", message=str(error))
            return self.fitted(self.recipe("wide", epochs, slower=0.5), images, None)

    def run(self) -> None:
        self.choose_steps()
        untrained = prepared(self.recipe("wide", 1), self.part, seed=0)
        wide = self.seconds_an_epoch("wide", None)
        alone = self.seconds_an_epoch("distilled", None)
        taught = self.seconds_an_epoch("distilled", Teacher((untrained,)))
        self.note("seconds an epoch", wide=wide, distilled_alone=alone, distilled=taught)
        candidates: list[tuple[str, float | None, dict[str, Any]]] = [
            ("teacher 0.8", 0.8, {}),
            ("teacher 0.95", 0.95, {}),
            ("teacher 0.8, rates by 0.6", 0.8, {"slower": 0.6}),
            (
                "teacher 0.8, cutmix always",
                0.8,
                {"augmentation": Augmentation(flip="alternating", shift=4, cutmix=1.0)},
            ),
            ("no teacher", None, {}),
        ]
        part, seeds = len(self.part) / len(self.train), len(self.arguments.seeds)
        with_teacher = sum(c[1] is not None for c in candidates)
        an_epoch = TEACHER_FRACTION * wide * (1 + part) + taught * (seeds + part)
        an_epoch += SHORT * part * (taught * with_teacher + alone)
        epochs = self.epochs((self.left - RESERVE) / an_epoch)
        teacher_epochs = self.epochs(TEACHER_FRACTION * epochs)
        self.note("planned", epochs=epochs, teacher_epochs=teacher_epochs, seconds_left=self.left)

        model, _ = self.teacher_of(teacher_epochs, self.part)
        self.note("wide, held out", epochs=teacher_epochs, **self.measured(model))
        best, chosen_name = float("inf"), ""
        fraction, changed = 0.8, dict[str, Any]()
        for name, share, change in candidates:
            teacher = None if share is None else Teacher((model,), share)
            short = self.recipe("distilled", self.epochs(SHORT * epochs), **change)
            try:
                student, history = self.fitted(short, self.part, teacher)
            except UserError as error:
                self.note(f"candidate {name}", failed=str(error))
                continue
            found = self.measured(student)
            self.note(f"candidate {name}", epochs=len(history.epochs), **found)
            if share is not None and found["loss"] < best:
                best, chosen_name, fraction, changed = found["loss"], name, share, change
        self.note("chosen", candidate=chosen_name, by="held-out cross-entropy, temperature fitted")

        epochs = self.affordable(epochs, wide, taught, part)
        full = self.recipe("distilled", epochs, **changed)
        student, history = self.fitted(full, self.part, Teacher((model,), fraction))
        # Other work on the machine may have come in between.
        taught = max(taught, history.epochs[-1].train_seconds / epochs / part)
        found = self.measured(student)
        student.save(self.out / "held-out" / "model", half=True)
        self.note("distilled, held out", epochs=epochs, **found)

        teacher_model, history = self.teacher_of(teacher_epochs, self.train)
        self.note(
            "wide, all",
            epochs=teacher_epochs,
            train_accuracy=history.epochs[-1].train_accuracy,
            seconds=round(history.epochs[-1].seconds, 1),
        )
        epochs = max(FEWEST_EPOCHS, min(epochs, int((self.left - RESERVE) / (taught * seeds))))
        for seed in self.arguments.seeds:
            chosen = self.recipe("distilled", epochs, **changed)
            trained = train_classifier(
                replace(chosen, config=replace(chosen.config, seed=seed)),
                self.train,
                out=self.out / f"seed-{seed}",
                teacher=Teacher((teacher_model,), fraction),
                licence="none stated; for research",
                half=True,
                temperature=found["temperature"],
                checkpoints=False,
                device=self.device,
                progress=self.watch,
            )
            last = trained.history.epochs[-1]
            self.note(
                f"distilled, all, seed {seed}",
                epochs=epochs,
                train_accuracy=last.train_accuracy,
                seconds=round(last.seconds, 1),
            )
        if self.arguments.keep_teacher:
            teacher_model.save(self.out / "wide" / "model", half=True)

    def affordable(self, epochs: int, wide: float, taught: float, part: float) -> int:
        """Fewer epochs than planned, where what came before took longer than expected."""
        seeds = len(self.arguments.seeds)
        an_epoch = TEACHER_FRACTION * wide + taught * (seeds + part)
        return max(FEWEST_EPOCHS, min(epochs, int((self.left - RESERVE) / an_epoch)))

    def epochs(self, wanted: float) -> int:
        return max(FEWEST_EPOCHS, min(self.arguments.most_epochs, int(wanted)))


def training_images(source: Path) -> Images:
    """The 50,000 training images; of sheets, those of the test images may be absent."""
    if source.is_dir() and has_sheets(source):
        pixels, labels, exactness = read_sheets(source, ("train",))["train"]
        return Images(pixels, labels, CLASSES, f"CIFAR-10 train ({exactness})")
    return load_cifar10(source)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--source", type=Path, required=True, help="where CIFAR-10 lies")
    parser.add_argument("--out", type=Path, required=True, help="the folder for models and log")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--most-epochs", type=int, default=MOST_EPOCHS)
    parser.add_argument("--step-epochs", type=int, default=8)
    parser.add_argument("--timed-images", type=int, default=20_000)
    parser.add_argument("--keep-teacher", action="store_true", help="write the wide network too")
    parser.add_argument("--images", type=int, help="train on so many only, to try this out")
    parser.add_argument("--width", type=int, help="networks narrower by so much, to try this out")
    arguments = parser.parse_args()
    began = time.monotonic()
    arguments.out.mkdir(parents=True, exist_ok=True)
    train = training_images(arguments.source)
    release = Release(arguments, train[: arguments.images], began)
    release.say(f"{len(release.train)} images of {train.name} on {release.device}")
    try:
        release.run()
    except OutOfTimeError:
        release.note("out of time")
    except BaseException:
        release.note("failed", trace=traceback.format_exc())
        raise
    release.say("done")


if __name__ == "__main__":
    main()
