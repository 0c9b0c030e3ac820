"""One model that trains under a watch: its probe, the counts of its loop, its last pass."""

from __future__ import annotations

import copy
import math
import sys
import weakref
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer

from unmask.flow.feed import call
from unmask.flow.judge.data import ENOUGH_LABELS
from unmask.flow.judge.facts import LoopFacts
from unmask.flow.judge.indicators import median, update_ratios
from unmask.flow.judge.loop import IDLE, SAME, loop
from unmask.flow.judge.trials import unpredicted
from unmask.flow.judge.verdicts import SURE, early, ordered, verdicts
from unmask.flow.measure.calls import CLASSIFIERS, MASKED, logits_in, runs_inside, user_line
from unmask.flow.measure.copies import Copies
from unmask.flow.measure.experiments import experiment, severs
from unmask.flow.measure.inputs import InputLedger, array_of, first_in
from unmask.flow.measure.layers import attends
from unmask.flow.measure.origin import origin, origin_in, steep
from unmask.flow.measure.parameters import Moves, Witness, amp_scale, held_by
from unmask.flow.measure.probe import GradientProbe
from unmask.flow.measure.statistics import Experiments, FlowStats, Origin
from unmask.verdict import Verdict

# The number of probed steps kept of a long training, and of the first and last that always are.
KEPT, FIRST = 64, 10
# The training passes between two validations.
RARE = 10
# Steps between the first judgements of the loop as a whole.
LOOK = 20
# Steps after which a batch is changed on a copy of the model, and the most weights it may have.
TRIED_AT, LARGEST = 2, 50_000_000
# Entries of the targets that show whether they come again.
_TARGETS = 64
# Losses after which unpredictable labels show: the loss is still that of guessing.
LONG, SOON, LEARNS = 100, 50, 0.97


class Training:
    """A model that trains, and the facts of its training so far.

    Args:
        module: the network, out of its wrappers.
        probe: of the network.
    """

    def __init__(self, module: nn.Module, probe: GradientProbe) -> None:
        self.module, self.probe = module, probe
        self.facts = LoopFacts(type(module).__name__, attention=attends(module))
        self.inputs = InputLedger()
        self.copies = Copies(module)
        self.told: list[Verdict] = []
        # Whether a pass has had no backward pass yet, and whether no gradient came since the step.
        self.pending = self.ungraded = True
        self.cleared = False
        self._arguments: Any = None
        self._call: tuple[str, Any, Any, dict[str, Any]] | None = None
        self._judged, self._next_look = 0, LOOK
        self._validated: set[tuple[float, ...]] = set()
        self._origins: dict[int, Origin] = {}
        self._tried: Experiments | None = None
        self._modal = any(isinstance(m, (_BatchNorm, _DropoutNd)) for m in module.modules())
        self._norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
        self._largest = Witness(module)
        self._witness: NDArray[Any] | None = None
        self._start: NDArray[Any] | None = None
        self._at_first: NDArray[Any] | None = None
        self._stepper: int | None = None
        self._entropy = 0.0
        self._root: Origin | None = None
        # Whether the loss may make infinite gradients at any step, however finite it is.
        self._steep = False
        self._moves = Moves()
        # Whether gradients wait for a step, were zeroed instead, or were clipped after it.
        self._unused = self._discards = self._late_clip = False
        self._targets: NDArray[Any] | None = None
        self._steppers: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._since_validation = 0

    @property
    def history(self) -> list[FlowStats]:
        """Return the probed steps, with the results of experiments and of searches for NaN."""
        found = [replace(s, origin=self._origins.get(s.step)) for s in self.probe.history]
        if found and self._tried is not None:
            found[0] = replace(found[0], experiments=self._credible(self._tried))
        return found

    def _credible(self, tried: Experiments) -> Experiments:
        """Return the experiments, with the fit of the labels unless the loss contradicts it."""
        # What neither a line nor a neighbour tells is doubted sooner.
        near = tried.linear is not None and tried.nearest is not None and unpredicted(tried)
        long = SOON if near else LONG
        late = self.facts.losses[long - LOOK : long]
        learns = bool(late) and sum(late) / len(late) < LEARNS * self._entropy
        if tried.linear is None or (len(late) == LOOK and not learns):
            return tried
        return replace(tried, linear=None)

    def passed(self, args: Any) -> None:
        """Record the start of a forward pass of the whole model."""
        facts = self.facts
        if torch.is_grad_enabled():
            facts.forwards += 1
            self._since_validation += 1
            self._arguments = args
            self._validated.clear()
            self.pending = self.ungraded = True
            self.inputs.trained(args, probed=self.probe.window is not None)
            if self._norms and self.probe.window is not None:
                tracked = [m.num_batches_tracked for m in self._norms]
                counts = [int(n) for n in tracked if n is not None]
                facts.fresh_norms = bool(counts) and max(counts) == 0
        elif facts.steps:
            x = first_in(args)
            if not self.module.training:
                self.inputs.validated(args)
            if self._modal and self.module.training and x is not None:
                self._see_validation(x)
                # Passing the same images repeatedly samples dropout's noise; it is no validation.
                self._validated.add(tuple(x.flatten()[::7][:_TARGETS].tolist()))
                if len(self._validated) > facts.training_validations:
                    facts.training_validations = len(self._validated)
                    facts.lines["validation"] = user_line() or ""

    def _see_validation(self, x: Tensor) -> None:
        """Count runs of passes without gradients in training mode, once in many training passes.

        At nearly every step they give a teacher's targets; and a batch that was just trained on
        may be counted for the training accuracy.
        """
        trained = first_in(self._arguments or ())
        if trained is not None and trained.data_ptr() == x.data_ptr():
            return
        if self._since_validation >= RARE:
            self.facts.training_runs += 1
            self.note_line("validation")
        self._since_validation = 0

    def fed(self, name: str, output: Any, target: Any, options: Any, result: Any) -> None:
        """Record a call of one of torch's losses."""
        if not result.requires_grad:
            if torch.is_grad_enabled() and name == "kl_div" and self.facts.same < IDLE:
                self.facts.same += abs(float(result.mean())) < SAME
                self.note_line("kl_div")
            if not torch.is_grad_enabled() and name in CLASSIFIERS and not self.module.training:
                self.inputs.checked(target)
            return
        # This one has further arguments, and isn't called again.
        self._call = (name, output, target, options) if name != "ctc_loss" else None
        if name in CLASSIFIERS:
            self.inputs.labelled(target)
        if name in MASKED:
            self.inputs.masked(target)
        if self.probe.window is not None:
            self.probe.window.see_loss(name, output, target, options, result)

    def backward(self, loss: Any, together: bool = False) -> None:
        """Record the start of a backward pass, which may be that of several models together."""
        facts = self.facts
        facts.together |= together
        facts.backwards += 1
        facts.late_clips += self._late_clip
        self.pending = self.ungraded = self.cleared = self._late_clip = False
        if facts.backwards == 1:
            self._at_first = self._largest.read()
        self._see_discarded()
        if "backward" not in facts.lines and (line := user_line()):
            facts.lines["backward"] = line
        if self._modal and not self.module.training:
            facts.evaluating_backwards += 1
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            return
        window = self.probe.window
        # Known from the pass before, since the hooks of this one are still to run.
        facts.graded |= window is not None and bool(window.ledger.arrived)
        if window is not None or loss.device.type == "cpu" or facts.backwards % LOOK == 0:
            value = float(loss.detach())
            facts.losses.append(value)
            if window is not None:
                self._steep = steep(loss)
            if window is not None or self._steep or not math.isfinite(value):
                self._root = origin_in(loss)
            if window is not None:
                window.see_backward(loss, value)
                # Until the watch hears of its end.
                window.unfinished = True

    def _see_discarded(self) -> None:
        """Count a gradient that was zeroed without a step, unless its targets come again."""
        target = self._call[2] if self._call is not None else None
        targets = None
        if isinstance(target, Tensor) and target.device.type == "cpu":
            targets = array_of(target.detach()).flat[:_TARGETS]
        if self._discards and targets is not None:
            before = self._targets
            self.facts.discarded += before is None or not np.array_equal(targets, before)
        self._targets, self._unused, self._discards = targets, True, False

    def zeroed(self) -> None:
        """Record that the gradients of this model were zeroed."""
        self._discards |= self._unused
        self._unused = False
        if self.probe.window is not None:
            # The step will be about the passes that are still to come.
            self.probe.window.loss = None

    def stepped_elsewhere(self, graded: bool) -> None:
        """Record the step of an optimiser that holds none of this model's parameters.

        Args:
            graded: whether what it holds had a gradient, and so is trained in this loop.
        """
        if graded:
            # The other optimiser may have used the pass, as a discriminator's does a generator's.
            self._unused = False
        if self.facts.backwards:
            self.facts.elsewhere += not graded
            self.facts.others += graded
            self.facts.fixed = not self.module.training
            self.note_line("elsewhere")

    def finite(self, loss: Any) -> bool:
        """Return whether the last loss was finite, as far as it is known."""
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not self.facts.losses:
            return True
        return math.isfinite(self.facts.losses[-1]) or loss.device.type != "cpu"

    def clipped(self, left: float, scaled_up: bool = False) -> None:
        """Record the fraction that clipping left of the gradient.

        Args:
            left: the fraction.
            scaled_up: whether the gradient is still to be divided by a GradScaler's scale.
        """
        if self.probe.window is not None:
            self.probe.window.clipped *= left
        self.facts.clips.append(left)
        self.facts.scaled_clips += scaled_up
        # Until a step or a backward pass shows which it comes before.
        self._late_clip = not self._unused
        if "clip" not in self.facts.lines and (line := user_line()):
            self.facts.lines["clip"] = line

    def note_line(self, name: str) -> None:
        """Record the line of the user's code that first did something."""
        if name not in self.facts.lines and (line := user_line()):
            self.facts.lines[name] = line

    def before_step(self, optimizer: Optimizer, scaled_up: bool = False) -> bool:
        """Record an optimiser about to step; return whether its gradients are finite.

        Args:
            optimizer: that holds parameters of this model.
            scaled_up: whether the gradients are still to be divided by a GradScaler's scale.
        """
        facts = self.facts
        if "step" not in facts.lines:
            self.note_line("step")
            facts.lightning = "lightning" in sys.modules and runs_inside("lightning")
        self._late_clip = False
        facts.scaled_steps += scaled_up and amp_scale(optimizer) == 1
        if optimizer not in self._steppers:
            self._steppers.add(optimizer)
            facts.optimizers += 1
            facts.remembers = any(
                g.get("betas") or g.get("momentum") for g in optimizer.param_groups
            )
        facts.normalises_steps |= "ada" in type(optimizer).__name__.lower()
        facts.rates.append(max(float(g["lr"]) for g in optimizer.param_groups))
        self._look_for_new_weights(id(optimizer))
        for i in self._moves.again(optimizer, facts.backwards):
            if (name := self.probe.parameters.get(i)) is not None:
                facts.twice[name] = facts.twice.get(name, 0) + 1
        there = list(islice((p.grad for p in held_by(optimizer) if p.grad is not None), 8))
        cleared = self.cleared and not any(bool(g.any()) for g in there)
        if facts.steps < 2 * LOOK and (not there or cleared):
            facts.empty += 1
            facts.cleared += not self.ungraded
        # NaN in a backward pass reaches the first layers.
        few = min((g for g in there[:2] if g.is_cpu), key=Tensor.numel, default=None)
        if self._origins or few is None:
            return True
        return math.isfinite(float(few.sum()))

    def after_step(self) -> None:
        """Count a step."""
        self.facts.steps += 1
        self.ungraded, self._unused = True, False
        self._witness = self._largest.read()

    def _moved(self) -> bool:
        """Return whether the weights differ from those of the first backward pass."""
        now = self._largest.read()
        same = now is None or self._at_first is None or np.array_equal(now, self._at_first)
        return not same

    def _look_for_new_weights(self, optimizer: int) -> None:
        before, now = self._witness, self._largest.read()
        if self._start is None:
            self._start = now
        same, self._stepper = self._stepper in (None, optimizer), optimizer
        if not same:
            # Another optimiser: a new fold of a cross-validation, which may restart the weights.
            return
        if (
            before is None
            or now is None
            or before.shape != now.shape
            or before.tobytes() == now.tobytes()
        ):
            return
        # Averages, projections and restored checkpoints change little, or happen once.
        size = float(np.linalg.norm(before))
        far = size > 0 and float(np.linalg.norm(now - before)) > 0.3 * size
        if self._start is not None:
            # Most of the way that the step went is taken back.
            ahead, back = (float(np.linalg.norm(w - self._start)) for w in (before, now))
            self.facts.pulled += back < 0.5 * ahead
        if far or (self._start is not None and np.array_equal(now, self._start)):
            self.facts.redrawn.append(self.facts.steps)

    def due(self) -> bool:
        """Return whether it is time to judge; ever more rarely, since each time costs more."""
        steps, history = self.facts.steps, self.probe.history
        if len(history) <= self._judged and steps < self._next_look:
            return False
        self._next_look = max(steps + LOOK, int(1.25 * steps))
        if len(history) > KEPT:
            # Every second of the older steps is dropped; the first and last are kept.
            history[FIRST:-FIRST] = history[FIRST:-FIRST:2]
        self._judged = len(history)
        return True

    def wants_experiments(self) -> bool:
        """Return whether it is time to change a batch."""
        return self._tried is None and self.facts.steps >= TRIED_AT and self.inputs.complete

    def experiment(self) -> None:
        """Try changes of the last batch on a copy, and whether labels fit their images."""
        if self._tried is not None:
            return
        pairs = self.inputs.pairs()
        self._tried = Experiments()
        if pairs:
            labels = torch.cat([y for _, y in pairs]).cpu().numpy()
            counts = torch.from_numpy(np.unique(labels, return_counts=True)[1]).double()
            self._entropy = float(torch.special.entr(counts / counts.sum()).sum())
        size = sum(p.numel() for p in self.module.parameters())
        tensors: tuple[Any, ...] = self._arguments or ()
        if size > LARGEST or not tensors or self._call is None:
            return
        x = tensors[0].detach() if len(tensors) == 1 and isinstance(tensors[0], Tensor) else tensors
        name, output, target, options = self._call

        def loss(model: nn.Module, inputs: Any, targets: Any) -> Tensor:
            logits = logits_in(call(model, inputs)).reshape(-1, *output.shape[1:])
            found: Tensor = getattr(nn.functional, name)(logits, targets, **options)
            return found

        device = [p.device for p in self.module.parameters() if p.is_cuda][:1]
        with torch.random.fork_rng(devices=device), torch.enable_grad():
            curved = any(layer.slopes for s in self.probe.history[:1] for layer in s.layers)
            cut = any(map(severs, self.probe.history[:1]))
            tried = experiment(
                self.module, call, loss, [(x, target)], pairs, curved=curved, cut=cut
            )
        self._tried = tried

    def find_origin(self) -> list[Verdict]:
        """Run the last pass again on a copy, find where NaN begins, and judge it."""
        if not self._arguments or self._origins:
            return []
        name, given, target, options = self._call or ("", None, None, {})
        twin = copy.deepcopy(self.module)
        arguments = self._arguments

        def again() -> Tensor:
            with torch.random.fork_rng(devices=[]):
                output = logits_in(twin(*arguments))
                # The sum of the outputs stands in for a loss of the user's own.
                if given is not None:
                    output = output.reshape(given.shape)
                loss: Tensor = (
                    getattr(nn.functional, name)(output, target, **options)
                    if name
                    else output.float().sum()
                )
                return loss

        found = origin(twin, arguments, again) or self._root
        if isinstance(target, Tensor) and not bool(target.isfinite().all()):
            found = Origin("targets")
        if found is None and self.facts.scales:
            # A GradScaler leaves out such steps.
            return []
        step = self.probe.now
        self._origins[step] = found or Origin("weights")
        stats = FlowStats(step, (), loss=math.nan, origin=found)
        judged = verdicts([*self.history, stats])
        return [v for v in judged if v.kind in ("not a number", "bad data", "diverged")]

    def judged(self, ended: bool) -> list[Verdict]:
        """Return what is wrong so far, or, once the training has ended, in all of it."""
        history, facts = self.history, self.facts
        facts.inputs = self.inputs.read()
        facts.copies = self.copies.read()
        facts.carried = self.probe.sequences.carried
        facts.moved = facts.steps == 0 and self._moved()
        facts.pace = next((median(r) for s in history[1:3] if (r := update_ratios(s))), None)
        found = verdicts(history) if history else []
        found = [
            replace(v, severity="warning")
            if v.severity == "error" and early(v, history, True)
            else v
            for v in found
        ]
        own = any(c.own for s in history for c in s.calls)
        if facts.together and not own:
            # Parts that are called one by one give each other features, some of which are off.
            found = [v for v in found if not v.evidence.get("silenced")]
        labels = sum(facts.inputs.classes.values())
        if len(facts.inputs.classes) > 1 or (0 < labels < ENOUGH_LABELS and not ended):
            # The probed steps are few beside all whose labels were counted.
            found = [v for v in found if v.kind != "labels constant"]
        return ordered([*found, *loop(self.facts, ended)])

    def sure(self) -> list[Verdict]:
        """Return the verdicts that are certain while the training goes on."""
        history = self.probe.history
        found = [v for v in self.judged(ended=False) if not early(v, history, False)]
        # The first step may be the other model's, and a trial may show why nothing comes back.
        waits = {"no graph"} if self.facts.together and len(history) < SURE else set()
        waits |= {"vanishing"} if self._tried is None else set()
        return [v for v in found if v.kind not in waits]
