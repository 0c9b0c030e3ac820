"""Judges of a training loop as a whole: faults that no single step shows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from unmask.flow.judge.data import inputs
from unmask.flow.judge.facts import LoopFacts
from unmask.flow.judge.schedules import begun_anew, schedule, unfinished
from unmask.verdict import Verdict

# Gradients may be accumulated over this many backward passes before it counts as a fault.
PATIENCE = 64
LEAST_STEPS = 20
# A gradient cut to a thousandth at nearly every step.
CLIPPED, CLIPS = 1e-3, 0.9
VALIDATIONS = 3
IDLE = 3
REDRAWN = 2
# Steps at which a term of the loss came to nothing.
WASTED = 10
# A divergence that is rounding.
SAME = 1e-6
# Probed steps that began with the last state.
CARRIED = 2
# The fraction of the steps before which the weights went back to their start.
PULLED = 0.9
# Evaluations of a copy that is never written to, and the most of them beside the steps: a teacher
# is asked at each.
LOOKS, RARELY = 2, 0.1
# Standard deviations between the running means of a copy and of its model that no delay explains.
STALE = 0.5
# A copy that stays the same however often it is written to.
WRITES = 8
# A scale that fell by this factor over this many updates meets infinities all the time.
SCALES, COLLAPSED = 8, 256.0
# A loss that rises to this many times its start.
SPIKE = 1.3
# One that is still this much of its start, after steps that each changed this much of the weights.
STALLS, HASTY = 0.8, 0.03


def loop(facts: LoopFacts, ended: bool = False) -> Iterator[Verdict]:
    """Judge a loop so far, or, once it has ended, as a whole.

    Args:
        facts: the counts.
        ended: whether the training is over.
    """
    yield from _no_step(facts, ended)
    yield from _rates(facts)
    if facts.same >= IDLE:
        yield Verdict(
            "wrong loss",
            "error",
            "kl_div compares a distribution with itself, and neither has a path to the model: this "
            "term of the loss is always 0",
            "kl_div(log_softmax(student / T, dim=-1), softmax(teacher / T, dim=-1))",
            location=facts.lines.get("kl_div"),
            evidence={"calls": float(facts.same)},
        )
    yield from _mode(facts)
    yield from _state(facts)
    yield from inputs(facts.inputs, ended)


def wasted(term: int, times: int, location: str | None) -> Verdict | None:
    """Judge a term of a loss whose gradients no step uses, though another term's are used.

    Args:
        term: its number.
        times: that it was followed.
        location: of the backward pass.
    """
    if times < WASTED:
        return None
    return Verdict(
        "loss without effect",
        "error",
        f"term {term + 1} of the loss reaches only weights that this step doesn't change: "
        f"{times} of {times} gradients of it were thrown away",
        "leave out the .detach() or torch.no_grad() before it, as the images that a generator "
        "makes need their graph for its own loss",
        location=location,
        evidence={"times": float(times)},
    )


def _no_step(facts: LoopFacts, ended: bool) -> Iterator[Verdict]:
    lines = facts.lines
    long = facts.backwards > PATIENCE or (ended and facts.backwards >= IDLE)
    elsewhere = facts.elsewhere >= IDLE
    # What else has a gradient and steps may be what is trained: an image, or another model that
    # this one gives a loss.
    beside = facts.others > 0 and not facts.elsewhere
    fixed = beside and facts.fixed
    still = facts.steps == 0 and not facts.moved and not fixed
    if still and facts.graded and (long or elsewhere):
        yield Verdict(
            "no step",
            "warning" if beside else "error",
            f"{facts.backwards} backward passes, and "
            + ("no optimizer.step()" if not elsewhere else "the optimiser holds other weights")
            + f": the weights of {facts.model} never change",
            "make the optimiser from this model's parameters(), after the model"
            if elsewhere
            else "call requires_grad_(False) if it is to stay, or give an optimiser its parameters"
            if beside
            else "call optimizer.step() after backward(), on an optimiser of this model",
            location=lines.get("elsewhere") if elsewhere else lines.get("backward"),
            evidence={"backwards": float(facts.backwards)},
        )
    # A GradScaler leaves out steps by itself.
    discarded = facts.discarded if facts.steps and not facts.scales else 0
    if discarded >= IDLE > facts.empty and long and discarded >= 0.9 * facts.backwards:
        yield Verdict(
            "no step",
            "error",
            f"{facts.discarded} of {facts.backwards} gradients are zeroed before a step uses them",
            "call optimizer.step() after every backward(), inside the loop over batches",
            location=lines.get("step") or lines.get("zero_grad"),
            evidence={"discarded": float(facts.discarded), "backwards": float(facts.backwards)},
        )
    extra = facts.backwards - facts.steps
    if 0.5 * facts.steps <= extra <= discarded / 0.95 and extra >= LEAST_STEPS and not facts.scales:
        each = round(facts.backwards / facts.steps)
        yield Verdict(
            "no step",
            "warning",
            f"{discarded} of {facts.backwards} gradients are zeroed before a step uses them: of "
            f"every {each} batches only the last counts",
            "call zero_grad() after optimizer.step() only, once for all batches that accumulate",
            location=lines.get("zero_grad"),
            evidence={"discarded": float(discarded), "backwards": float(facts.backwards)},
        )
    if facts.backwards == 0 and ended and facts.forwards >= IDLE and facts.steps >= IDLE:
        yield Verdict(
            "no step",
            "error",
            f"{facts.steps} steps and no backward pass",
            "return the loss from training_step"
            if facts.lightning
            else "call loss.backward() before optimizer.step()",
            location=lines.get("step"),
            evidence={"steps": float(facts.steps)},
        )
    elif facts.empty >= IDLE and facts.empty >= 0.9 * facts.steps:
        cleared = facts.cleared >= 0.9 * facts.empty
        yield Verdict(
            "no step",
            "error",
            f"{facts.empty} of {facts.steps} steps found no gradient: "
            + ("it is zeroed after backward()" if cleared else "step() comes before backward()"),
            "order them: optimizer.zero_grad(), loss.backward(), optimizer.step()",
            location=(lines.get("zero_grad") if cleared else None) or lines.get("step"),
            evidence={"empty": float(facts.empty), "steps": float(facts.steps)},
        )


def _rates(facts: LoopFacts) -> Iterator[Verdict]:
    yield from begun_anew(facts.courses, facts.lines.get("schedule"))
    if facts.finished and len(facts.courses) == 1:
        left = unfinished(facts.courses[0], facts.lines.get("schedule"))
        yield from [left] if left is not None else []
    yield from schedule(
        facts.rates, facts.plateaus, facts.schedules >= 0.9 * facts.steps, facts.lines
    )
    yield from _scaled(facts)
    if facts.late_clips >= IDLE and facts.late_clips >= CLIPS * len(facts.clips) - 1:
        yield Verdict(
            "clipping without effect",
            "warning",
            "gradients are clipped after the step, which has used them already",
            "clip between backward() and optimizer.step()",
            location=facts.lines.get("clip"),
            evidence={"clips": float(facts.late_clips)},
        )
    if len(facts.clips) >= LEAST_STEPS and not (facts.normalises_steps or facts.scaled_clips):
        cut = sum(c < CLIPPED for c in facts.clips) / len(facts.clips)
        if cut >= CLIPS:
            middle = sorted(facts.clips)[len(facts.clips) // 2]
            yield Verdict(
                "gradients clipped away",
                "error",
                f"clipping leaves {middle:.1g} of the gradient at {cut:.0%} of the steps",
                "clip at a norm that few steps reach, for instance 1.0",
                location=facts.lines.get("clip"),
                evidence={"left": middle, "steps": cut},
            )


def _scaled(facts: LoopFacts) -> Iterator[Verdict]:
    """Judge gradients that are still multiplied by a GradScaler's scale when they are used."""
    for what, times, fix, line in (
        ("used", facts.scaled_steps, "scaler.step(optimizer), then scaler.update()", "step"),
        ("clipped", facts.scaled_clips, "scaler.unscale_(optimizer) before clipping", "clip"),
    ):
        if times >= IDLE:
            yield Verdict(
                "gradients not unscaled",
                "error" if line == "step" or not facts.normalises_steps else "warning",
                f"gradients are {what} {times} times while they are still multiplied by the "
                "GradScaler's scale",
                f"call {fix}",
                location=facts.lines.get(line),
                evidence={"times": float(times)},
            )


def _state(facts: LoopFacts) -> Iterator[Verdict]:
    """Judge changes of the weights between the steps, and the scale of the loss."""
    if len(facts.redrawn) >= REDRAWN:
        yield Verdict(
            "weights drawn anew",
            "error",
            f"between two steps the weights were replaced {len(facts.redrawn)} times: what was "
            "learnt before is lost",
            "make or load the weights once, before the loop",
            location=facts.lines.get("step"),
            step=facts.redrawn[-1],
            evidence={"times": float(len(facts.redrawn))},
        )
    elif facts.pulled >= LEAST_STEPS and facts.pulled >= PULLED * facts.steps:
        yield Verdict(
            "weights drawn anew",
            "error",
            f"after {facts.pulled} of {facts.steps} steps the weights were set back most of the "
            "way to where they started",
            "keep an average beside the model: average = decay * average + (1 - decay) * weights, "
            "and copy it into the model at the end, if at all",
            cause="an average is written into the model, or mixed the wrong way round",
            location=facts.lines.get("step"),
            evidence={"times": float(facts.pulled), "steps": float(facts.steps)},
        )
    for copy in facts.copies:
        rarely = LOOKS <= copy.looks <= RARELY * copy.steps
        if copy.writes == 0 and rarely and not copy.changed:
            yield Verdict(
                "weights that don't move",
                "warning",
                f"a copy of the model was evaluated {copy.looks} times while the model made "
                f"{copy.steps} steps, and was never written to: it is the model of the start",
                "write the average into the copy's own tensors: "
                "a.mul_(decay).add_(w, alpha=1 - decay)",
                location=copy.line,
                evidence={"looks": float(copy.looks), "steps": float(copy.steps)},
            )
        if copy.changed and copy.looks >= LOOKS and copy.stale > STALE:
            yield Verdict(
                "running statistics",
                "error",
                "an average of the weights is evaluated with running means that nobody wrote to, "
                f"{copy.stale:.2g} standard deviations from those of the model",
                "copy the model's buffers into the average, as AveragedModel(use_buffers=True) "
                "does, or run update_bn() before evaluating it",
                cause="parameters() holds no running statistics",
                location=copy.line,
                evidence={"stale": copy.stale, "looks": float(copy.looks)},
            )
        if copy.writes >= WRITES and not copy.changed:
            yield Verdict(
                "weights that don't move",
                "error",
                f"a copy of the model was written to {copy.writes} times while the model made "
                f"{copy.steps} steps, and not a number of it changed: what it predicts is what "
                "the model predicted at the start",
                "average = decay * average + (1 - decay) * weights, with a decay below 1, "
                "such as 0.999",
                cause="a decay of 1",
                location=copy.line,
                evidence={"writes": float(copy.writes), "steps": float(copy.steps)},
            )
    layer = max(facts.carried, key=lambda name: facts.carried[name], default=None)
    # Of long sequences, the parts of one batch are several steps that belong together.
    if layer is not None and facts.carried[layer] >= CARRIED and facts.shuffled >= facts.steps - 1:
        yield Verdict(
            "state carried over",
            "warning",
            "each batch begins with the state that the one before left, though they are drawn in "
            "random order: it tells nothing of these sequences",
            "leave the state out, or make it anew for each batch: layer(x) begins with zeros",
            subject=layer,
            location=facts.lines.get("step"),
            evidence={"steps": float(facts.carried[layer])},
        )
    if facts.remembers and facts.optimizers >= LEAST_STEPS and facts.optimizers > 0.9 * facts.steps:
        yield Verdict(
            "optimiser made anew",
            "warning",
            f"{facts.optimizers} optimisers made {facts.steps} steps: momentum and averages of "
            "gradients are lost each time",
            "make the optimiser once, before the loop",
            location=facts.lines.get("step"),
            evidence={"optimizers": float(facts.optimizers)},
        )
    scales = facts.scales
    if len(scales) >= SCALES and scales[-1] * COLLAPSED <= scales[0]:
        falls = sum(b < a for a, b in pairwise(scales)) / (len(scales) - 1)
        if falls > 0.5:
            yield Verdict(
                "loss scale collapses",
                "error",
                f"the GradScaler went from {scales[0]:g} down to {scales[-1]:.3g}: at {falls:.0%} "
                "of its updates the gradient held NaN or infinity, and no step was made",
                "look for the operation that makes them in half precision, and compute it in "
                "float32 (torch.autocast(enabled=False)), or use bfloat16",
                location=facts.lines.get("backward"),
                evidence={"first": scales[0], "last": scales[-1]},
            )
    twice = [name for name, times in facts.twice.items() if times >= IDLE]
    if twice:
        more = f" and {len(twice) - 4} more" if len(twice) > 4 else ""
        yield Verdict(
            "parameters in two optimisers",
            "warning",
            f"{', '.join(twice[:4])}{more} are moved twice with one gradient, by two optimisers",
            "give every parameter to one optimiser",
            subject=twice[0].rpartition(".")[0] or twice[0],
            location=facts.lines.get("step"),
            evidence={"parameters": float(len(twice))},
        )
    losses, rates = facts.losses, facts.rates[:LEAST_STEPS]
    level = len(rates) == LEAST_STEPS and max(rates) <= 1.01 * min(rates)
    if facts.attention and level and len(losses) >= LEAST_STEPS:
        first, peak = losses[0], max(losses[1:LEAST_STEPS])
        late = losses[2 * LEAST_STEPS : 3 * LEAST_STEPS]
        stalls = len(late) == LEAST_STEPS and sum(late) / LEAST_STEPS > STALLS * first
        if first > 0 and (peak > SPIKE * first or (stalls and (facts.pace or 0.0) > HASTY)):
            yield Verdict(
                "warm-up missing",
                "warning",
                (
                    f"the loss rose from {first:.3g} to {peak:.3g} within {LEAST_STEPS} steps at "
                    "the full learning rate"
                    if peak > SPIKE * first
                    else f"after {3 * LEAST_STEPS} steps at the full learning rate the loss is "
                    f"still {sum(late) / LEAST_STEPS:.3g}, from {first:.3g}"
                ),
                "raise the learning rate from 0 over the first few hundred steps (LinearLR), or "
                f"take {rates[0] / 10:.1g}",
                location=facts.lines.get("step"),
                step=LEAST_STEPS - 1,
                evidence={"first": first, "peak": peak},
            )


def _mode(facts: LoopFacts) -> Iterator[Verdict]:
    # Backward passes of a model that isn't trained may be for another's sake, or for its images'.
    trained = facts.steps > 0 or facts.moved
    if (
        trained
        and facts.evaluating_backwards >= IDLE
        and facts.evaluating_backwards > facts.backwards / 2
    ):
        yield Verdict(
            "wrong mode",
            "error" if facts.fresh_norms else "warning",
            "the model trains in evaluation mode: "
            + (
                "batch normalisation keeps statistics that were never measured"
                if facts.fresh_norms
                else "dropout is off and batch normalisation keeps its statistics"
            ),
            "call model.train() before each epoch's training",
            location=facts.lines.get("backward"),
            evidence={"backwards": float(facts.evaluating_backwards)},
        )
    passes = max(facts.training_validations, facts.training_runs)
    if passes >= VALIDATIONS:
        yield Verdict(
            "wrong mode",
            "warning",
            f"{passes} passes without gradients ran in training mode: dropout "
            "is on, and batch normalisation learns from what is validated",
            "call model.eval() before validation and model.train() after it",
            location=facts.lines.get("validation"),
            evidence={"passes": float(passes)},
        )


def not_loaded(
    location: str | None, own: bool, given: list[str], missing: list[str], unexpected: list[str]
) -> Verdict | None:
    """Judge a load of weights by name.

    Args:
        location: "file:line" of the load.
        own: whether a model that has been trained was given its own tensors.
        given: the names of the tensors.
        missing: those that the model has, and weren't given.
        unexpected: those that were given, and the model doesn't have.
    """
    if own:
        return Verdict(
            "weights not loaded",
            "error",
            "load_state_dict() was given the model's own tensors, which are what they are now: no "
            "earlier weights are brought back",
            "keep copy.deepcopy(model.state_dict()); a target network is copy.deepcopy(model)",
            location=location,
        )
    if not given or not missing or len(unexpected) < len(given):
        return None
    return Verdict(
        "weights not loaded",
        "error",
        f"load_state_dict(strict=False) loaded none of {len(given)} tensors: they have names such "
        f"as {unexpected[0]}, the model such as {missing[0]}",
        "rename the keys; without strict=False this is an error",
        location=location,
        evidence={"given": float(len(given)), "missing": float(len(missing))},
    )


def frozen(tensors: int, location: str | None) -> Verdict:
    """Return the verdict on an optimiser none of whose tensors wants a gradient.

    Args:
        tensors: that it holds.
        location: "file:line" of its step.
    """
    return Verdict(
        "weights that don't move",
        "error",
        f"all {tensors} tensors of the optimiser are frozen (requires_grad is False), so no step "
        "changes them",
        "call requires_grad_(True) on the parameters to be trained; on the loss it helps nothing",
        cause="frozen parameters",
        location=location,
        evidence={"tensors": float(tensors)},
    )
