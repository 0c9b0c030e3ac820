"""A classifier trained for proofs: from labelled images to weights and their card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from unmask.data.images import Images
from unmask.errors import UserError
from unmask.fool.certify.loss import proved_by_intervals
from unmask.fool.certify.training import (
    CertifiedEpoch,
    CertifiedProgress,
    CertifiedTraining,
    halved,
    train_certified,
)
from unmask.models.classifier import Classifier
from unmask.runtime import environment_stamp
from unmask.stats import wilson
from unmask.train.device import pick_device
from unmask.train.holdout import hold_out

_GUARDS = 2000
# The network of mnist-certified.
_ARCHITECTURE = "stepped_cnn"
_STEPS = ((32, 4, 2), (64, 4, 2))
_HIDDEN = 512


@dataclass(frozen=True)
class Certified:
    """The result of a certified training.

    Args:
        classifier: in eval mode.
        end: the figures of the last epoch, on the training images.
        weights: "last" or "averaged", whichever proves more of the guard by IBP.
        guard: clean accuracy and the fraction proved by IBP, of the held-out images.
        test: the same of the test images, None where there are none.
    """

    classifier: Classifier
    end: CertifiedEpoch
    weights: str
    guard: tuple[float, float]
    test: tuple[float, float] | None


def harden_certified(
    images: Images,
    plan: CertifiedTraining,
    *,
    out: Path,
    threshold: float | None = None,
    test: Images | None = None,
    minutes: float | None = None,
    licence: str = "",
    half: bool = False,
    resume: bool = False,
    device: str = "auto",
    progress: Callable[[CertifiedProgress], None] | None = None,
) -> Certified:
    """Train a classifier for proofs; write out/model.safetensors with its card.

    Args:
        images: to train on; 2,000 or a tenth of them are held out as the guard.
        plan: the settings of the training; a batch has no more images than there are.
        out: the folder for the model and the checkpoint.
        threshold: that turns pixels into black and white before all else, in (0, 1), for drawings
            such as digits; None for none.
        test: measured once, at the end.
        minutes: the epochs are as many as fit; None for those of the plan.
        licence: of the images.
        half: store matrices and filters in half precision.
        resume: continue from the last checkpoint in out.
        device: "auto", "cpu" or "cuda".
        progress: called as train_certified does.

    Returns:
        The classifier and its figures; fool certify gives the proof.

    Raises:
        UserError: for images that are too small for the network, a threshold outside (0, 1), and
            as hold_out and train_certified do.
    """
    if len(images) < 2:
        raise UserError("there are too few images to train on", got=len(images))
    fraction = min(_GUARDS / len(images), 0.1)
    learnt, guard = hold_out(images, fraction, seed=plan.seed)
    plan = replace(plan, batch_size=min(plan.batch_size, len(learnt)))
    channels, height, width = images.pixels.shape[1:]
    classifier = Classifier.create(
        _ARCHITECTURE,
        {"steps": [list(step) for step in _STEPS], "hidden": _HIDDEN, "normalised": True}
        | ({} if threshold is None else {"threshold": threshold}),
        class_names=images.class_names,
        input_shape=(channels, height, width),
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        seed=plan.seed,
    )
    place = pick_device(device)
    last, average, end = train_certified(
        classifier.network.to(place),
        torch.from_numpy(learnt.pixels).to(place),
        torch.from_numpy(learnt.labels).to(place),
        plan,
        minutes=minutes,
        directory=out,
        resume=resume,
        progress=progress,
    )

    def measured(network: torch.nn.Module, on: Images) -> tuple[float, float]:
        pixels, labels = (torch.from_numpy(v).to(place) for v in (on.pixels, on.labels))
        return proved_by_intervals(network, pixels, labels, plan.eps)

    stored = {"last": last, "averaged": average}
    if half:
        stored = {name: halved(network) for name, network in stored.items()}
    figures = {name: measured(network, guard) for name, network in stored.items()}
    kept = max(figures, key=lambda name: (figures[name][1], figures[name][0]))
    classifier.network.load_state_dict(stored[kept].state_dict())
    found = None if test is None else measured(stored[kept], test)
    stamp = environment_stamp(device=str(place), threads=torch.get_num_threads())
    told: dict[str, object] = {
        "train_seconds": round(end.seconds, 1),
        "weights": kept,
        "validation_accuracy": figures[kept][0],
        "validation_proved_by_intervals": figures[kept][1],
    }
    if test is not None and found is not None:
        clean, proved = found
        told["test_accuracy"] = clean
        told["test_accuracy_interval_95"] = list(wilson(round(clean * len(test)), len(test)))
        told["test_proved_by_intervals"] = proved
        told["test_pictures"] = len(test)
    facts = {
        "data": {
            "name": images.name,
            "sha256": images.sha256,
            "pictures": len(learnt),
            "validation_pictures": len(guard),
            "licence": licence,
        },
        "recipe": {"name": "certified", **plan.as_dict(), "epochs": end.epoch},
        "seed": plan.seed,
        "figures": told,
        "licence": "Apache-2.0",
        "command": stamp.pop("command"),
        "made_with": stamp,
    }
    classifier.card = replace(classifier.card, facts=facts)
    classifier.card = classifier.eval().save(out / "model", half=half)
    return Certified(classifier, end, kept, figures[kept], found)
