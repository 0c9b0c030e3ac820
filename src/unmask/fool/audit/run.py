"""The audit itself: preflight, shards of attacks that resume, and what they add up to."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.data.images import Images
from unmask.errors import UserError
from unmask.execution.executor import Executor
from unmask.execution.local import LocalExecutor
from unmask.fool.audit.diagnosis import Diagnosis, diagnose
from unmask.fool.audit.parts import Parts, Store
from unmask.fool.audit.plan import AuditPlan
from unmask.fool.audit.preflight import Preflight, preflight
from unmask.fool.audit.result import Audit
from unmask.fool.audit.shard import (
    Pairs,
    Shard,
    Worst,
    as_tensors,
    attack_pairs,
    attack_shard,
)
from unmask.fool.audit.subject import Subject
from unmask.fool.victim import Victim
from unmask.runtime import environment_stamp

_LOOKED_AT, _WATCHED = 256, 32
_PAIR_PICTURES = 25


@dataclass(frozen=True)
class AuditProgress:
    """How far an audit is: what it is doing, and the shards done, running and failed of all."""

    doing: str
    done: int
    shards: int
    running: int = 0
    failed: int = 0


@dataclass(frozen=True)
class _Shared:
    """What every task reads: it travels to a node once."""

    subject: Subject
    images: Images
    plan: AuditPlan
    # Rounding may depend on it, so the workers take as many as this process.
    threads: int

    def victim(self) -> Victim:
        torch.set_num_threads(self.threads)
        return self.subject.victim(len(self.images.class_names))


def _attacked(shared: _Shared, task: tuple[int, NDArray[np.int64]]) -> Shard:
    number, rows = task
    return attack_shard(shared.victim(), shared.images, rows, shared.plan, number)


def _paired(shared: _Shared, task: tuple[int, NDArray[np.int64]]) -> Pairs:
    number, rows = task
    return attack_pairs(shared.victim(), shared.images, rows, shared.plan, number)


def audit(
    subject: Subject,
    images: Images,
    plan: AuditPlan,
    *,
    directory: Path | None = None,
    resume: bool = False,
    on: Executor | None = None,
    progress: Callable[[AuditProgress], None] | None = None,
) -> Audit:
    """Attack a model with the whole ensemble and judge every picture afresh.

    images: of the model's size and classes. directory keeps each shard as soon as it is done; with
    resume those of the same audit are used again, to the very bits of an audit that was never
    stopped. on: who attacks the shards, this process by default; the bits are the same. A shard
    that fails is named in Audit.failures, and its pictures are left out of every figure. Memory is
    that of one shard, however many pictures there are. Raises UserError for pictures that don't
    suit the model, a model that can't be judged, shards of another audit, and when no shard can be
    attacked.
    """
    _check(subject, images)
    victim = subject.victim(len(images.class_names))
    rows = _spread(len(images), plan.pictures)
    key = _key(subject, images, plan)
    store = Store(directory, key, resume)
    specs = ", ".join(s.name for s in plan.specs(victim))
    shards = np.array_split(rows, -(-len(rows) // plan.shard))
    total = len(shards) + 1
    tell = progress or (lambda _: None)
    tell(AuditProgress("looking at the model", 0, total))
    before, seen = _look(subject, victim, images, rows, plan)
    shared = _Shared(subject, images, plan, torch.get_num_threads())
    on = on or LocalExecutor()
    attacks = Parts(store.shards, shards)
    for done, running, failed in attacks.made(on, _attacked, shared):
        tell(AuditProgress(f"attacking with {specs}", done, total, running, failed))
    parts, failures = attacks.read(), attacks.failures("shard")
    if not parts:
        raise UserError("no picture could be attacked", got=failures[0], do="see what it says")
    tell(AuditProgress("seeking every class", len(shards), total, failed=len(failures)))
    worst = Worst.joined([p.worst for p in parts])
    records = tuple(
        functools.reduce(operator.add, column)
        for column in zip(*(p.records for p in parts), strict=True)
    )
    pairs = None
    # Which pictures are paired depends on all of them.
    if plan.pairs and victim.differentiable and not failures:
        chosen = Parts(store.pairs, _to_pair(images, worst, plan))
        for _ in chosen.made(on, _paired, shared):
            pass
        found, failures = chosen.read(), chosen.failures("pairs")
        pairs = Pairs.joined(found) if found else None
    tell(AuditProgress("done", total, total, failed=len(failures)))
    examples, example_rows = _examples(parts, worst, images)
    return Audit(
        model=subject.name,
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
            kind=subject.kind,
            device=str(subject.device),
            threads=torch.get_num_threads(),
        ),
        failures=tuple(failures),
    )


def _look(
    subject: Subject, victim: Victim, images: Images, rows: NDArray[np.int64], plan: AuditPlan
) -> tuple[Preflight, Diagnosis]:
    pixels, labels = as_tensors(images, rows[_spread(len(rows), _LOOKED_AT)], victim)
    before = preflight(victim, subject.module, pixels, labels)
    right = (victim.logits(pixels).argmax(1) == labels).nonzero().flatten()[:_WATCHED]
    return before, diagnose(victim, pixels[right], labels[right], plan)


def _to_pair(images: Images, worst: Worst, plan: AuditPlan) -> list[NDArray[np.int64]]:
    """Return the rows of the pictures that are taken towards every class, in tasks."""
    right = worst.clean == worst.labels
    of_class = [
        np.flatnonzero(right & (worst.labels == k))[: plan.pairs]
        for k in range(len(images.class_names))
    ]
    rows = worst.rows[np.sort(np.concatenate(of_class))]
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


def _check(subject: Subject, images: Images) -> None:
    if not len(images):
        raise UserError("there are no pictures to audit on", got=images.name)
    shape = tuple(images.pixels.shape[1:])
    if subject.input_shape is not None and subject.input_shape != shape:
        raise UserError(
            f"{subject.name} takes pictures of shape {list(subject.input_shape)}",
            got=list(shape),
            do="give pictures of the model's channels and size",
        )
    names = subject.class_names
    if names is not None and len(names) != len(images.class_names):
        raise UserError(
            f"{subject.name} has {len(names)} classes",
            got=f"pictures of {len(images.class_names)}",
            do="give the pictures that it was trained on",
        )


def _key(subject: Subject, images: Images, plan: AuditPlan) -> dict[str, Any]:
    return {
        "model": subject.identity,
        "data": images.sha256,
        "settings": plan.as_dict(),
    }


def _spread(count: int, wanted: int) -> NDArray[np.int64]:
    """Return wanted indices, or as many as there are, evenly spread over count."""
    kept = min(count, wanted)
    spread: NDArray[np.int64] = np.arange(kept, dtype=np.int64) * count // kept
    return spread
