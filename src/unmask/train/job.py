"""From labelled pictures and a recipe to a classifier on disk, with its figures on its card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from unmask.data.images import Images
from unmask.errors import UserError
from unmask.models.classifier import Classifier
from unmask.runtime import environment_stamp
from unmask.train.adversary import Adversary
from unmask.train.device import pick_device
from unmask.train.distributed import processes
from unmask.train.evaluation import Evaluation, evaluate
from unmask.train.fit import FitInterrupted, FitProgress, fit
from unmask.train.history import History
from unmask.train.holdout import hold_out
from unmask.train.recipes import Recipe, prepared
from unmask.train.teacher import Teacher


@dataclass(frozen=True)
class Trained:
    """What a job made: the classifier, its history and its figures on the test pictures."""

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
    resume: bool = False,
    device: str = "auto",
    progress: Callable[[FitProgress], None] | None = None,
    tensorboard: bool = False,
) -> Trained:
    """Train by a recipe and write out/model.safetensors with its card, model.json.

    Without validation pictures the recipe's holdout of the training pictures validates. start: a
    classifier that is trained further, instead of a new one as the recipe has it. adversary and
    teacher: see fit; with a teacher labels aren't smoothed. licence: of the training pictures.
    half: store half precision. On Ctrl-C the best weights so far are written, and the history's
    ended is "interrupted". The test figures are those of the stored weights in single precision.
    Of several processes (see train.distributed) the first alone writes and tests. Raises UserError
    as hold_out, prepared, fit and Classifier.save do, and when the classes or shape of start or of
    a teacher that is a Classifier aren't the pictures'.
    """
    if teacher is not None:
        # What networks say is smooth already.
        chosen = replace(chosen, config=replace(chosen.config, label_smoothing=0.0))
        for network in teacher.networks:
            if isinstance(network, Classifier):
                _check_fits(network, images, "learn from")
    config = chosen.config
    if validation is None and chosen.holdout:
        images, validation = hold_out(images, chosen.holdout, seed=config.seed)
    if start is None:
        classifier = prepared(chosen, images, seed=config.seed)
    else:
        _check_fits(start, images, "start from")
        # Its facts are of what it was; what is stored in between has none.
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
            resume=resume,
            device=device,
            progress=progress,
            tensorboard=tensorboard,
        )
    except FitInterrupted as stopped:
        history = stopped.history
        if history.best is None:
            raise
    if not processes().first:
        return Trained(classifier, history, None)
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
                f"the model to {use} and the pictures differ in their {what}",
                got=f"{list(theirs)} and {list(ours)}",
                do=f"{use} a model of the same pictures",
            )


def _facts(
    chosen: Recipe,
    images: Images,
    validation: Images | None,
    history: History,
    found: Evaluation | None,
    licence: str,
) -> dict[str, object]:
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
