"""The front door: every question about one model within a time, with reasons for those skipped."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unmask.check.questions import QUESTIONS
from unmask.check.result import Check, Part
from unmask.check.subject import Skipped, Subject
from unmask.data.images import Images
from unmask.data.sources import Source
from unmask.errors import MAX_SEED, UserError, require_whole, unknown
from unmask.fool.norms import Threat
from unmask.runtime import environment_stamp
from unmask.shift.target import Target, as_images, as_target, read_for
from unmask.text import told
from unmask.verdict import Verdict

DEFAULT_MINUTES = 5.0
# The fraction of images without finite logits above which no other question makes sense.
_MOSTLY = 0.5


def check_model(
    model: Any,
    data: Any,
    *,
    minutes: float = DEFAULT_MINUTES,
    questions: Sequence[str] = (),
    eps: float | None = None,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
    ended: Callable[[Part], None] | None = None,
) -> Check:
    """Answer all questions about a model, within a time.

    Args:
        model: an nn.Module, a function of pixels in [0, 1], a shipped name, a .safetensors or .onnx
            file, or an import path.
        data: a named set, a folder or zip, a Source, Images, (pixels, labels) or a DataLoader.
        minutes: the time allowed; samples are as large as fit.
        questions: their names, all by default.
        eps: the size of the audit's changes, in [0, 1].
        seed: of everything random.
        progress: called with the question and the fraction of the time used.
        ended: called with each question's part as it ends.

    Returns:
        A Check: print it, or read verdicts, figures() and parts.

    Raises:
        UserError: when the model or the data can't be used at all.

    Example:
        >>> colours = nn.Sequential(
        ...     nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ... )  # the class is the channel
        >>> pixels = np.random.default_rng(0).integers(0, 99, (60, 3, 8, 8)).astype(np.uint8)
        >>> labels = np.arange(60) % 3
        >>> pixels[np.arange(60), labels] += 99
        >>> found = unmask.check(colours, (pixels, labels), minutes=0.2, questions=("accuracy",))
        >>> found.figures()["accuracy.accuracy"]
        1.0
    """
    if not isinstance(minutes, (int, float)) or not 0 < minutes <= 24 * 60:
        raise UserError("the minutes must be a positive number", got=minutes, do="5 is usual")
    questions = (questions,) if isinstance(questions, str) else questions
    for name in questions:
        if name not in QUESTIONS:
            raise unknown("question", name, QUESTIONS)
    require_whole("seed", seed, 0, MAX_SEED)
    if eps is not None:
        Threat.of("linf", eps)
    start = time.perf_counter()
    target = as_target(model)
    source, images = _both(data, target)
    subject = Subject(target, images, source, seed, eps=eps, deadline=start + 60 * minutes)
    parts: list[Part] = []

    def end(part: Part) -> None:
        parts.append(part)
        if ended:
            ended(part)

    broken = ""
    # A verdict of one question isn't repeated by another.
    given: set[tuple[str, str | None]] = set()
    chosen = [n for n in QUESTIONS if not questions or n in questions or n == "preflight"]
    for i, name in enumerate(chosen):
        question = QUESTIONS[name]
        # What can't be asked leaves its time to the others.
        asked = [QUESTIONS[n] for n in chosen[i:]]
        weights = [q.weight for q in asked if not q.skipped(subject)]
        fraction = question.weight / max(sum(weights), question.weight)
        used = time.perf_counter() - start
        left = 60 * minutes - used
        if progress:
            progress(name, min(1.0, used / (60 * minutes)))
        if broken and name != "data":
            end(Part(name, "skipped", broken))
            continue
        if left <= 0:
            end(Part(name, "skipped", f"the {minutes:g} minutes were over"))
            continue
        if why := question.skipped(subject):
            end(Part(name, "skipped", why))
            continue
        ask = functools.partial(question.ask, subject, fraction * left)
        part = _answered(name, ask, subject)
        part = replace(part, verdicts=tuple(v for v in part.verdicts if _key(v) not in given))
        given |= {_key(v) for v in part.verdicts}
        end(part)
        if name == "preflight" and part.status == "failed":
            broken = "the preflight failed"
        if part.figures.get("not_finite", 0.0) > _MOSTLY:
            broken = "the logits aren't finite"
    seconds = time.perf_counter() - start
    return Check(
        model=target.name,
        data=subject.images.name,
        parts=tuple(parts),
        minutes=minutes,
        seconds=seconds,
        provenance=environment_stamp(
            model=target.identity,
            data=images.sha256,
            images=len(images),
            seed=seed,
            device=str(target.device),
        ),
    )


def _key(verdict: Verdict) -> tuple[str, str | None]:
    return verdict.kind.replace("_", " "), verdict.subject


def _answered(name: str, ask: Callable[[], Any], subject: Subject) -> Part:
    subject.notes.clear()
    subject.tried.clear()
    start = time.perf_counter()
    try:
        figures, verdicts = ask()
    except Skipped as reason:
        return Part(name, "skipped", str(reason), time.perf_counter() - start)
    except UserError as error:
        return _failed(name, str(error), time.perf_counter() - start)
    except Exception as error:  # a model may raise anything; the other questions continue
        return _failed(name, told(error, 250), time.perf_counter() - start)
    took = time.perf_counter() - start
    notes, tried = "; ".join(subject.notes), tuple(subject.tried)
    return Part(name, "done", notes, took, figures, tuple(verdicts), tried)


def _failed(name: str, why: str, seconds: float) -> Part:
    # A gate must not pass because an answer is missing.
    verdict = Verdict(
        "unusable" if name == "preflight" else "unanswered",
        "error" if name == "preflight" else "warning",
        why,
        subject=None if name == "preflight" else name,
    )
    return Part(name, "failed", why, seconds, verdicts=(verdict,))


def _both(data: Any, target: Target) -> tuple[Source | Images, Images]:
    """Return all parts of the data, and the images to test with."""
    if isinstance(data, (str, Path)):
        data = read_for(str(data), target)
    images = as_images(data, target)
    return (data if isinstance(data, Source) else images), images
