"""The audit itself: preflight, shards of attacks that resume, and their sum."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.data.images import Images
from unmask.data.load import load_for
from unmask.errors import UserError
from unmask.execution.executor import Executor, LocalExecutor
from unmask.fool.audit.diagnosis import Diagnosis, diagnose
from unmask.fool.audit.plan import AuditPlan, default_eps, default_pairs
from unmask.fool.audit.preflight import Preflight, preflight
from unmask.fool.audit.records import Pairs, Shard, Worst
from unmask.fool.audit.result import Audit
from unmask.fool.audit.shard import MOST_TARGETS, as_tensors, attack_pairs, attack_shard
from unmask.fool.audit.store import Parts, Store
from unmask.fool.norms import require_number
from unmask.fool.source import Model, as_victim
from unmask.fool.victim import Victim
from unmask.runtime import environment_stamp
from unmask.train.evaluation import counted

_LOOKED_AT, _WATCHED = 256, 32
_PAIR_PICTURES = 25
# The most bytes of a shard's images, of which an attack holds about ten copies.
_SHARD_BYTES = 1 << 26
# More pairs would take longer than all else: those of many classes are a sample.
_MOST_PAIRED = 200


@dataclass(frozen=True)
class AuditProgress:
    """The progress of an audit.

    Args:
        doing: the current step, in words.
        done: shards done.
        shards: shards in all.
        running: shards that are being attacked.
        failed: shards that failed.
    """

    doing: str
    done: int
    shards: int
    running: int = 0
    failed: int = 0


@dataclass(frozen=True)
class _Shared:
    """The input of every task, sent to a node once."""

    model: Victim
    images: Images
    plan: AuditPlan
    # Rounding may depend on it, so the workers use as many as this process.
    threads: int

    def victim(self) -> Victim:
        torch.set_num_threads(self.threads)
        return self.model.fresh(len(self.images.class_names))


def _attacked(shared: _Shared, task: tuple[int, NDArray[np.int64]]) -> Shard:
    number, rows = task
    return attack_shard(shared.victim(), shared.images, rows, shared.plan, number)


def _paired(shared: _Shared, task: tuple[int, NDArray[np.int64]]) -> Pairs:
    number, rows = task
    return attack_pairs(shared.victim(), shared.images, rows, shared.plan, number)


def audit(
    model: Model,
    data: Images | str | Path | tuple[Any, Any],
    *,
    eps: float | Sequence[float] | None = None,
    norm: str = "linf",
    images: int = 1000,
    attacks: str | Sequence[str] = (),
    pairs: int | None = None,
    steps: int = 100,
    queries: int = 5000,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    batch_size: int = 256,
    seed: int = 0,
    directory: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[AuditProgress], None] | None = None,
) -> Audit:
    """Attack a classifier with an ensemble; measure its robust accuracy, and whether to trust it.

    Args:
        model: a network, a function of float32[b, c, h, w] to logits, a model that ships, a file,
            or "my_module:make_model".
        data: images with labels: Images, "mnist", a folder, or (images, labels), the images
            float[n, c, h, w] in [0, 1] (rounded to 8 bits) or uint8.
        eps: the largest changes, in units of pixels in [0, 1], in l0 numbers of values; by default
            0.3 (grey) or 8/255 for linf, 1.5 or 0.5 for l2, 10 or 12 for l1, 20 or 24 for l0.
        norm: "linf", "l2", "l1" or "l0".
        images: how many, spread evenly over those given.
        attacks: one or more names in unmask.fool.attacks.ATTACKS; the norm's ensemble by default.
        pairs: how many images of each class are changed towards every other class, 0 for none; by
            default one for each 100 images, 10 at most.
        steps: gradients that an attack takes.
        queries: forward passes an image that a black-box attack takes.
        mean: that the model expects to be subtracted from the images, one number or one a channel.
        std: that it expects them to be divided by then, likewise, above 0.
        batch_size: images in a forward pass.
        seed: of everything random.
        directory: where parts are stored as they are done.
        resume: whether parts of the same audit in directory are used again.
        progress: called as the audit proceeds.

    Returns:
        The audit: print it, or read clean, robust(eps), smallest, verdicts, figures().

    Raises:
        UserError: for images that don't fit the model and a model that can't be judged.

    Example:
        Logits that are the mean of each half, so that every change within 0.1 keeps the class:

        >>> halves = nn.Sequential(nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten())
        >>> images = torch.cat([torch.full((20, 1, 8, 4), 0.8), torch.full((20, 1, 8, 4), 0.2)], 3)
        >>> found = unmask.audit(halves, (images, torch.zeros(20, dtype=torch.int64)), eps=0.1)
        >>> found.robust(0.1).value
        1.0
    """
    for size in eps if isinstance(eps, (list, tuple)) else (eps,):
        require_number(size)
    shape, channels = None, None
    if isinstance(data, (str, Path)):
        taken = as_victim(model)
        shape, channels = taken.input_shape, taken.channels
    found = load_for(data, shape, channels)
    victim = as_victim(model, mean=mean, std=std, batch_size=batch_size, images=found.pixels)
    if eps is None:
        eps = default_eps(norm, found.pixels.shape[1])
    plan = AuditPlan(
        norm=norm,
        eps=(float(eps),) if isinstance(eps, (int, float)) else tuple(float(e) for e in eps),
        attacks=(attacks,) if isinstance(attacks, str) else tuple(attacks),
        images=images,
        pairs=default_pairs(images) if pairs is None else pairs,
        steps=steps,
        queries=queries,
        seed=seed,
    )
    return run_audit(
        victim,
        found,
        plan,
        directory=None if directory is None else Path(directory),
        resume=resume,
        progress=progress,
    )


def run_audit(
    model: Victim,
    images: Images,
    plan: AuditPlan,
    *,
    directory: Path | None = None,
    resume: bool = False,
    on: Executor | None = None,
    progress: Callable[[AuditProgress], None] | None = None,
) -> Audit:
    """Attack a model with the whole ensemble and judge every image.

    Memory is that of one shard, however many images there are.

    Args:
        model: the classifier.
        images: of the model's size and classes.
        plan: the settings.
        directory: where each shard is stored as soon as it is done.
        resume: whether shards of the same audit in directory are used again; the bits are those of
            an audit that was never stopped.
        on: the executor of the shards, this process by default; the bits are the same.
        progress: called as the audit proceeds.

    Returns:
        The audit. A shard that fails is named in failures, and its images are left out of every
        figure.

    Raises:
        UserError: for images that don't fit the model, a model that can't be judged, shards of
            another audit, and when no shard can be attacked.
    """
    _check(model, images, plan)
    images = _counted(model, images)
    victim = model.fresh(len(images.class_names))
    rows = _spread(len(images), plan.images)
    key = _key(model, images, plan)
    store = Store(directory, key, resume)
    together = max(1, min(plan.shard, _SHARD_BYTES // (4 * images.pixels[0].size)))
    shards = np.array_split(rows, -(-len(rows) // together))
    total = len(shards) + 1
    tell = progress or (lambda _: None)
    tell(AuditProgress("looking at the model", 0, total))
    before, seen = _look(victim, images, rows, plan)
    model = model.fresh()
    model.scale, model.visible = victim.scale, victim.visible
    model.through_steps = victim.through_steps
    # The attacks depend on the model's outputs.
    specs = ", ".join(dict.fromkeys(s.name for s in plan.specs(victim)))
    shared = _Shared(model, images, plan, torch.get_num_threads())
    on = on or LocalExecutor()
    attacks = Parts(store.shards, shards)
    for done, running, failed in attacks.made(on, _attacked, shared):
        tell(AuditProgress(f"attacking with {specs}", done, total, running, failed))
    parts, failures = attacks.read(), attacks.failures("shard")
    if not parts:
        raise UserError("no image could be attacked", got=failures[0], do="see what it says")
    tell(AuditProgress("seeking every class", len(shards), total, failed=len(failures)))
    worst = Worst.joined([p.worst for p in parts])
    records = tuple(
        functools.reduce(operator.add, column)
        for column in zip(*(p.records for p in parts), strict=True)
    )
    pairs = None
    # The choice of images for pairs depends on all of them.
    if plan.pairs and victim.differentiable and not failures:
        chosen = Parts(store.pairs, _to_pair(images, worst, plan))
        for _ in chosen.made(on, _paired, shared):
            pass
        found, failures = chosen.read(), chosen.failures("pairs")
        pairs = Pairs.joined(found) if found else None
    tell(AuditProgress("done", total, total, failed=len(failures)))
    examples, example_rows = _examples(parts, worst, images)
    return Audit(
        model=model.name,
        data=images.name,
        class_names=images.class_names,
        plan=plan,
        worst=worst,
        pairs=pairs,
        records=records,
        unstable=sum(p.unstable for p in parts),
        examples=examples,
        example_rows=example_rows,
        preflight=before,
        diagnosis=seen,
        stamp=environment_stamp(
            **key,
            kind=model.kind,
            device=str(model.device),
            threads=torch.get_num_threads(),
        ),
        failures=tuple(failures),
    )


def _look(
    victim: Victim, images: Images, rows: NDArray[np.int64], plan: AuditPlan
) -> tuple[Preflight, Diagnosis]:
    pixels, labels = as_tensors(images, rows[_spread(len(rows), _LOOKED_AT)], victim)
    before = preflight(victim, pixels, labels)
    right = (victim.logits(pixels).argmax(1) == labels).nonzero().flatten()[:_WATCHED]
    return before, diagnose(victim, pixels[right], labels[right], plan)


def _to_pair(images: Images, worst: Worst, plan: AuditPlan) -> list[NDArray[np.int64]]:
    """Return the rows of the images that are changed towards every class, by task."""
    right = worst.clean == worst.labels
    of_class = [
        np.flatnonzero(right & (worst.labels == k))[: plan.pairs]
        for k in range(len(images.class_names))
    ]
    rows = worst.rows[np.sort(np.concatenate(of_class))]
    if len(images.class_names) > MOST_TARGETS:
        rows = rows[_spread(len(rows), _MOST_PAIRED)]
    return np.array_split(rows, -(-len(rows) // _PAIR_PICTURES)) if len(rows) else []


def _examples(
    parts: list[Shard], worst: Worst, images: Images
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    pixels = np.concatenate([p.examples for p in parts])
    rows = np.concatenate([p.example_rows for p in parts])
    place = {int(row): i for i, row in enumerate(worst.rows)}
    size = np.array([worst.size[place[int(row)]] for row in rows])
    chosen = []
    for k in range(len(images.class_names)):
        mine = np.flatnonzero(images.labels[rows] == k)
        if len(mine):
            chosen.append(mine[size[mine].argmin()])
    index = np.array(chosen, dtype=np.int64)
    return pixels[index], rows[index]


def _check(model: Victim, images: Images, plan: AuditPlan) -> None:
    if not len(images):
        raise UserError("there are no images to audit on", got=images.name)
    shape = tuple(images.pixels.shape[1:])
    if model.input_shape is not None and model.input_shape != shape:
        raise UserError(
            f"{model.name} takes images of shape {list(model.input_shape)}",
            got=list(shape),
            do="give images of the model's channels and size",
        )
    largest = float(plan.geometry.size(torch.ones(1, *shape)))
    if max(plan.eps) > largest:
        raise UserError(
            "eps is above the largest change of such images",
            got=f"{max(plan.eps):g}",
            do="images are in [0, 1], and no change is longer than "
            f"{largest:.3g} in {plan.norm.upper()}",
        )
    names = model.class_names
    if names is not None and len(names) != len(images.class_names):
        raise UserError(
            f"{model.name} has {len(names)} classes",
            got=f"images of {len(images.class_names)}",
            do="give the images that it was trained on",
        )


def _counted(model: Victim, images: Images) -> Images:
    """Return the images with the model's number of classes, where its output shows it."""
    if model.class_names is not None:
        return images
    probe, first = model.fresh(), as_tensors(images, np.zeros(1, np.int64), model)[0]
    probe.likely = len(images.class_names)
    try:
        logits = probe.logits(first)
    except Exception:
        # The class alone doesn't tell their number; the preflight finds other faults.
        return images
    return counted(images, logits.shape[1])


def _key(model: Victim, images: Images, plan: AuditPlan) -> dict[str, Any]:
    return {
        "model": model.identity,
        "data": images.sha256,
        "settings": plan.as_dict(),
    }


def _spread(count: int, wanted: int) -> NDArray[np.int64]:
    """Return wanted indices, or as many as there are, evenly spread over count."""
    kept = min(count, wanted)
    spread: NDArray[np.int64] = np.arange(kept, dtype=np.int64) * count // kept
    return spread
