"""The audit itself: preflight, shards of attacks that resume, and what they add up to."""

from __future__ import annotations

import functools
import json
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
from unmask.fool.audit.diagnosis import Diagnosis, diagnose
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
    read_arrays,
    write_arrays,
)
from unmask.fool.audit.subject import Subject
from unmask.fool.victim import Victim
from unmask.runtime import environment_stamp, write_atomically

_LOOKED_AT, _WATCHED = 256, 32
_PAIR_PICTURES = 25


@dataclass(frozen=True)
class AuditProgress:
    """How far an audit is: what it is doing, and the shards done of all."""

    doing: str
    done: int
    shards: int


def audit(
    subject: Subject,
    images: Images,
    plan: AuditPlan,
    *,
    directory: Path | None = None,
    resume: bool = False,
    progress: Callable[[AuditProgress], None] | None = None,
) -> Audit:
    """Attack a model with the whole ensemble and judge every picture afresh.

    images: of the model's size and classes. directory keeps each shard as soon as it is done; with
    resume those of the same audit are used again, to the very bits of an audit that was never
    stopped. Memory is that of one shard, however many pictures there are. Raises UserError for
    pictures that don't suit the model, a model that can't be judged, and shards of another audit.
    """
    _check(subject, images)
    victim = subject.victim(len(images.class_names))
    rows = _spread(len(images), plan.pictures)
    store = _Store(directory, _key(subject, images, plan), resume)
    specs = ", ".join(s.name for s in plan.specs(victim))
    shards = np.array_split(rows, -(-len(rows) // plan.shard))
    total = len(shards) + 1

    def tell(doing: str, done: int) -> None:
        if progress:
            progress(AuditProgress(doing, done, total))

    tell("looking at the model", 0)
    before, seen = _look(subject, victim, images, rows, plan)
    parts = []
    for i, chosen in enumerate(shards):
        tell(f"attacking with {specs}", i)
        parts.append(store.shard(i, lambda c=chosen, i=i: attack_shard(victim, images, c, plan, i)))  # type: ignore[misc]
    tell("seeking every class", len(shards))
    worst = Worst.joined([p.worst for p in parts])
    records = tuple(
        functools.reduce(operator.add, column)
        for column in zip(*(p.records for p in parts), strict=True)
    )
    pairs = None
    if plan.pairs and victim.differentiable:
        pairs = _pairs(victim, images, worst, plan, store)
    tell("done", total)
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
            **_key(subject, images, plan),
            kind=subject.kind,
            device=str(subject.device),
            threads=torch.get_num_threads(),
        ),
    )


class _Store:
    """Where shards lie; without a folder they are made and not kept."""

    def __init__(self, folder: Path | None, key: dict[str, Any], resume: bool) -> None:
        self.folder = folder / "shards" if folder else None
        if self.folder is None:
            return
        text = json.dumps(key, sort_keys=True)
        file = self.folder / "key.json"
        if resume and file.exists() and file.read_text() != text:
            raise UserError(
                f"the shards in {self.folder} are of another audit",
                got="another model, other pictures or other settings",
                do="leave --resume out, or choose another --out",
            )
        if not resume and self.folder.is_dir():
            for stale in self.folder.glob("*.npz"):
                stale.unlink()
        with write_atomically(file) as out:
            out.write(text.encode())

    def shard(self, number: int, make: Callable[[], Shard]) -> Shard:
        """Return the shard of that number: from disk, or made and kept."""
        if self.folder is None:
            return make()
        file = self.folder / f"{number:05d}.npz"
        if not file.exists():
            make().save(file)
        return Shard.load(file)

    def pairs(self, number: int, make: Callable[[], Pairs]) -> Pairs:
        """Return the pairs of that number: from disk, or made and kept."""
        if self.folder is None:
            return make()
        file = self.folder / f"pairs-{number:05d}.npz"
        if not file.exists():
            write_arrays(file, make().__dict__, None)
        return Pairs(**read_arrays(file)[0])


def _look(
    subject: Subject, victim: Victim, images: Images, rows: NDArray[np.int64], plan: AuditPlan
) -> tuple[Preflight, Diagnosis]:
    pixels, labels = as_tensors(images, rows[_spread(len(rows), _LOOKED_AT)], victim)
    before = preflight(victim, subject.module, pixels, labels)
    right = (victim.logits(pixels).argmax(1) == labels).nonzero().flatten()[:_WATCHED]
    return before, diagnose(victim, pixels[right], labels[right], plan)


def _pairs(
    victim: Victim, images: Images, worst: Worst, plan: AuditPlan, store: _Store
) -> Pairs | None:
    right = worst.clean == worst.labels
    of_class = [
        np.flatnonzero(right & (worst.labels == k))[: plan.pairs]
        for k in range(len(images.class_names))
    ]
    rows = worst.rows[np.sort(np.concatenate(of_class))]
    if not len(rows):
        return None
    chunks = np.array_split(rows, -(-len(rows) // _PAIR_PICTURES))
    return Pairs.joined(
        [
            store.pairs(i, lambda c=chunk, i=i: attack_pairs(victim, images, c, plan, i))  # type: ignore[misc]
            for i, chunk in enumerate(chunks)
        ]
    )


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
