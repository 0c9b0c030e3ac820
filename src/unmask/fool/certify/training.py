"""Certified training: a classifier that learns from its worst case within a threat.

Interval bound propagation (Gowal et al., 2019) with the schedule and the initialisation that make
it fast (Shi et al., 2021): weights start so small that boxes don't grow from layer to layer, and a
regulariser keeps them so while eps grows. It trains beyond the wanted eps (Zhang et al., 2020), and
averages the weights of its last steps.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from unmask.errors import UserError
from unmask.fool.certify.loss import interval_logits, regularised, started
from unmask.fool.certify.network import Network
from unmask.runtime import sha256
from unmask.train.history import EpochRecord
from unmask.train.loop import Loop, Progress

# The longest gradient of a step, in L2.
_LONGEST = 10.0
# The images of a step whose clean accuracy is told when the clean loss has no weight.
_SEEN = 32


@dataclass(frozen=True)
class CertifiedTraining:
    """How a classifier is trained for proofs in Linf.

    Args:
        eps: the threat to be proved, in units of pixels in [0, 1].
        margin: the eps of the training, as a multiple of eps.
        epochs: passes over the images.
        batch_size: images a step.
        learning_rate: of Adam, warmed up over the first hundredth of the run and decayed to 0 over
            its last part by half a cosine.
        warmup: the fraction of the run over which eps grows, slowly at first.
        clean: the weight of the clean loss at the end; it falls from 1 as eps grows. The rest is
            the weight of the worst case's loss.
        regulariser: the weight of Shi et al.'s two regularisers at the start; 0 once eps is full.
        small: whether weights start small, as Shi et al. draw them, or as PyTorch does.
        averaging: the steps over which the weights are averaged, exponentially.
        seed: of the weights and the order.

    Raises:
        UserError: for an eps outside (0, 1), and fewer than one epoch.
    """

    eps: float = 0.3
    margin: float = 1.2
    epochs: int = 40
    batch_size: int = 256
    learning_rate: float = 5e-3
    warmup: float = 0.3
    clean: float = 0.0
    regulariser: float = 0.5
    small: bool = True
    averaging: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.eps < 1:
            raise UserError("eps is no size of a change", got=self.eps, do="give 0 to 1")
        if self.epochs < 1 or self.batch_size < 1:
            raise UserError("there is nothing to train", got=f"{self.epochs} epochs", do="give 1")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class CertifiedProgress(Progress):
    """The progress of a certified training.

    Args:
        eps: of the last step.
        loss: the mean over the epoch's steps so far.
        clean: the clean accuracy over their images, or over the first 32 of each step where the
            clean loss has no weight.
        proved: the fraction of them that is proved at the eps of the training.
        epoch, epochs, step, steps, seconds, seconds_left: see Progress.
    """

    eps: float
    loss: float
    clean: float
    proved: float


@dataclass(frozen=True)
class CertifiedEpoch(EpochRecord):
    """The figures of an epoch, as CertifiedProgress has them after its last step."""

    epoch: int
    eps: float
    loss: float
    clean: float
    proved: float
    seconds: float


def train_certified(
    module: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    plan: CertifiedTraining,
    *,
    minutes: float | None = None,
    graph: bool = True,
    directory: Path | None = None,
    resume: bool = False,
    progress: Callable[[CertifiedProgress], None] | None = None,
) -> tuple[nn.Module, nn.Module, CertifiedEpoch]:
    """Train a module of convolutions, linear layers and activations for proofs.

    Args:
        module: pixels in [0, 1] to logits, on the pixels' device; it is initialised and trained.
            Batch normalisation takes its statistics from the centres of the boxes.
        pixels: uint8[n, c, h, w], all training images.
        labels: int64[n].
        plan: the settings.
        minutes: the time allowed: the epochs are as many as fit, measured after a first few steps.
        graph: on a GPU, record a step once and replay it, which speeds up a small network.
        directory: for checkpoint.safetensors and history.jsonl, written after an epoch, at most
            four times a minute.
        resume: continue after the last epoch stored there, with exactly the same weights.
        progress: called about five times a second, and after the last step of each epoch.

    Returns:
        The module, a copy with averaged weights, both in eval mode, and the last epoch's figures.

    Raises:
        UserError: when there are fewer images than one batch, the checkpoint is of another run,
            minutes and resume are both given, or the loss isn't finite.
    """
    if len(pixels) < plan.batch_size:
        raise UserError(
            "there are fewer images than one batch",
            got=f"{len(pixels)} for a batch of {plan.batch_size}",
            do="give a smaller batch size",
        )
    if minutes is not None and resume:
        raise UserError("a run that is resumed has its epochs already", got=f"{minutes:g} minutes")
    run = _Run(module, pixels, labels, plan, progress)
    run.prepare(minutes, graph=graph and pixels.is_cuda)
    file = directory / "checkpoint.safetensors" if directory else None
    if resume and file:
        run.restore(file)
    run.run(file)
    return run.module.eval(), run.average.eval(), run.epochs[-1]


class _Run(Loop[CertifiedEpoch]):
    """Trains with a recorded step: all that it reads and writes are tensors that stay in place."""

    record = CertifiedEpoch
    seconds_between_saves = 15.0

    def __init__(
        self,
        module: nn.Module,
        pixels: Tensor,
        labels: Tensor,
        plan: CertifiedTraining,
        progress: Callable[[CertifiedProgress], None] | None = None,
    ) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.pixels, self.labels, self.progress = plan, pixels, labels, progress
        started(module, small=plan.small)
        data = (np.ascontiguousarray(t.cpu().numpy()).data for t in (pixels, labels))
        super().__init__(
            module,
            epochs=plan.epochs,
            steps=len(pixels) // plan.batch_size,
            seed=plan.seed,
            key={"plan": plan.as_dict(), "data": sha256(*data)},
            sums=3,
            reports=progress is not None,
        )
        # What depends on the batch is the boxes' alone.
        self.module = module.eval()
        self.average = copy.deepcopy(module)
        self.network = Network.of(module, tuple(pixels.shape[1:]), dtype=None)
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        # Each averaged tensor beside its value, running statistics among them.
        both = zip(self.average.state_dict().values(), module.state_dict().values(), strict=True)
        self.averages = [(mean, value) for mean, value in both if value.is_floating_point()]
        device = pixels.device
        self.rows = torch.zeros(plan.batch_size, dtype=torch.int64, device=device)
        # eps, the clean loss's weight, the regulariser's, the learning rate, the averages' pace.
        self.knobs = torch.zeros(5, device=device)
        self.adam = torch.optim.Adam(
            self.parameters, lr=self.knobs[3], fused=True, capturable=pixels.is_cuda
        )
        # A step of no size makes Adam's tensors, which a recorded step and a checkpoint need.
        for value in self.parameters:
            value.grad = torch.zeros_like(value)
        self.adam.step()
        self._forget()
        self.take_step = self.update
        # Whether the clean loss has a weight; a recorded step can't leave its gradient out.
        self.blended = True
        self.order = torch.Generator().manual_seed(plan.seed)
        self.shuffled = torch.empty(0, dtype=torch.int64)
        self.drawn = 0

    def prepare(self, minutes: float | None, *, graph: bool) -> None:
        """Record the step, and set the epochs to as many as fit into the minutes."""
        began = time.perf_counter()
        if graph:
            self.take_step = self._recorded()
        if minutes is not None:
            self.count = self._fitting(60 * minutes - (time.perf_counter() - began))
            # A run that is resumed by its plan would have another number of epochs.
            self.key["epochs"] = self.count

    def begin(self, epoch: int) -> None:
        """Draw the order of an epoch, after those of all before it."""
        while self.drawn <= epoch:
            self.shuffled = torch.randperm(len(self.pixels), generator=self.order)
            self.drawn += 1
        self.shuffled = self.shuffled.to(self.pixels.device)

    def step(self, step: int) -> int:
        """Take a step on the next batch."""
        epoch, i = divmod(step, self.steps)
        batch = self.plan.batch_size
        self._set((epoch + i / self.steps) / self.count)
        self.rows.copy_(self.shuffled[i * batch : (i + 1) * batch])
        self.take_step()
        return 1

    def tell(self, where: Progress, means: list[float], spent: float) -> None:
        """Report the figures of the epoch so far."""
        assert self.progress
        eps = self.eps((where.epoch - 1 + where.step / self.steps) / self.count)
        loss, clean, proved = means
        self.progress(
            CertifiedProgress(**vars(where), eps=eps, loss=loss, clean=clean, proved=proved)
        )

    def note(self, means: list[float], spent: float) -> CertifiedEpoch:
        """Return the epoch's figures."""
        epoch = len(self.epochs) + 1
        loss, clean, proved = means
        eps = self.eps(epoch / self.count)
        return CertifiedEpoch(epoch, eps, loss, clean, proved, self.seconds)

    def states(self) -> dict[str, dict[str, Tensor]]:
        """Return the tensors of the network, of its average and of Adam."""
        adam = {
            f"{name}.{i}": value
            for i, p in enumerate(self.parameters)
            for name, value in self.adam.state[p].items()
        }
        return {
            "model": self.module.state_dict(),
            "average": self.average.state_dict(),
            "adam": adam,
        }

    def update(self) -> None:
        """Take one step on the images of self.rows."""
        eps, clean, weight, _, pace = self.knobs.unbind()
        x = self.pixels[self.rows].float() / 255
        y = self.labels[self.rows]
        lower, upper = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
        worst, boxes = interval_logits(self.network, lower, upper, y, learning=True)
        with torch.set_grad_enabled(self.blended):
            # Of the clean loss without a weight a few images tell enough.
            logits = self.module(x if self.blended else x[:_SEEN])
        seen = y[: len(logits)]
        loss = (1 - clean) * functional.cross_entropy(worst, y)
        if self.blended:
            loss = loss + clean * functional.cross_entropy(logits, y)
            loss = loss + weight * regularised((upper - lower) / 2, boxes)
        # A fused step takes gradients for stored like their weights, as backward() stores them.
        self.adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, _LONGEST)
        self.adam.step()
        with torch.no_grad():
            for mean, value in self.averages:
                mean.lerp_(value, pace)
            right = (logits.argmax(1) == seen).float().mean()
            others = worst.scatter(1, y[:, None], -torch.inf).amax(1)
            proved = (others < 0).float().mean()
            self.sums += torch.stack([loss.detach(), right, proved])

    def eps(self, part: float) -> float:
        """Return the eps at a fraction of the run: slow growth at first, then linear."""
        full = self.plan.eps * self.plan.margin
        at = min(1.0, part / self.plan.warmup) if self.plan.warmup else 1.0
        # A parabola up to a quarter of the time, then the line that continues it.
        corner = 0.25
        scale = 1 / (2 * corner - corner * corner)
        grown = at * at if at < corner else corner * corner + 2 * corner * (at - corner)
        return full * grown * scale

    def _set(self, part: float) -> None:
        plan = self.plan
        eps = self.eps(part)
        grown = eps / (plan.eps * plan.margin)
        rate = plan.learning_rate * min(1.0, part / 0.01 + 0.01)
        if part > 0.5:
            rate *= (1 + math.cos(math.pi * (part - 0.5) / 0.5)) / 2
        # Until eps is full the average is the network itself.
        pace = 1.0 if grown < 1 else 1 / plan.averaging
        self.blended = grown < 1 or plan.clean > 0
        self.knobs.copy_(
            torch.tensor(
                [
                    eps,
                    1 - (1 - plan.clean) * grown,
                    plan.regulariser * (1 - grown),
                    rate,
                    pace,
                ]
            ),
            non_blocking=True,
        )

    def _fitting(self, seconds: float) -> int:
        """Return how many epochs fit, from the time of a few steps that change nothing."""
        self.knobs.zero_()
        self.take_step()
        count = 30 if self.pixels.is_cuda else 4
        _settle(self.pixels)
        began = time.perf_counter()
        for _ in range(count):
            self._set(0.0)
            self.knobs[3:] = 0
            self.take_step()
        _settle(self.pixels)
        each = (time.perf_counter() - began) / count
        self._forget()
        return max(1, int(0.97 * seconds / (each * self.steps)))

    def _recorded(self) -> Callable[[], None]:
        """Return the step as a recorded CUDA graph, the network as it was."""
        before = [p.detach().clone() for p in self.parameters]
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self.update()
        torch.cuda.current_stream().wait_stream(aside)
        record = torch.cuda.CUDAGraph()
        with torch.cuda.graph(record):
            self.update()
        with torch.no_grad():
            for value, was in zip(self.parameters, before, strict=True):
                value.copy_(was)
        self._forget()
        return record.replay

    def _forget(self) -> None:
        """Reset Adam, the running statistics and the averages."""
        with torch.no_grad():
            for layer in self.module.modules():
                if isinstance(layer, _BatchNorm):
                    layer.reset_running_stats()
            for value in (*self.states()["adam"].values(), self.sums):
                value.zero_()
            for mean, value in self.averages:
                mean.copy_(value)


def _settle(pixels: Tensor) -> None:
    if pixels.is_cuda:
        torch.cuda.synchronize()


def halved(module: nn.Module) -> nn.Module:
    """Return a copy whose matrices and filters are rounded to half precision."""
    copied = copy.deepcopy(module)
    with torch.no_grad():
        for value in copied.parameters():
            if value.ndim > 1:
                value.copy_(value.half().to(value.dtype))
    return copied
