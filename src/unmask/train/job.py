"""From labelled pictures and a recipe to a classifier on disk, with its figures on its card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from unmask.data.images import Images
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
    adversary: Adversary | None = None,
    licence: str = "",
    half: bool = False,
    resume: bool = False,
    device: str = "auto",
    progress: Callable[[FitProgress], None] | None = None,
    tensorboard: bool = False,
) -> Trained:
    """Train by a recipe and write out/model.safetensors with its card, model.json.

    Without validation pictures the recipe's holdout of the training pictures validates. adversary:
    see fit. licence: of the training pictures. half: store half precision. On Ctrl-C the best
    weights so far are written, and the history's ended is "interrupted". The test figures are those
    of the stored weights in single precision. Of several processes (see train.distributed) the
    first alone writes and tests. Raises UserError as hold_out, prepared, fit and
    Classifier.save do.
    """
    config = chosen.config
    if validation is None and chosen.holdout:
        images, validation = hold_out(images, chosen.holdout, seed=config.seed)
    classifier = prepared(chosen, images, seed=config.seed)
    try:
        history = fit(
            classifier,
            images,
            config,
            validation=validation,
            adversary=adversary,
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
    stored.card = replace(stored.card, facts=facts)
    stored.card = stored.save(out / "model", half=half)
    return Trained(stored, history, found)


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
