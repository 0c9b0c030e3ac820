"""Certify a classifier: each image proved robust, attacked, or left open within the time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unmask.data.images import Images
from unmask.data.load import load_data, load_for
from unmask.errors import UserError
from unmask.fool.attacks.apgd import apgd_ce, apgd_t
from unmask.fool.certify.bounds import (
    crown,
    differences,
    interval_differences,
    intervals,
    lower_bounds,
)
from unmask.fool.certify.branch import branch
from unmask.fool.certify.network import Network
from unmask.fool.certify.region import Region
from unmask.fool.certify.result import (
    ATTACKED,
    OPEN,
    PROVED,
    STAGES,
    STATUSES,
    WRONG,
    Certification,
    CertifyPlan,
)
from unmask.fool.certify.slopes import optimised
from unmask.fool.goal import Goal
from unmask.fool.norms import NORMS, Threat, require_number
from unmask.fool.source import as_victim
from unmask.fool.victim import Preprocessing, Victim
from unmask.runtime import environment_stamp
from unmask.train.evaluation import counted, matched

FILE = "certification.npz"
# The most numbers in the widest layer of a batch, by the memory that a bound needs.
_WIDE = {"attack": 1 << 22, "ibp": 1 << 20, "crown-ibp": 1 << 21, "crown": 1 << 16}
_SAVE_EVERY = 10.0
# Seconds that a batch should take: the clock is read between batches.
_BATCH_SECONDS = 1.0
_ATTACKED = 16
# The images on which the operations are compared with the model.
_COMPARED = 16


@dataclass(frozen=True)
class CertifyProgress:
    """The progress of a certification.

    Args:
        doing: the stage, in words.
        done, total: images of this stage.
        proved, attacked, open: images so far.
    """

    doing: str
    done: int
    total: int
    proved: int
    attacked: int
    open: int


Show = Callable[[CertifyProgress], None]


def certify(
    model: nn.Module | str,
    data: Any,
    *,
    eps: float,
    norm: str = "linf",
    minutes: float = 10.0,
    images: int = 1000,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Show | None = None,
) -> Certification:
    """Prove that images keep their class under any change within eps, or find one that changes it.

    Args:
        model: a network in eval mode from pixels in [0, 1] to logits; or a name, a file or an
            import path, as on the command line.
        data: labelled images, a name, a folder or a zip, (pixels, labels), or a loader of these.
        eps: the largest change, in units of pixels in [0, 1].
        norm: "linf" or "l2".
        minutes: the time allowed; images that it doesn't suffice for are left open.
        images: how many, spread evenly over those available.
        mean: that the model expects to be subtracted from the images, one number or one a channel.
        std: that it expects them to be divided by then, likewise, above 0.
        seed: of the attacks.
        out: a folder to save the state in as it grows.
        resume: continue from the state in out.
        progress: called as the work proceeds.

    Returns:
        The state of every image. At Ctrl-C the state so far is in out.

    Raises:
        UserError: naming the layer when the network has one whose bounds are unknown.

    Example:
        >>> halves = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
        >>> _ = halves[1].weight.data.copy_(torch.eye(2))
        >>> images = unmask.Images(
        ...     np.array([[[[200, 50]]]], np.uint8), np.array([0]), ("a", "b"), "one"
        ... )
        >>> unmask.certify(halves, images, eps=0.1).figures()["proved"]
        1.0
    """
    require_number(eps)
    if isinstance(data, (str, Path)):
        taken = as_victim(model)
        data = load_for(data, taken.input_shape, taken.channels)
    data = load_data(data)
    victim = as_victim(model, mean=mean, std=std, images=data.pixels)
    plan = CertifyPlan(eps=eps, norm=norm, minutes=minutes, images=images, seed=seed)
    folder = None if out is None else Path(out)
    return certify_victim(victim, data, plan, out=folder, resume=resume, progress=progress)


def certify_victim(
    victim: Victim,
    images: Images,
    plan: CertifyPlan,
    *,
    out: Path | None = None,
    resume: bool = False,
    progress: Show | None = None,
) -> Certification:
    """Certify a loaded model by a plan.

    Args:
        victim: a network in eval mode, of pixels in [0, 1].
        images: labelled.
        plan: the settings.
        out: a folder to save the state in as it grows.
        resume: continue from the state in out.
        progress: called as the work proceeds.

    Returns:
        The state of every image.

    Raises:
        UserError: for a black box, a model with a layer whose bounds are unknown or logits that
            are not finite, no images, and a state that is missing or of another certification.
    """
    if victim.module is None:
        raise UserError(
            "a proof needs the network itself",
            got=f"{victim.name}, which gives logits alone",
            do="give the PyTorch model that it was exported from",
        )
    if not len(images):
        raise UserError("there are no images to certify", got=images.name, do="give some")
    if victim.class_names is not None:
        images = matched(images, victim.class_names)
    module = victim.module
    if victim.preprocessing is not None:
        module = _Prepared(victim.preprocessing, module).eval()
    network = Network.of(module, tuple(images.pixels.shape[1:]))
    images = counted(images, network.classes)
    state = None
    if resume:
        if out is None:
            raise UserError("there is nowhere to go on from", do="give --out")
        state = _continued(Certification.load(out / FILE), victim, images, plan)
    work = _Work(victim, network, images, plan, state, out, progress)
    try:
        return work.run()
    finally:
        work.save()


def _identity(victim: Victim) -> str:
    return victim.identity + (f", {victim.preprocessing}" if victim.preprocessing else "")


def _continued(
    state: Certification, victim: Victim, images: Images, plan: CertifyPlan
) -> Certification:
    same = (
        state.identity == _identity(victim)
        and state.plan.question == plan.question
        and state.data == images.name
    )
    if not same:
        raise UserError(
            "what was stored is of another certification",
            got=f"{state.model} on {state.data}, {state.plan.norm} {state.plan.eps:g}",
            do="give another --out, or leave --resume away",
        )
    state.plan = plan
    return state


class _Prepared(nn.Module):
    """A model with the preprocessing that it expects of pixels in [0, 1]."""

    def __init__(self, preprocessing: Preprocessing, module: nn.Module) -> None:
        super().__init__()
        self.preprocessing, self.module = preprocessing, module

    def forward(self, pixels: Tensor) -> Any:
        return self.module(self.preprocessing(pixels))


class _Work:
    """The state, and what the work on it needs."""

    def __init__(
        self,
        victim: Victim,
        network: Network,
        images: Images,
        plan: CertifyPlan,
        state: Certification | None,
        out: Path | None,
        progress: Show | None,
    ) -> None:
        self.network, self.plan = network, plan
        self.out, self.progress = out, progress
        self.began = time.perf_counter()
        self.until = self.began + 60 * plan.minutes
        self.saved = self.began
        count = min(plan.images, len(images))
        rows = np.linspace(0, len(images) - 1, count).round().astype(np.int64)
        self.pixels = torch.from_numpy(images.pixels[rows]).to(victim.device).float() / 255
        self.widest = max(int(np.prod(node.shape)) for node in network.nodes)
        self.victim = victim.fresh(network.classes)
        self.victim.look(self.pixels)
        self._require_same()
        labels = images.labels[rows]
        if state is None:
            logits = self.victim.logits(self.pixels)
            predicted = logits.argmax(1).cpu().numpy()
            wrong = (predicted != labels) | ~logits.isfinite().all(1).cpu().numpy()
            fresh = np.where(wrong, STATUSES.index(WRONG), STATUSES.index(OPEN)).astype(np.int8)
            state = Certification(
                model=victim.name,
                identity=_identity(victim),
                data=images.name,
                class_names=images.class_names,
                plan=plan,
                rows=rows,
                labels=labels,
                predicted=predicted,
                status=fresh,
                stage=np.zeros(count, np.int8),
                bound=np.full(count, -np.inf),
                seconds=0.0,
                stamp=environment_stamp(data_sha256=images.sha256, device=str(victim.device)),
            )
        self.state = state
        self.before = state.seconds

    def _require_same(self) -> None:
        """Raise UserError unless the operations give the model's logits, whatever came before.

        What a model's forward does besides is not in its trace: counting calls, drawing at random.
        """
        module, few = self.victim.module, self.pixels[:_COMPARED]
        assert module is not None
        traced = self.network.head(self.network.logits(few.to(self.network.like))).float()
        weight = next((p for p in module.parameters() if p.is_floating_point()), few)
        for _ in range(2):
            logits = self.victim.logits(few).float()
            known = logits.isfinite()
            if not bool(known.any()):
                raise UserError(
                    "the model's logits are not finite",
                    got=f"NaN or infinity for all of {len(few)} images",
                    do="find out where they begin with unmask flow check",
                )
            apart = float(((logits - traced)[known]).abs().max())
            most = math.sqrt(torch.finfo(weight.dtype).eps) * float(traced.abs().max().clamp(min=1))
            if not apart <= most:
                raise UserError(
                    "the model's logits are not those of its layers and operations alone",
                    got=f"a difference of {apart:.2g} on {len(few)} images",
                    do="leave out of its forward what is random, changes from call to call, or "
                    "writes into a tensor that another name stands for",
                )

    def run(self) -> Certification:
        ladder: list[tuple[str, Callable[[Tensor], None]]] = [
            ("ibp", lambda rows: self._bounded(rows, "ibp")),
            ("attack", self._attacked),
            ("crown-ibp", lambda rows: self._bounded(rows, "crown-ibp")),
            ("crown", lambda rows: self._bounded(rows, "crown")),
        ]
        for name, work in ladder:
            stage = STAGES.index(name) if name in STAGES else STAGES.index("ibp")
            todo = self._open(stage + (name == "attack"))
            if name == "attack":
                # Those that IBP has been tried on and nothing after it, so that it isn't repeated.
                todo = [i for i in todo if self.state.stage[i] == stage]
            done = 0
            most = min(500, max(1, _WIDE[name] // self.widest))
            # The noise that an attack starts from depends on the batch, which must not depend on
            # the clock.
            fixed = min(most, _ATTACKED)
            least, most = (fixed, fixed) if name == "attack" else (1, most)
            for batch in self._batches(len(todo), least, most):
                work(torch.tensor(todo[done : done + batch]))
                done += batch
                self._tell(name, done, len(todo))
        todo = self._open(STAGES.index("branch and bound"))
        # Images nearest to a proof come first.
        todo.sort(key=lambda i: -self.state.bound[i])
        for done, i in enumerate(todo):
            left = self.until - time.perf_counter()
            if left <= 0:
                break
            self._branched(i, max(left / (len(todo) - done), min(left, 5.0)))
            self._tell("branch and bound", done + 1, len(todo))
        return self.state

    def _batches(self, total: int, least: int, most: int) -> Iterator[int]:
        """Yield sizes of batches, by the time of the one before, until all is done or time ends."""
        done, size = 0, max(least, min(most, 8))
        while done < total:
            start = time.perf_counter()
            if start >= self.until:
                return
            size = min(size, total - done)
            yield size
            done += size
            now = time.perf_counter()
            each = max((now - start) / size, 1e-9)
            # The last batch ends in time, as far as the one before can tell.
            if now + least * each > self.until:
                return
            room = int(min(_BATCH_SECONDS, self.until - now) / each)
            size = max(least, min(most, 4 * size, room))

    def save(self) -> None:
        self.state.seconds = self.before + time.perf_counter() - self.began
        if self.out is not None:
            self.state.save(self.out / FILE)

    def _open(self, stage: int) -> list[int]:
        s = self.state
        found = (s.status == STATUSES.index(OPEN)) & (s.stage < stage)
        return [int(i) for i in np.flatnonzero(found)]

    def _tell(self, doing: str, done: int, total: int) -> None:
        if self.out is not None and time.perf_counter() - self.saved > _SAVE_EVERY:
            self.save()
            self.saved = time.perf_counter()
        if self.progress is not None:
            counts = (self.state.count(s) for s in (PROVED, ATTACKED, OPEN))
            self.progress(CertifyProgress(doing, done, total, *counts))

    def _given(self, rows: Tensor) -> tuple[Region, Tensor]:
        region = Region(self.pixels[rows].to(self.network.like), self.plan.eps, self.plan.norm)
        labels = torch.from_numpy(self.state.labels)[rows].to(self.pixels.device)
        return region, differences(labels, self.network.classes, region.images)

    def _bounded(self, rows: Tensor, stage: str) -> None:
        region, c = self._given(rows)
        if stage == "ibp":
            relaxed = intervals(self.network, region)
            bounds = interval_differences(relaxed, c)
        elif stage == "crown-ibp":
            relaxed = intervals(self.network, region)
            bounds = lower_bounds(relaxed, c)
        else:
            relaxed = crown(self.network, region, until=self.until)
            bounds = lower_bounds(relaxed, c)
        self._note(rows, bounds, stage)

    def _note(self, rows: Tensor | Sequence[int], bounds: Tensor, stage: str) -> None:
        """Record bounds float[b, q] of the differences that were open."""
        s = self.state
        least = bounds.amin(1).cpu().numpy()
        for i, bound in zip(np.asarray(rows), least, strict=True):
            s.bound[i] = max(s.bound[i], bound)
            s.stage[i] = STAGES.index(stage)
            if s.bound[i] > 0:
                s.status[i] = STATUSES.index(PROVED)

    def _attacked(self, rows: Tensor) -> None:
        """Attack by APGD on the cross-entropy, then on targeted differences of logits."""
        threat = Threat(NORMS[self.plan.norm], self.plan.eps)
        pixels = self.pixels[rows]
        labels = torch.from_numpy(self.state.labels)[rows].to(pixels.device)
        found = torch.zeros(len(rows), dtype=torch.bool, device=pixels.device)
        for attack in (apgd_ce, apgd_t):
            left = (~found).nonzero().flatten()
            if not len(left) or time.perf_counter() > self.until:
                break
            generator = torch.Generator().manual_seed(self.plan.seed)
            tries = attack(
                self.victim,
                pixels[left],
                Goal(labels[left]),
                threat,
                generator=generator,
                steps=2 * self.plan.steps,
            )
            found[left] = self._fooled(pixels[left], tries.pixels, labels[left])
        self.state.status[rows[found.cpu()].numpy()] = STATUSES.index(ATTACKED)

    def _fooled(self, pixels: Tensor, tries: Tensor, labels: Tensor) -> Tensor:
        """Return which tries change the class, without any tolerance on their size."""
        change = (tries.clamp(0, 1) - pixels).double().flatten(1)
        size = change.abs().amax(1) if self.plan.norm == "linf" else change.norm(dim=1)
        # The proved region is this much wider, so no image can be both proved and attacked.
        inside = size <= self.plan.eps + 0.9e-7
        logits = self.victim.logits(tries.clamp(0, 1))
        return inside & (logits.argmax(1) != labels)

    def _branched(self, i: int, seconds: float) -> None:
        until = time.perf_counter() + seconds
        region, c = self._given(torch.tensor([i]))
        relaxed = crown(self.network, region, until=until)
        bounds, _ = optimised(relaxed, c, steps=self.plan.steps, until=until)
        self._note([i], bounds, "alpha-crown")
        if self.state.bound[i] > 0:
            return
        bounds = bounds.clone()
        for q in bounds[0].argsort().tolist():
            if bounds[0, q] > 0:
                continue
            found = branch(relaxed, c[:, q : q + 1], until=until)
            bounds[0, q] = max(float(bounds[0, q]), found.bound)
            if not found.bound > 0:
                break
        self._note([i], bounds, "branch and bound")
