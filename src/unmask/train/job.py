"""From labelled images and a recipe to a classifier on disk, with its figures on its card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from unmask.data.images import Images
from unmask.errors import UserError
from unmask.models.classifier import Classifier
from unmask.runtime import environment_stamp
from unmask.train.adversary import Adversary
from unmask.train.device import pick_device
from unmask.train.distributed import processes
from unmask.train.evaluation import Evaluation, evaluate, evaluation_of, logits_of
from unmask.train.fit import FitInterrupted, FitProgress, fit
from unmask.train.history import History
from unmask.train.holdout import hold_out
from unmask.train.loggers import Logger
from unmask.train.recipes import Recipe, prepared
from unmask.train.teacher import Teacher
from unmask.train.temperature import divide_logits, fitted_temperature


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Args:
        classifier: as it was stored.
        history: its epochs.
        test: its figures on the test images, None without any.
    """

    classifier: Classifier
    history: History
    test: Evaluation | None


def train_classifier(
    chosen: Recipe,
    images: Images,
    *,
    out: Path,
    validation: Images | None = None,
    test: Images | None = None,
    start: Classifier | None = None,
    adversary: Adversary | None = None,
    teacher: Teacher | None = None,
    licence: str = "",
    half: bool = False,
    temperature: float | None = None,
    calibrate: bool = False,
    checkpoints: bool = True,
    resume: bool = False,
    device: str = "auto",
    progress: Callable[[FitProgress], None] | None = None,
    tensorboard: bool = False,
    log: Sequence[Logger] = (),
) -> Trained:
    """Train by a recipe and write out/model.safetensors with its card, model.json.

    On Ctrl-C the best weights so far are written, and the history's ended is "interrupted". The
    test figures are those of the stored weights in single precision. Of several processes (see
    train.distributed) only the first writes and tests.

    Args:
        chosen: the recipe; with a teacher labels aren't smoothed.
        images: what is trained on.
        out: the folder for the model, the history and the checkpoint.
        validation: by default the recipe's holdout of the training images.
        test: measured once, at the end.
        start: a classifier that is trained further, instead of a new one.
        adversary: see fit.
        teacher: see fit.
        licence: of the training images.
        half: store matrices and filters in half precision.
        temperature: what the stored model's logits are divided by, see divide_logits.
        calibrate: fit the temperature on the validation images instead.
        checkpoints: see fit.
        resume: see fit.
        device: see fit.
        progress: see fit.
        tensorboard: see fit.

    Raises:
        UserError: as hold_out, prepared, fit, divide_logits and Classifier.save do; the classes or
            shape of start or of a teacher that is a Classifier aren't the images'; or there is
            nothing to calibrate with.
    """
    if teacher is not None:
        # A teacher's predictions are smooth already.
        chosen = replace(chosen, config=replace(chosen.config, label_smoothing=0.0))
        for network in teacher.networks:
            if isinstance(network, Classifier):
                _check_fits(network, images, "learn from")
    if calibrate and temperature is not None:
        raise UserError("a temperature is given or fitted, not both", got=temperature)
    config = chosen.config
    if validation is None and chosen.holdout:
        images, validation = hold_out(images, chosen.holdout, seed=config.seed)
    if calibrate and validation is None:
        raise UserError(
            "a temperature is fitted on validation images, of which there are none",
            do="hold some out with --validation 0.1",
        )
    if start is None:
        classifier = prepared(chosen, images, seed=config.seed)
    else:
        _check_fits(start, images, "start from")
        # The old facts describe the start; until new ones are known, the card has none.
        classifier = Classifier(start.network, replace(start.card, facts={}))
    try:
        history = fit(
            classifier,
            images,
            config,
            validation=validation,
            adversary=adversary,
            teacher=teacher,
            start=None if start is None else start.card.weights_sha256,
            directory=out,
            checkpoints=checkpoints,
            resume=resume,
            device=device,
            progress=progress,
            tensorboard=tensorboard,
            log=log,
        )
    except FitInterrupted as stopped:
        history = stopped.history
        if history.best is None:
            raise
    if not processes().first:
        return Trained(classifier, history, None)
    held_out = None
    if calibrate and validation is not None:
        logits = logits_of(classifier, validation, precision="fp32")
        temperature = fitted_temperature(logits, torch.from_numpy(validation.labels))
        held_out = evaluation_of(logits / temperature, validation)
    if temperature is not None:
        device_now = next(classifier.parameters()).device
        few = torch.from_numpy(images.pixels[:8]).to(device_now).float() / 255
        divide_logits(classifier, temperature, few)
    classifier.save(out / "model", half=half)
    stored = Classifier.load(out / "model").to(pick_device(device))
    found = None
    if test is not None:
        found = evaluate(stored, test, test_time=config.test_time)
    facts = _facts(chosen, images, validation, history, found, licence)
    if adversary is not None:
        facts["adversary"] = adversary.as_dict()
    if teacher is not None:
        facts["teacher"] = teacher.as_dict()
    if temperature is not None:
        facts["temperature"] = temperature
    if held_out is not None:
        facts["figures"]["validation_loss"] = held_out.loss
        facts["figures"]["validation_calibration_error"] = held_out.calibration_error
    if start is not None:
        facts["start"] = start.card.weights_sha256
    stored.card = replace(stored.card, facts=facts)
    stored.card = stored.save(out / "model", half=half)
    return Trained(stored, history, found)


def _check_fits(model: Classifier, images: Images, use: str) -> None:
    for what, theirs, ours in (
        ("classes", model.class_names, images.class_names),
        ("shape", model.card.input_shape, images.pixels.shape[1:]),
    ):
        if theirs != ours:
            raise UserError(
                f"the model to {use} and the images differ in their {what}",
                got=f"{list(theirs)} and {list(ours)}",
                do=f"{use} a model of the same images",
            )


def _facts(
    chosen: Recipe,
    images: Images,
    validation: Images | None,
    history: History,
    found: Evaluation | None,
    licence: str,
) -> dict[str, Any]:
    figures: dict[str, object] = {"epoch": history.best_epoch, "ended": history.ended}
    best = history.best
    if best is not None:
        figures["train_seconds"] = round(best.train_seconds, 1)
    if best is not None and best.validation_accuracy is not None:
        figures["validation_accuracy"] = best.validation_accuracy
        figures["validation_averaged_accuracy"] = best.validation_averaged
    if best is not None and best.validation_attacked is not None:
        figures["validation_attacked_accuracy"] = best.validation_attacked
    if found is not None:
        figures["test_accuracy"] = found.accuracy
        figures["test_accuracy_interval_95"] = list(found.interval)
        figures["test_averaged_accuracy"] = found.averaged
        figures["test_loss"] = found.loss
        figures["test_calibration_error"] = found.calibration_error
        figures["test_pictures"] = len(found.labels)
    stamp = environment_stamp(
        **{k: history.stamp.get(k) for k in ("device", "threads", "processes")}
    )
    return {
        "data": {
            "name": images.name,
            "sha256": images.sha256,
            "pictures": len(images),
            "validation_pictures": len(validation) if validation is not None else 0,
            "licence": licence,
        },
        "recipe": {"name": chosen.name, **chosen.config.as_dict()},
        "seed": chosen.config.seed,
        "figures": figures,
        "licence": "Apache-2.0",
        "command": stamp.pop("command"),
        "made_with": stamp,
    }
