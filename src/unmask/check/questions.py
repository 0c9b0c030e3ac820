"""The questions of a check, each within a time: figures and verdicts."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from unmask.check.order import other_order
from unmask.check.preflight import USUAL_GAP, ask_preflight
from unmask.check.subject import Answer, Skipped, Subject, beyond_chance
from unmask.data.audit import audit_data
from unmask.data.images import Images
from unmask.errors import UserError
from unmask.models.answer import as_logits, unscaled
from unmask.models.given import not_finite_in
from unmask.shift.clean import miscalibrated, no_better_than_chance, not_finite, weak_classes
from unmask.shift.corruptions.registry import corruptions
from unmask.shift.fixes import recalibrated
from unmask.shift.measurement import measure_shift
from unmask.shift.result import ShiftPlan
from unmask.shift.scores import scores_of
from unmask.shift.target import spread
from unmask.stats import wilson
from unmask.verdict import Verdict

# One corruption of each kind comes first, so that a short check covers all kinds.
BY_INFORMATION = (
    *("gaussian_noise", "defocus_blur", "fog", "jpeg_compression", "rotate", "contrast"),
    *("pixelate", "brightness", "motion_blur", "elastic_transform", "snow", "translate"),
    *("impulse_noise", "zoom_blur", "frost", "saturate", "scale", "spatter", "shot_noise"),
)
# Accuracy is known well enough once the 95 % interval's half width is this.
_NARROW, _LEAST = 0.005, 1000
# The accuracy from which on a model is used to doubt labels.
_ABLE = 0.7
_FLOW_BATCH, _FLOW_PASSES = 64, 40
_STEPS, _FEWEST = 20, 8
# The images of each corruption where time is short.
_SHIFTED = 300
# A shift measurement of corruptions and nothing else.
_ALONE: dict[str, Any] = dict.fromkeys(
    ("smallest", "geometry", "pipeline", "runtimes", "fixes"), False
)
_ROBUST = 0.5
_SHORTEST_PROOF = 20
_LARGEST_CERTIFIED = 2_000_000


def ask_accuracy(subject: Subject, seconds: float) -> Answer:
    """How many images are right, how narrow is that figure, and can confidence be trusted?"""
    images, classes = subject.images, len(subject.images.class_names)
    most = subject.affordable(seconds, least=min(10, len(images)))
    order = np.random.default_rng(subject.seed).permutation(len(images))
    parts: list[Tensor] = []
    done, narrow, end = 0, False, time.perf_counter() + seconds
    chunk = max(50, min(500, most // 10))
    while done < len(images) and not narrow and (not done or time.perf_counter() < end):
        rows = order[done : min(most, done + chunk)]
        parts.append(subject.target.logits(subject.pixels(images[rows])))
        done += len(rows)
        right = np.concatenate([p.argmax(1).numpy() for p in parts]) == images.labels[order[:done]]
        low, high = wilson(int(right.sum()), done)
        narrow = done >= _LEAST and (high - low) / 2 <= _NARROW
        if done >= most:
            break
    # Back in the order of the set, as everything that takes a few of them expects.
    places = np.argsort(order[:done])
    subject.rows = order[:done][places].tolist()
    logits, chosen = torch.cat(parts)[places], images[np.asarray(subject.rows)]
    scores = scores_of(logits, chosen.labels, classes)
    subject.logits, subject.images, subject.scores = logits, chosen, scores
    if done < len(images):
        why = "which is narrow enough" if narrow else "for time"
        subject.notes.append(f"on {done:,} of {len(images):,} images, {why}")
    low, high = scores.interval
    module, finite = subject.target.module, bool(logits.isfinite().all())
    bad = int((~logits.isfinite().all(1)).sum())
    found = not_finite(bad, done, "" if module is None else not_finite_in(module))
    if finite and not subject.misfed:
        reordered = other_order(logits, chosen.labels, images.class_names)
        found += [] if reordered is None else [reordered]
        subject.reordered = subject.reordered or reordered is not None
    if not subject.reordered:
        found += [] if subject.misfed else no_better_than_chance(scores)
        if finite and not subject.target.labels_only:
            found += miscalibrated(scores, recalibrated(logits, chosen.labels))
        counts = np.bincount(chosen.labels, minlength=classes).tolist()
        found += weak_classes(scores, counts, images.class_names)
    figures = {"accuracy": scores.accuracy, "accuracy_low": low, "accuracy_high": high}
    figures |= {"images": scores.images, "ece": scores.ece, "confidence": scores.confidence}
    if scores.auroc is not None:
        figures["auroc"] = scores.auroc
    return figures, found


def ask_data(subject: Subject, seconds: float) -> Answer:
    """Are there leaks, duplicates, wrong labels, starved classes, shortcuts?"""
    source = subject.source
    probabilities = _probabilities(subject)
    total = (
        len(source)
        if isinstance(source, Images)
        else sum(len(p) for p in (source.train, source.validation, source.test) if p is not None)
    )
    # Measured on two cores: about 6,000 images a second to compare.
    near = total / 6000 < seconds
    if not near:
        subject.notes.append("near duplicates were not looked for, for time")
    found = audit_data(
        source, probabilities=probabilities, labels=False, near=near, seed=subject.seed
    )
    figures = found.figures()
    if not near:
        figures = {k: v for k, v in figures.items() if not k.startswith("near_")}
    return figures, list(found.verdicts)


def _probabilities(subject: Subject) -> dict[str, NDArray[np.float64]]:
    """Return the model's class probabilities for the tested images, by part."""
    source, logits, scores = subject.source, subject.logits, subject.scores
    if logits is None or scores is None or subject.target.labels_only or subject.misfed:
        return {}
    if isinstance(source, Images):
        part, whole = "train", source
    else:
        part = "test" if source.test else "validation" if source.validation else "train"
        whole = source.tested
    if scores.accuracy < _ABLE:
        subject.notes.append(f"labels aren't doubted by a model right for {scores.accuracy:.0%}")
        return {}
    names, known = whole.class_names, subject.images.class_names
    columns = [known.index(n) for n in names] if set(names) <= set(known) else range(len(names))
    top = logits.topk(2, 1).values
    # Logits that are far too large give only probabilities of 0 and 1, which can't be ranked.
    scale = max(1.0, float((top[:, 0] - top[:, 1]).nanmedian()) / USUAL_GAP)
    found = np.full((len(whole), len(names)), np.nan)
    found[subject.rows] = (logits / scale).double().softmax(1).numpy()[:, list(columns)]
    if len(subject.rows) < len(whole):
        subject.notes.append(f"{len(subject.rows):,} of {len(whole):,} labels were compared")
    return {part: found}


def ask_flow(subject: Subject, seconds: float) -> Answer:
    """Does the gradient reach every layer?"""
    from unmask.flow.check import check_flow

    module = subject.target.module
    assert module is not None
    most = subject.affordable(seconds, passes=_FLOW_PASSES, least=2)
    few = spread(subject.images, min(_FLOW_BATCH, most))
    # A network in half precision doesn't train by itself; its layers are the same in single.
    network = copy.deepcopy(module).float().train()
    labels = torch.from_numpy(few.labels)
    pixels = subject.pixels(few).to(subject.target.device)
    scale = subject.target.scale or "logits"

    def loss(output: Any, truth: Tensor) -> Tensor:
        logits, _ = as_logits(output, len(truth), None)
        return functional.cross_entropy(unscaled(logits, scale), truth)

    done = check_flow(network, loss, (pixels, labels.to(subject.target.device)), seed=subject.seed)
    # A model that is far above chance did train, whatever its faults.
    least = beyond_chance(len(few.class_names))
    trained = subject.scores is not None and subject.scores.interval[0] > least
    found = [
        replace(v, severity="warning") if trained and v.severity == "error" else v
        for v in done.verdicts
    ]
    return {"parameters": done.parameters, "steps": len(done.history)}, found


def _no_flow(subject: Subject) -> str:
    module = subject.target.module
    if module is None or subject.target.labels_only:
        return "a black box has no gradients to follow"
    if not any(p.requires_grad for p in module.parameters()):
        return "all parameters are frozen"
    return "a batch needs two images or more" if len(subject.images) < 2 else ""


def ask_shift(subject: Subject, seconds: float) -> Answer:
    """What is left under blur, noise, weather, compression?"""
    known = corruptions()
    grey = subject.images.pixels.shape[1] == 1
    ordered = dict.fromkeys(n for n in (*BY_INFORMATION, *known) if n in known)
    names = [n for n in ordered if not (grey and known[n].colour)]
    # The trial passes 24 images six times; the rest is one corruption of 30.
    subject.affordable(seconds, passes=10, least=min(30, len(subject.images)))
    few, start = spread(subject.images, 24), time.perf_counter()
    took = []
    for severities in ((3.0,), (1.0, 3.0, 5.0)):
        tried = ShiftPlan(
            corruptions=("contrast",), severities=severities, images=len(few), **_ALONE
        )
        begun = time.perf_counter()
        measure_shift(subject.target, few, tried)
        took.append(time.perf_counter() - begun)
    # Two severities more, without what each measurement costs anyhow; most corruptions take longer.
    each = 1.5 * max((took[1] - took[0]) / (2 * len(few)), subject.per_image, 1e-6)
    # With much time all corruptions on more images, with little at least six on fewer; severities
    # 1, 3 and 5 each.
    fits = seconds / (3 * each)
    images = int(max(fits / len(names), min(_SHIFTED, fits / 6), 30))
    plan = ShiftPlan(
        corruptions=tuple(names),
        severities=(1, 3, 5),
        images=min(images, _LEAST, len(subject.images)),
        seed=subject.seed,
        **_ALONE,
    )
    left = max(seconds - (time.perf_counter() - start), 0)
    found = measure_shift(subject.target, subject.images, plan, minutes=left / 60)
    subject.tried += found.cells
    measured = len(found.cells)
    subject.notes.append(f"{measured} of {len(known)} corruptions, on {plan.images:,} images")
    return found.figures(), list(found.verdicts)


def ask_audit(subject: Subject, seconds: float) -> Answer:
    """How small a change fools it, and can that figure be trusted?"""
    from unmask.fool.audit.run import audit

    module = subject.target.module
    # With each list of attacks the forward passes that it takes; a step is a forward and a
    # backward pass, which takes twice as long. The last resort of a slow model comes last.
    ways: tuple[tuple[dict[str, Any], int], ...] = (
        ({"attacks": ("fmn", "apgd-ce"), "steps": _STEPS}, 2 * 3 * _STEPS),
        ({"attacks": ("apgd-ce",), "steps": _STEPS // 2}, 3 * _STEPS // 2),
    )
    if subject.target.labels_only:
        ways = (({"attacks": ("rays",), "queries": 100}, 100),)
    elif module is None:
        ways = (({"attacks": ("square",), "queries": 100}, 100),)
    fits = [(w, int(seconds / (1.5 * n * max(subject.per_image, 1e-6)))) for w, n in ways]
    settings, count = next((fit for fit in fits if fit[1] >= _FEWEST), fits[-1])
    if count < _FEWEST:
        raise Skipped(f"the time left is enough for {count} images, and {_FEWEST} are the least")
    count = min(_LEAST, len(subject.images), count)
    few = spread(subject.images, count)
    model: Any = module if module is not None else subject.target.function
    found = audit(
        model,
        few,
        images=count,
        pairs=0,
        seed=subject.seed,
        eps=subject.eps,
        **settings,
    )
    subject.notes.append(f"{count:,} images, {' and '.join(settings['attacks'])} alone")
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


def ask_certificate(subject: Subject, seconds: float) -> Answer:
    """Can anything be proved?"""
    from unmask.fool.certify.run import certify

    module = subject.target.module
    assert module is not None
    if seconds < _SHORTEST_PROOF:
        raise Skipped(f"proofs take {_SHORTEST_PROOF} seconds or more")
    few = spread(subject.images, 16)
    eps = subject.eps or (0.02 if few.pixels.shape[1] == 1 else 0.5 / 255)
    try:
        # It comes last and its last step may outlast its time, which must not outlast the check's.
        found = certify(module, few, eps=eps, minutes=0.6 * seconds / 60, seed=subject.seed)
    except UserError as error:
        raise Skipped(str(error)) from error
    subject.notes.append(f"{len(few)} images, Linf {255 * eps:.3g}/255")
    # Most models weren't trained for proofs, so this is no reason to fail.
    lesser = [replace(v, severity="note") for v in found.verdicts()]
    return found.figures(), lesser


def _no_certificate(subject: Subject) -> str:
    module = subject.target.module
    if module is None or subject.target.labels_only:
        return "a black box can't be bounded"
    size = sum(p.numel() for p in module.parameters())
    if size > _LARGEST_CERTIFIED:
        return f"{size:,} parameters are more than {_LARGEST_CERTIFIED:,}"
    return ""


def _never(_: Subject) -> str:
    return ""


@dataclass(frozen=True)
class Question:
    """A question of a check.

    Args:
        ask: answers it within some seconds.
        weight: its part of the time; unused time goes to the questions after it.
        skipped: why it can't be asked, "" when it can.
    """

    ask: Callable[[Subject, float], Answer]
    weight: float
    skipped: Callable[[Subject], str] = _never


QUESTIONS: dict[str, Question] = {
    "preflight": Question(ask_preflight, 10),
    "accuracy": Question(ask_accuracy, 15),
    "data": Question(ask_data, 20),
    "flow": Question(ask_flow, 5, _no_flow),
    "shift": Question(ask_shift, 25),
    "audit": Question(ask_audit, 15),
    "certificate": Question(ask_certificate, 10, _no_certificate),
}
