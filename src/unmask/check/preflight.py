"""The first question: is this a classifier, and does it get the preprocessing that it needs?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from unmask.check.order import other_order
from unmask.check.subject import Answer, Subject, beyond_chance
from unmask.errors import UserError
from unmask.models.given import not_finite_in
from unmask.models.preprocessing import Wrapped
from unmask.shift.clean import SAME, not_finite, random_output, variation
from unmask.shift.judge import named_mistake
from unmask.shift.pipeline import Change, Mistake, changes, compared
from unmask.shift.target import Target, batch_size_of, fitted, scaled, spread
from unmask.text import printable
from unmask.train.temperature import TEMPERATURES, fitted_temperature
from unmask.verdict import Verdict

_MOST, _FIRST, _BASE = 2048, 16, 64
# The images whose mean and deviation stand for those of all.
_SAMPLED = 256
# Beyond this temperature, the probabilities are all 0 or 1.
_SATURATED = 8.0
# exp(-104) is 0 in single precision: beyond this gap no gradient is left.
_UNDERFLOW = 104.0
# The gap of logits between the two likeliest classes of healthy classifiers: 0.999 to 0.001.
USUAL_GAP = 7.0
# Another order of the classes must explain so much more than other preprocessing.
_CLEARLY = 0.02
# A way of feeding is dropped when it is worse, with this probability of error.
_WORSE = 0.02

R = TypeVar("R")


def ask_preflight(subject: Subject, seconds: float) -> Answer:
    """Is this a classifier, and does it get the preprocessing that it needs?"""
    start = time.perf_counter()
    end = start + seconds
    found, before = _mode(subject.target), _state(subject.target)
    target, images = within(
        max(seconds, subject.deadline - start),
        "a forward pass of one image",
        lambda: fitted(subject.target, subject.images),
    )
    subject.target, subject.images = target, images
    # The first pass of a process loads kernels, so its time says nothing about the model.
    each = (time.perf_counter() - start) / 2
    first = 8 if 8 * each < seconds else 1
    start = time.perf_counter()
    target.logits(subject.pixels(spread(images, first)))
    each = (time.perf_counter() - start) / min(first, len(images))
    few = spread(images, int(max(2, min(_BASE, seconds / 10 / max(each, 1e-6)))))
    pixels = subject.pixels(few)
    start = time.perf_counter()
    logits = target.logits(pixels)
    subject.per_image = (time.perf_counter() - start) / len(few)
    target, logits = scaled(target, logits)
    subject.target = target
    finite = logits.isfinite().all(1)
    bad = int((~finite).sum())
    figures = {"seconds_an_image": subject.per_image}
    if bad:
        figures["not_finite"] = bad / len(few)
    found += not_finite(
        bad, len(few), "" if target.module is None else not_finite_in(target.module)
    )
    if not bool(finite.any()):
        return figures, found
    unsteady = _repeated(target, pixels[finite], logits[finite])
    if unsteady and (changed := _changed(before, target)):
        # What changes in the model is the cause of it.
        unsteady = [replace(unsteady[0], kind="changes itself", cause=changed, fix=_STILL)]
    found += unsteady
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
    race = Race(subject, end)
    if any(v.kind != "batch dependence" for v in unsteady):
        # Whatever makes the logits larger against their noise would win.
        subject.notes.append("other preprocessing was not tried, since the output changes itself")
        race.stated, race.labels = logits, few.labels
    else:
        race.run(logits, few.labels)
    finite = race.stated.isfinite().all(1)
    order = other_order(race.stated[finite], race.labels[finite.numpy()], images.class_names)
    # Channels in another order put simple outputs into another order too.
    cured = 0.0 if race.verdict is None else race.verdict.evidence["accuracy"]
    if order is not None and order.evidence["reordered"] > cured + _CLEARLY:
        subject.reordered, race.verdict = True, None
        found.append(order)
    subject.misfed = race.verdict is not None
    if target.labels_only:
        subject.notes.append("the model gives the class alone, which has no confidence")
    else:
        found += _scaled(target, race.stated[finite], race.labels[finite.numpy()])
    if race.verdict is not None:
        found.append(race.verdict)
    figures["images"] = len(race.labels)
    figures["accuracy"] = float((race.stated.argmax(1).numpy() == race.labels).mean())
    figures["largest_logit"] = float(logits.nan_to_num().abs().max())
    return figures, found


def within(seconds: float, what: str, work: Callable[[], R]) -> R:
    """Return the result of work, if it ends in time.

    Args:
        seconds: the time allowed.
        what: is done, as the subject of the error's message.
        work: runs in a thread of its own.

    Raises:
        UserError: when it takes longer; the thread then runs on, since nothing can end it.
    """
    answer: list[R] = []
    raised: list[BaseException] = []
    gradients = torch.is_grad_enabled()

    def run() -> None:
        try:
            with torch.set_grad_enabled(gradients):
                answer.append(work())
        except BaseException as error:  # it is raised again below
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not answer:
        raise UserError(
            f"{what} did not end", got=f"{seconds:.1f} s", do="give more --minutes, or a faster one"
        )
    return answer[0]


def _mode(target: Target) -> list[Verdict]:
    training = target.module is not None and any(
        m.training
        and isinstance(m, (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd))
        for m in target.module.modules()
    )
    if not training:
        return []
    return [
        Verdict(
            "training mode",
            "note",
            "the model came in training mode; it was switched to evaluation for every figure",
            fix="call model.eval() before deploying it",
        )
    ]


_STILL = "keep state and mode out of forward: an image's prediction must not depend on earlier ones"


def _state(target: Target) -> dict[str, tuple[object, int]]:
    """Return what a forward pass must leave as it is: tensors, their versions, and modes."""
    if target.module is None:
        return {}
    found: dict[str, tuple[object, int]] = {}
    for name, tensor in target.module.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and not tensor.is_inference():
            found[name] = tensor, tensor._version
    for name, part in target.module.named_modules():
        found[f"the mode of {name or 'the whole model'}"] = target, int(part.training)
    return found


def _changed(before: dict[str, tuple[object, int]], target: Target) -> str:
    """Return what forward passes changed in a model, "" for nothing."""
    after = _state(target)
    changed = [
        name
        for name, (thing, number) in before.items()
        if name in after
        and (
            after[name][1] != number or (isinstance(thing, Tensor) and after[name][0] is not thing)
        )
    ]
    if not changed:
        return ""
    more = f" and {len(changed) - 3:,} more" if len(changed) > 3 else ""
    return f"a forward pass in evaluation changes {printable(', '.join(changed[:3]))}{more}"


def _repeated(target: Target, pixels: Tensor, logits: Tensor) -> list[Verdict]:
    if unsteady := random_output(variation(target, pixels, logits)):
        return unsteady
    together = variation(target, pixels, logits, count=1)
    if together > SAME:
        return [
            Verdict(
                "batch dependence",
                "warning",
                f"the logits of an image change by {together:.1%} of the largest with the rest of "
                "its batch",
                fix="use statistics of training in evaluation (batch norm in eval mode)",
                evidence={"difference": together},
            )
        ]
    return []


def _scaled(target: Target, logits: Tensor, labels: np.ndarray) -> list[Verdict]:
    """Judge whether the outputs are probabilities, logits, or logits that are far too large."""
    told = _SCALES.get(target.scale or "logits") or _SCALES.get(
        getattr(target.function, "scale", None) or "logits"
    )
    if told is not None:
        return [
            Verdict(
                "probabilities",
                "note",
                f"the outputs are {told}, not logits; every figure is that of their logits",
                fix="return logits and leave the softmax or sigmoid to the caller",
            )
        ]
    if len(labels) < 20:
        return []
    top = logits.topk(2, 1).values
    gap = float((top[:, 0] - top[:, 1]).median())
    wrong = float((logits.argmax(1).numpy() != labels).mean())
    temperature = 1.0
    if wrong > 0:
        # Without a mistake the sharpest probabilities fit best, which shows nothing.
        temperature = fitted_temperature(logits, labels, *TEMPERATURES)
    if 1 - wrong <= beyond_chance(logits.shape[1]) or (
        temperature <= _SATURATED and gap <= _UNDERFLOW
    ):
        return []
    factor = max(temperature, gap / USUAL_GAP)
    return [
        Verdict(
            "saturated logits",
            "error",
            f"the logits are about {factor:.0f} times too large: a median gap of {gap:.0f} between "
            "the two likeliest classes makes every probability 0 or 1, and gradients of the loss "
            "vanish",
            fix=f"divide the logits by {factor:.0f}",
            evidence={"temperature": temperature, "gap": gap},
        )
    ]


# What outputs of another scale are called.
_SCALES = {
    "probabilities": "probabilities",
    "percentages": "probabilities in percent",
    "sigmoids": "between 0 and 1 for each class by itself",
    "sigmoid": "the probability of the second class",
}


class Race:
    """Ways of feeding the model, tried on more and more images until one wins or all are dropped.

    A way that is better than the stated one only by chance falls back as images are added, so that
    few passes are spent on it.

    Args:
        subject: the model and the images.
        end: the time, by time.perf_counter, after which no more images are added.
    """

    def __init__(self, subject: Subject, end: float) -> None:
        self.subject, self.end = subject, end
        images = spread(subject.images, _MOST)
        # Folders list one class after another, so the first few are no sample.
        self.images = images[np.random.default_rng(subject.seed).permutation(len(images))]
        self.verdict: Verdict | None = None

    def run(self, base: Tensor, labels: np.ndarray) -> None:
        """Run it to its end and set stated, labels and verdict.

        Args:
            base: logits, as stated, of a few images, for when there is no time for more.
            labels: of those images.
        """
        # As floats all images may take more memory than everything else.
        target, sample = self.subject.target, self.subject.pixels(self.images[:_SAMPLED])
        ways = {name: way for name, (way, cure) in changes(target, sample).items() if cure}
        tried = {name: Mistake(name, 0, 0.0, 0.0, 0, 0, True) for name in ways}
        found = list(tried)
        logits: list[Tensor] = []
        most_common = float(np.bincount(self.images.labels).max() / len(self.images))
        done = 0
        while done < len(self.images):
            # As many images again as before, so that each comparison is worth its passes.
            size = max(_FIRST, done)
            cost = size * (1 + len(found)) * self.subject.per_image
            if time.perf_counter() + cost > self.end:
                tried_on = f"tried on {done} images" if done else "not tried"
                self.subject.notes.append(f"other preprocessing {tried_on}, for time")
                break
            part = self.images[done : done + size]
            chunk, truth = self.subject.pixels(part), part.labels
            stated = self._logits(chunk)
            logits.append(stated)
            for name in found:
                tried[name] = self._added(tried[name], ways[name], chunk, stated, truth)
            done += len(chunk)
            found = [name for name in found if not _worse(tried[name])]
            self.verdict = named_mistake(list(tried.values()), most_common)
        self.stated, self.labels = base, labels
        if done > len(labels):
            self.stated, self.labels = torch.cat(logits), self.images.labels[:done]

    def _logits(self, pixels: Tensor, way: Change | None = None) -> Tensor:
        parts = torch.split(pixels, batch_size_of(pixels))
        return torch.cat([self.subject.target.logits(way(x) if way else x) for x in parts])

    def _added(
        self, before: Mistake, way: Change, pixels: Tensor, stated: Tensor, labels: np.ndarray
    ) -> Mistake:
        new = compared(before.name, self._logits(pixels, way), stated, labels)
        n = before.images + new.images
        return replace(
            before,
            images=n,
            accuracy=(before.accuracy * before.images + new.accuracy * new.images) / max(n, 1),
            stated=(before.stated * before.images + new.stated * new.images) / max(n, 1),
            gained=before.gained + new.gained,
            lost=before.lost + new.lost,
        )


def _worse(way: Mistake) -> bool:
    """Return whether a way of feeding is worse than the stated one, beyond chance."""
    from scipy.stats import binomtest

    if way.images >= 4 * _FIRST and not way.gained:
        # With so few to gain, it can never win clearly.
        return True
    count = way.gained + way.lost
    return bool(count and binomtest(way.gained, count, alternative="less").pvalue < _WORSE)
