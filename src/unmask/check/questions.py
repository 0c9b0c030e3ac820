"""The questions that a check asks, each within a time: figures and verdicts."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unmask.data.audit import audit_data
from unmask.data.images import Images
from unmask.data.sources import Source
from unmask.errors import UserError
from unmask.models.answer import only_tensor
from unmask.models.preprocessing import Wrapped
from unmask.shift.corruptions.registry import corruptions
from unmask.shift.judge import named_mistake
from unmask.shift.measurement import measure_shift
from unmask.shift.pipeline import value_mistakes
from unmask.shift.result import ShiftPlan
from unmask.shift.scores import Scores, scores_of
from unmask.shift.target import Target, fitted, spread
from unmask.stats import wilson
from unmask.train.temperature import TEMPERATURES, fitted_temperature
from unmask.verdict import Verdict

# One corruption of each kind first, so that a short check has seen something of all.
BY_INFORMATION = (
    *("gaussian_noise", "defocus_blur", "fog", "jpeg_compression", "rotate", "contrast"),
    *("pixelate", "brightness", "motion_blur", "elastic_transform", "snow", "translate"),
    *("impulse_noise", "zoom_blur", "frost", "saturate", "scale", "spatter", "shot_noise"),
)
_PREFLIGHT, _LIKELIEST, _FLOW_BATCH = 512, 2, 64
_SAME = 1e-4
# Beyond this temperature, the probabilities are all 0 or 1.
_SATURATED = 8.0
_STEPS = 20
# Of a shift measurement: corruptions and nothing else.
_ALONE: dict[str, Any] = dict.fromkeys(
    ("smallest", "geometry", "pipeline", "runtimes", "fixes"), False
)
_ROBUST = 0.5
_SHORTEST_PROOF = 20
_LARGEST_CERTIFIED = 2_000_000


class Skipped(Exception):  # noqa: N818
    """A question that can't be asked, with the reason."""


@dataclass
class Asked:
    """What the questions share.

    Args:
        target: the model.
        images: labelled, to test with.
        source: all parts of the set, where there are more than one.
        seed: of everything random.
        per_image: seconds of a forward pass, once measured.
        logits: of the images, once measured, and how many they are of.
    """

    target: Target
    images: Images
    source: Source | Images
    seed: int
    per_image: float = 0.0
    logits: Tensor | None = None
    scores: Scores | None = None
    eps: float | None = None
    notes: list[str] = field(default_factory=list)

    def pixels(self, images: Images) -> Tensor:
        """Return the images as float32[n, c, h, w] in [0, 1]."""
        return torch.tensor(images.pixels).float() / 255


Answer = tuple[dict[str, float], list[Verdict]]


def ask_preflight(asked: Asked, seconds: float) -> Answer:
    """Is this a classifier that can be asked at all, fed as it wants to be?"""
    target, images = asked.target, asked.images
    target, images = fitted(target, images)
    asked.target, asked.images = target, images
    # The first pass of a process loads kernels, which says nothing of the model.
    start = time.perf_counter()
    target.logits(asked.pixels(spread(images, 8)))
    each = (time.perf_counter() - start) / min(8, len(images))
    # There are about twenty passes to come.
    count = int(max(16, min(_PREFLIGHT, seconds / 20 / max(each, 1e-6))))
    few = spread(images, count)
    pixels = asked.pixels(few)
    start = time.perf_counter()
    logits = target.logits(pixels)
    asked.per_image = (time.perf_counter() - start) / len(few)
    again, alone = target.logits(pixels), target.logits(pixels[:1])
    largest = float(logits.abs().max()) or 1.0
    found: list[Verdict] = []
    bad = int((~logits.isfinite().all(1)).sum())
    if bad:
        found.append(
            Verdict(
                "logits not finite",
                "error",
                f"the logits of {bad:,} of {len(few):,} images are NaN or infinite",
                fix="look for a division, a logarithm or an overflow in half precision",
                evidence={"images": bad, "of": len(few)},
            )
        )
        return {"seconds_an_image": asked.per_image}, found
    training = target.module is not None and any(
        m.training
        and isinstance(m, (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd))
        for m in target.module.modules()
    )
    if training:
        found.append(
            Verdict(
                "training mode",
                "note",
                "the model came in training mode; it was switched to evaluation for every figure",
                fix="call model.eval() before deploying it",
            )
        )
    spread_of = float((again - logits).abs().max()) / largest
    if spread_of > _SAME:
        found.append(
            Verdict(
                "random output",
                "warning",
                f"two forward passes of the same images differ by {spread_of:.1%} of the largest "
                "logit",
                fix="switch the randomness off, or average over it inside the model",
                evidence={"difference": spread_of},
            )
        )
    elif (together := float((alone - logits[:1]).abs().max()) / largest) > _SAME:
        found.append(
            Verdict(
                "batch dependence",
                "warning",
                f"the logits of an image change by {together:.1%} of the largest with the rest of "
                "its batch",
                fix="use statistics of training in evaluation (batch norm in eval mode)",
                evidence={"difference": together},
            )
        )
    if isinstance(target.module, Wrapped) and not target.module.stated:
        found.append(
            Verdict(
                "preprocessing not stated",
                "note",
                f"no config says what {target.name} wants done to an image, so pixels in [0, 1] "
                "went in as they are",
                fix="put preprocessor_config.json beside its config.json",
            )
        )
    sums = logits.sum(1)
    softmax = bool((logits >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all())
    if target.labels_only:
        asked.notes.append("the model gives the class alone, which has no confidence")
    elif softmax or getattr(target.function, "gives_probabilities", False):
        found.append(
            Verdict(
                "probabilities",
                "note",
                "the outputs are probabilities, not logits; temperatures and gradients of the "
                "loss are those of their logarithm",
                fix="return logits and leave the softmax to the caller",
            )
        )
    elif len(few) >= 20:
        temperature = fitted_temperature(logits, few.labels, *TEMPERATURES)
        right = float((logits.argmax(1).numpy() == few.labels).mean())
        if temperature > _SATURATED and right > 2 / len(few.class_names):
            found.append(
                Verdict(
                    "saturated logits",
                    "error",
                    f"the logits are about {temperature:.0f} times too large: a median gap of "
                    f"{_gap(logits):.0f} between the two likeliest classes makes every "
                    "probability 0 or 1, and gradients of the loss vanish",
                    fix=f"divide the logits by {temperature:.0f}",
                    evidence={"temperature": temperature, "gap": _gap(logits)},
                )
            )
    mistakes = value_mistakes(target, pixels, few.labels)
    cures = sorted((m for m in mistakes if m.cure), key=lambda m: -m.accuracy)[:_LIKELIEST]
    more = int(min(_PREFLIGHT, seconds / 2 / (1 + _LIKELIEST) / max(asked.per_image, 1e-6)))
    if cures and len(few) < more and len(few) < len(images):
        # Too few to tell a cure from chance: the likeliest are tried on more.
        few = spread(images, more)
        names = [m.name for m in cures]
        mistakes = value_mistakes(target, asked.pixels(few), few.labels, names=names)
    wrong = named_mistake(mistakes)
    if wrong is not None:
        found.append(wrong)
    return {
        "seconds_an_image": asked.per_image,
        "images": len(few),
        "accuracy": mistakes[0].stated,
        "largest_logit": largest,
    }, found


def _gap(logits: Tensor) -> float:
    top = logits.topk(2, 1).values
    return float((top[:, 0] - top[:, 1]).median())


def ask_accuracy(asked: Asked, seconds: float) -> Answer:
    """How many images are right, how narrow is that figure, and is confidence worth its name?"""
    images = asked.images
    chosen = spread(images, max(50, int(seconds / max(asked.per_image, 1e-6))))
    logits = torch.cat(
        [asked.target.logits(asked.pixels(chosen[i : i + 500])) for i in range(0, len(chosen), 500)]
    )
    classes = len(images.class_names)
    scores = scores_of(logits, chosen.labels, classes)
    asked.logits, asked.images, asked.scores = logits, chosen, scores
    if len(chosen) < len(images):
        asked.notes.append(f"on {len(chosen):,} of {len(images):,} images, for time")
    low, high = scores.interval
    found = []
    if low <= 1 / classes:
        found.append(
            Verdict(
                "no better than chance",
                "error",
                f"{scores.accuracy:.1%} of {scores.images:,} images are right (95 % interval "
                f"{low:.1%} to {high:.1%}), and a guess is {1 / classes:.1%}",
                fix="check that weights were loaded and that classes are in the model's order",
                evidence={"accuracy": scores.accuracy, "chance": 1 / classes},
            )
        )
    best = fitted_temperature(logits[::2], chosen.labels[::2], *TEMPERATURES)
    after = (
        scores_of(logits[1::2] / best, chosen.labels[1::2], classes).ece if len(chosen) > 1 else 0
    )
    if not asked.target.labels_only and scores.ece > 0.05 + 1 / scores.images**0.5:
        found.append(
            Verdict(
                "overconfident" if scores.confidence > scores.accuracy else "underconfident",
                "warning",
                f"mean confidence is {scores.confidence:.1%} and accuracy {scores.accuracy:.1%}: "
                f"a calibration error of {scores.ece:.3f} on {scores.images:,} images",
                fix=f"divide the logits by {best:.2f}: the error became {after:.3f} on images that "
                "it wasn't fitted on",
                evidence={"ece": scores.ece, "ece_after": after, "temperature": best},
            )
        )
    counts = np.bincount(chosen.labels, minlength=classes)
    for recall, k in sorted((r, k) for k, r in enumerate(scores.recall) if r is not None)[:3]:
        if counts[k] >= 10 and recall < scores.accuracy - 0.2:
            _, top = wilson(round(recall * counts[k]), int(counts[k]))
            if top < scores.accuracy:
                found.append(
                    Verdict(
                        "weak class",
                        "warning",
                        f"{recall:.1%} of {counts[k]:,} images of class {images.class_names[k]} "
                        f"are right, {scores.accuracy:.1%} over all classes",
                        subject=images.class_names[k],
                        fix="add images of this class, or look for label errors in it",
                        evidence={"recall": recall},
                    )
                )
    figures = {"accuracy": scores.accuracy, "accuracy_low": low, "accuracy_high": high}
    figures |= {"images": scores.images, "ece": scores.ece, "confidence": scores.confidence}
    if scores.auroc is not None:
        figures["auroc"] = scores.auroc
    return figures, found


def ask_data(asked: Asked, seconds: float) -> Answer:
    """Are there leaks, duplicates, wrong labels, starved classes, shortcuts?"""
    probabilities = {}
    source = asked.source
    part = "train" if isinstance(source, Images) or source.test is None else "test"
    whole = source if isinstance(source, Images) else (source.test or source.train)
    if asked.logits is not None and len(asked.logits) == len(whole):
        probabilities[part] = asked.logits.double().softmax(1).numpy()
        if probabilities[part].shape[1] != len(whole.class_names):
            probabilities = {}
    total = (
        len(source)
        if isinstance(source, Images)
        else sum(len(p) for p in (source.train, source.validation, source.test) if p is not None)
    )
    # Measured on one core: about 12,000 images a second to compare, with a margin of four.
    near = total / 3000 < seconds
    if not near:
        asked.notes.append("near duplicates were not looked for, for time")
    found = audit_data(
        source, probabilities=probabilities, labels=False, near=near, seed=asked.seed
    )
    return found.figures(), list(found.verdicts)


def ask_flow(asked: Asked, seconds: float) -> Answer:
    """Does the gradient reach every layer?"""
    from unmask.flow.check import check_flow

    module = asked.target.module
    if module is None or asked.target.labels_only:
        raise Skipped("a black box has no gradients to follow")
    if not any(p.requires_grad for p in module.parameters()):
        raise Skipped("all parameters are frozen")
    few = spread(asked.images, _FLOW_BATCH)
    if len(few) < 2:
        raise Skipped("a batch needs two images or more")
    network = copy.deepcopy(module).train()
    labels = torch.from_numpy(few.labels)
    pixels = asked.pixels(few).to(asked.target.device)
    done = check_flow(
        network, _cross_entropy, (pixels, labels.to(asked.target.device)), seed=asked.seed
    )
    # Whatever it has, a model that is far above chance did train.
    trained = asked.scores is not None and asked.scores.interval[0] > 2 / len(few.class_names)
    found = [
        replace(v, severity="warning") if trained and v.severity == "error" else v
        for v in done.verdicts
    ]
    return {"parameters": done.parameters, "steps": len(done.history)}, found


def _cross_entropy(output: Any, labels: Tensor) -> Tensor:
    return functional.cross_entropy(only_tensor(output, len(labels), None), labels)


def ask_shift(asked: Asked, seconds: float) -> Answer:
    """What is left under blur, noise, weather, compression?"""
    known = corruptions()
    grey = asked.images.pixels.shape[1] == 1
    names = [n for n in BY_INFORMATION if n in known and not (grey and known[n].colour)]
    few = spread(asked.images, 24)
    start = time.perf_counter()
    tried = ShiftPlan(corruptions=("fog",), severities=(3,), images=len(few), **_ALONE)
    measure_shift(asked.target, few, tried)
    # With the clean images before it, and a margin for slower corruptions.
    each = 0.75 * (time.perf_counter() - start) / len(few)
    # Severities 1, 3 and 5 each.
    images = min(300, len(asked.images))
    affordable = int(seconds / (3 * each * images))
    if affordable < 6:
        images = max(30, int(seconds / (3 * each * 6)))
        affordable = max(1, int(seconds / (3 * each * images)))
    chosen = tuple(names[: min(affordable, len(names))])
    plan = ShiftPlan(
        corruptions=chosen,
        severities=(1, 3, 5),
        images=images,
        seed=asked.seed,
        **_ALONE,
    )
    asked.notes.append(f"{len(chosen)} of {len(known)} corruptions, on {images:,} images")
    found = measure_shift(asked.target, asked.images, plan)
    return found.figures(), list(found.verdicts)


def ask_audit(asked: Asked, seconds: float) -> Answer:
    """How small a change fools it, and can that figure be trusted?"""
    from unmask.fool.audit.run import audit

    module = asked.target.module
    # A step is a forward and a backward pass, which takes twice as long.
    steps = _STEPS
    cost = (2 * steps * 3 if module is not None else 100) * max(asked.per_image, 1e-6) * 1.5
    count = min(100, len(asked.images), int(seconds / cost))
    if count < 8:
        raise Skipped(f"the time left is enough for {max(count, 0)} images, and 8 are the least")
    few = spread(asked.images, count)
    settings: dict[str, Any] = {"attacks": ("fmn", "apgd-ce")}
    if asked.target.labels_only:
        settings = {"attacks": ("rays",), "queries": 100}
    elif module is None:
        settings = {"attacks": ("square",), "queries": 100}
    model: Any = module if module is not None else asked.target.function
    found = audit(
        model, few, images=count, pairs=0, steps=steps, seed=asked.seed, eps=asked.eps, **settings
    )
    asked.notes.append(f"{count:,} images, {' and '.join(settings['attacks'])} alone")
    eps = max(found.plan.eps)
    clean, robust = float(found.clean.value), float(found.robust(eps).value)
    verdicts = list(found.verdicts)
    if clean > 0 and robust < _ROBUST * clean:
        verdicts.append(
            Verdict(
                "fooled",
                "warning",
                f"{robust:.1%} of {count:,} images stay right under every change up to "
                f"{255 * eps:.3g}/255 of each pixel ({clean:.1%} clean)",
                fix="unmask fool harden trains against such changes; where nobody would make "
                "them, this is a warning about fragile features",
                evidence={"clean": clean, "robust": robust, "eps": eps},
            )
        )
    return {
        "clean_accuracy": clean,
        "robust_accuracy": robust,
        "eps": eps,
        "images": count,
    }, verdicts


def ask_certificate(asked: Asked, seconds: float) -> Answer:
    """Can anything be proved?"""
    from unmask.fool.certify.run import certify

    module = asked.target.module
    if module is None or asked.target.labels_only:
        raise Skipped("a black box can't be bounded")
    if seconds < _SHORTEST_PROOF:
        raise Skipped(f"proofs take {_SHORTEST_PROOF} seconds or more")
    size = sum(p.numel() for p in module.parameters())
    if size > _LARGEST_CERTIFIED:
        raise Skipped(f"{size:,} parameters are more than {_LARGEST_CERTIFIED:,}")
    few = spread(asked.images, 16)
    eps = asked.eps or (0.02 if few.pixels.shape[1] == 1 else 0.5 / 255)
    try:
        found = certify(module, few, eps=eps, minutes=seconds / 60, seed=asked.seed)
    except UserError as error:
        raise Skipped(str(error)) from error
    asked.notes.append(f"{len(few)} images, Linf {255 * eps:.3g}/255")
    # Nobody trained it for this; it is no reason to fail.
    lesser = [replace(v, severity="note") for v in found.verdicts()]
    return found.figures(), lesser


QUESTIONS: dict[str, tuple[Callable[[Asked, float], Answer], float]] = {
    # Each with the fraction of the time that is left when its turn comes.
    "preflight": (ask_preflight, 0.1),
    "accuracy": (ask_accuracy, 0.15),
    "data": (ask_data, 0.25),
    "flow": (ask_flow, 0.1),
    "shift": (ask_shift, 0.5),
    "audit": (ask_audit, 0.6),
    "certificate": (ask_certificate, 0.9),
}
