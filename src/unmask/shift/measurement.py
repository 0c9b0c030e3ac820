"""The measurement itself: every corruption at every severity, geometry, pipeline, runtimes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.data.images import Images
from unmask.errors import UserError
from unmask.execution.executor import Executor
from unmask.models.given import not_finite_in
from unmask.runtime import environment_stamp, write_atomically
from unmask.saved_state import check_keys, read_json, reading
from unmask.shift.clean import SAME, variation
from unmask.shift.corruptions.registry import Corruption, corrupt, corruptions
from unmask.shift.fixes import has_batch_norm, recalibrated, reestimated
from unmask.shift.geometry import FRAMINGS, worst_case
from unmask.shift.judge import judge
from unmask.shift.pipeline import Mistake, file_mistakes, value_mistakes
from unmask.shift.result import Adapted, Shift, ShiftPlan
from unmask.shift.runtimes import runtimes
from unmask.shift.scores import Scores, scores_of
from unmask.shift.target import Target, as_images, as_target, batch_size_of, fitted, scaled

_BISECTIONS = 4
# The most images for geometry, pipeline, runtimes and adaptation.
_GEOMETRY, _PIPELINE, _RUNTIMES, _ADAPTED = 200, 1000, 500, 500
_CELLS = "cells.json"


@dataclass(frozen=True)
class ShiftProgress:
    """The progress of a measurement.

    Args:
        doing: the current step, in words.
        done: steps done.
        total: steps in all.
    """

    doing: str
    done: int
    total: int


def measure_shift(
    model: Any,
    data: Any,
    plan: ShiftPlan | None = None,
    *,
    files: tuple[Sequence[bytes], NDArray[np.int64]] | None = None,
    directory: Path | None = None,
    resume: bool = False,
    on: Executor | None = None,
    minutes: float | None = None,
    progress: Callable[[ShiftProgress], None] | None = None,
) -> Shift:
    """Measure a classifier under shift, and judge it.

    Args:
        model: an nn.Module, a function of pixels in [0, 1], a shipped name, a .safetensors or .onnx
            file, or an import path.
        data: labelled images in any form that as_images takes.
        plan: the settings, ShiftPlan() by default.
        files: bytes and labels (int64[n]) of image files, to try other ways of reading them.
        directory: where the scores of each corruption are stored as soon as it is done.
        resume: whether scores that the same measurement stored there are used again.
        on: where each corruption is measured, in this process by default. Elsewhere the model is
            loaded again from its name or file, which must be there too.
        minutes: after which no further corruption is begun in this process, None for no limit; the
            figures are of those that were measured, in the plan's order, at least one.
        progress: called at each step.

    Returns:
        The figures and verdicts.

    Raises:
        UserError: when the model or data is missing or doesn't fit, scores in the directory are of
            another measurement, or corruptions failed elsewhere (what was measured is stored).

    Example:
        >>> colours = nn.Sequential(
        ...     nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ... )  # the class is the channel
        >>> pixels = np.random.default_rng(0).integers(0, 99, (60, 3, 8, 8)).astype(np.uint8)
        >>> labels = np.arange(60) % 3
        >>> pixels[np.arange(60), labels] += 99
        >>> found = unmask.shift(colours, (pixels, labels), corruptions=("gaussian_noise",))
        >>> found.at_severity(3)["gaussian_noise"].accuracy
        1.0
    """
    plan = plan or ShiftPlan()
    target = as_target(model)
    images = as_images(data, target, most=plan.images)
    target, images = fitted(target, images)
    pixels = torch.tensor(images.pixels)
    labels, classes = images.labels, len(images.class_names)
    channels = pixels.shape[1]
    suite = [c for c in _chosen(plan) if channels == 3 or not c.colour]
    store = _Store(directory, _key(target, images, plan), resume)
    steps = len(suite) + 4
    done = 0

    def tell(doing: str) -> None:
        if progress:
            progress(ShiftProgress(doing, done, steps))

    end = math.inf if minutes is None else time.perf_counter() + 60 * minutes
    tell("clean images")
    target, logits = scaled(target, _logits(target, pixels))
    clean = scores_of(logits, labels, classes)
    finite = logits.isfinite().all(1)
    few = finite.nonzero()[: batch_size_of(pixels), 0]
    again = pixels[few].float() / 255
    differs = variation(target, again, logits[few]) if len(few) else 0.0
    steady = differs <= SAME
    shared = _Shared(target, images, plan, logits, clean, torch.get_num_threads())
    missing = [c.name for c in suite if store.row(c.name) is None]
    done = len(suite) - len(missing)
    if on is None:
        for name in missing:
            if done and time.perf_counter() > end:
                break
            tell(name)
            store.keep(name, _row(shared, name))
            done += 1
    else:
        for name in _elsewhere(on, shared, missing, store):
            done += 1
            tell(name)
    rows = {c.name: row for c in suite if (row := store.row(c.name)) is not None}
    result = Shift(
        model=target.name,
        data=images.name,
        class_names=images.class_names,
        class_counts=tuple(int(n) for n in np.bincount(labels, minlength=classes)),
        plan=plan,
        clean=clean,
        labels_only=target.labels_only,
        not_finite=int((~finite).sum()),
        not_finite_weights="" if target.module is None else not_finite_in(target.module),
        variation=differs,
        cells={n: tuple(Scores.from_dict(s) for s in row["scores"]) for n, row in rows.items()},
        flips={name: row["flips"] for name, row in rows.items()},
        smallest={name: row["smallest"] for name, row in rows.items()},
        provenance=environment_stamp(
            model=target.identity,
            data=images.sha256,
            images=len(images),
            seed=plan.seed,
            device=str(target.device),
        ),
    )
    tell("geometry")
    if plan.geometry and steady:
        few = _few(pixels, _GEOMETRY)
        x, y = pixels[few].float() / 255, labels[few.numpy()]
        truth = torch.from_numpy(y)
        framings = {
            name: float((target.logits(change(x)).argmax(1) == truth).double().mean())
            for name, change in FRAMINGS.items()
        }
        result = replace(result, geometry=worst_case(target, x, y), framings=framings)
    done += 1
    tell("pipeline")
    if plan.pipeline and steady:
        few = _few(pixels, min(_PIPELINE, 8 * batch_size_of(pixels)))
        found_mistakes = value_mistakes(target, pixels[few].float() / 255, labels[few.numpy()])
        size = (int(pixels.shape[2]), int(pixels.shape[3]))
        read: list[Mistake] = []
        if files is not None and len(files[0]):
            read = file_mistakes(target, files[0], files[1], size, channels)
        result = replace(result, mistakes=found_mistakes, file_mistakes=read)
    done += 1
    tell("runtimes")
    if plan.runtimes and steady:
        few = _few(pixels, min(_RUNTIMES, 4 * batch_size_of(pixels)))
        result = replace(
            result,
            runtimes=runtimes(
                target, pixels[few].float() / 255, labels[few.numpy()], compiled=plan.compiled
            ),
        )
    done += 1
    tell("fixes")
    if plan.fixes:
        result = replace(
            result,
            temperature=None
            if target.labels_only or not bool(finite.all())
            else recalibrated(logits, labels),
            adapted=_adapted(target, pixels, labels, result),
        )
    done += 1
    tell("done")
    return replace(result, verdicts=judge(result))


def _chosen(plan: ShiftPlan) -> list[Corruption]:
    known = corruptions()
    return [known[name] for name in (plan.corruptions or tuple(known))]


def _logits(
    target: Target, pixels: Tensor, name: str = "", severity: float = 0, seed: int = 0
) -> Tensor:
    """Return the logits of uint8 pixels under a corruption, a batch at a time."""
    batch = batch_size_of(pixels)
    found = []
    for start in range(0, len(pixels), batch):
        x = pixels[start : start + batch].to(target.device).float() / 255
        if name:
            rows = range(start, start + len(x))
            x = corrupt(x, name, severity, seed=seed, rows=rows)
        found.append(target.logits(x))
    return torch.cat(found)


@dataclass(frozen=True)
class _Shared:
    """The input of every task, sent to a worker once.

    Args:
        target: the model.
        images: labelled.
        plan: the settings.
        logits: of the unchanged images.
        clean: their scores.
        threads: of torch, on which rounding may depend.
    """

    target: Target
    images: Images
    plan: ShiftPlan
    logits: Tensor
    clean: Scores
    threads: int


def _row(shared: _Shared, name: str) -> dict[str, Any]:
    """Return the stored row of a corruption: scores by severity, flips, smallest."""
    target, plan, labels = shared.target, shared.plan, shared.images.labels
    pixels = torch.tensor(shared.images.pixels)
    classes = len(shared.images.class_names)
    scores, changed = [], []
    before = shared.logits.argmax(1)
    for severity in plan.severities:
        found = _logits(target, pixels, name, severity, plan.seed)
        scores.append(scores_of(found, labels, classes))
        now = found.argmax(1)
        changed.append(float((now != before).double().mean()))
        before = now
    return {
        "scores": [s.as_dict() for s in scores],
        "flips": sum(changed) / len(changed),
        "smallest": _smallest(target, pixels, labels, name, plan, shared.clean, scores)
        if plan.smallest
        else None,
    }


def _row_there(shared: tuple[str, str, _Shared], name: str) -> dict[str, Any]:
    """Return the row of a corruption, with the model loaded on the machine that this runs on."""
    source, identity, rest = shared
    torch.set_num_threads(rest.threads)
    target = as_target(source)
    if target.identity != identity:
        raise UserError(
            "the model there isn't the one here",
            got=source,
            do="put the same file on every machine of the cluster",
        )
    target, images = fitted(replace(target, scale=rest.target.scale), rest.images)
    return _row(replace(rest, target=target, images=images), name)


def _elsewhere(on: Executor, shared: _Shared, names: list[str], store: _Store) -> Iterator[str]:
    """Measure corruptions by an executor and keep each row; yield the name of each as it ends."""
    target = shared.target
    if not target.source:
        raise UserError(
            "this model can't travel to other machines",
            got=target.name,
            do="give its name, file or import path, or leave out where to work",
        )
    # The function and its references aren't sent: a worker loads them again.
    bare = Target(target.name, function=_unloaded, scale=target.scale)
    failed: list[str] = []
    travelling = target.source, target.identity, replace(shared, target=bare)
    for outcome in on.run(_row_there, travelling, names):
        if outcome.result is None:
            failed.append(f"{names[outcome.index]}: {outcome.error}")
        else:
            store.keep(names[outcome.index], outcome.result)
            yield names[outcome.index]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(names)} corruptions weren't measured",
            got=failed[0],
            do="--resume continues with these",
        )


def _unloaded(pixels: Tensor) -> Tensor:
    raise UserError("the model wasn't loaded here")


def _smallest(
    target: Target,
    pixels: Tensor,
    labels: NDArray[np.int64],
    name: str,
    plan: ShiftPlan,
    clean: Scores,
    scores: list[Scores],
) -> float | None:
    """Return the smallest severity that costs plan.drop of accuracy, to a sixteenth."""
    bound = clean.accuracy - plan.drop
    place = next((i for i, s in enumerate(scores) if s.accuracy <= bound), None)
    if place is None:
        return None
    low, high = (plan.severities[place - 1] if place else 0.0), plan.severities[place]
    truth = torch.from_numpy(labels)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        found = _logits(target, pixels, name, middle, plan.seed)
        if float((found.argmax(1) == truth).double().mean()) <= bound:
            high = middle
        else:
            low = middle
    return high


def _few(pixels: Tensor, most: int) -> Tensor:
    """Return the places of at most this many images, spread evenly."""
    kept = min(most, len(pixels))
    return torch.arange(kept) * len(pixels) // kept


def _adapted(
    target: Target, pixels: Tensor, labels: NDArray[np.int64], result: Shift
) -> list[Adapted]:
    """Try new batch-norm statistics under the three corruptions that cost most."""
    if not has_batch_norm(target) or len(pixels) < 2:
        return []
    few = _few(pixels, min(_ADAPTED, 4 * batch_size_of(pixels)))
    truth = torch.from_numpy(labels)[few]
    worst = sorted(result.at_severity(3).items(), key=lambda x: x[1].accuracy)[:3]
    found = []
    for name, _ in worst:
        x = corrupt(pixels[few].float() / 255, name, 3, seed=result.plan.seed)
        before = (target.logits(x).argmax(1) == truth).double().mean()
        after = (reestimated(target, x).logits(x).argmax(1) == truth).double().mean()
        found.append(Adapted(name, float(before), float(after)))
    return found


def _key(target: Target, images: Images, plan: ShiftPlan) -> dict[str, Any]:
    kept = ("severities", "drop", "seed", "smallest")
    settings = {k: v for k, v in asdict(plan).items() if k in kept}
    settings["severities"] = list(plan.severities)
    return {"model": target.identity, "data": images.sha256, "settings": settings}


class _Store:
    """The rows of a measurement on disk, rewritten after each corruption."""

    def __init__(self, directory: Path | None, key: dict[str, Any], resume: bool) -> None:
        self.path = None if directory is None else directory / _CELLS
        self.content: dict[str, Any] = {"key": key, "rows": {}}
        if self.path is None or not resume or not self.path.exists():
            return
        kept = read_json(self.path)
        check_keys(kept, ("key", "rows"), self.path, "it")
        check_keys(kept["rows"], corruptions(), self.path, "rows", missing=True)
        for name, row in kept["rows"].items():
            check_keys(row, ("scores", "flips", "smallest"), self.path, f"the row {name}")
            with reading(self.path):
                for scores in row["scores"]:
                    Scores.from_dict(scores)
        if kept["key"] != key:
            raise UserError(
                f"{self.path} holds another measurement",
                got="another model, other images or settings",
                do="choose another --out, or leave out --resume",
            )
        self.content = kept

    def row(self, name: str) -> dict[str, Any] | None:
        """Return the stored row of a corruption, or None."""
        row: dict[str, Any] | None = self.content["rows"].get(name)
        return row

    def keep(self, name: str, row: dict[str, Any]) -> None:
        """Store the row of a corruption."""
        self.content["rows"][name] = row
        if self.path is not None:
            with write_atomically(self.path) as file:
                file.write(json.dumps(self.content).encode())
