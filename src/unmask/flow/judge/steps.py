"""Judges of the parameters in every step: which are reached, held and moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from unmask.flow.judge.fixes import SCALED
from unmask.flow.judge.indicators import TABLES, UNRESPONSIVE, front_response
from unmask.flow.judge.signals import NO_SLOPE, NOTHING, underflow
from unmask.flow.measure.calls import REENTRANT, REVERSED_MASK, SAMPLE
from unmask.flow.measure.statistics import FlowStats, ParameterFacts
from unmask.verdict import Severity, Verdict

# Weight decay twice as large as the gradient overrides the loss; as large as it, it costs much: 22
# points of a small network on MNIST.
DECAYS, DECAYS_MUCH = 0.75, 2.0
# The fraction of half-precision weights that a step may leave as they were.
ROUNDED, ROUNDED_AWAY = 0.5, 0.75
# Averages over more than a thousand gradients hardly follow the loss.
LONG_MEMORY = 0.999
# The step from which on what is frozen stays so.
SETTLED = 5
# The probed steps at which no gradient that is other than 0 comes any more.
LATE = 2
_NAMED = 4
# Probed steps at which gradients were scaled by hand, and the most that a loss may exceed the means
# that it is made of.
ALWAYS, ENLARGED = 3, 2.0

WITHOUT = ("torch.no_grad()", REENTRANT)


def steps(history: list[FlowStats]) -> Iterator[Verdict]:
    """Judge the steps by what is the same in all of them."""
    seen = [(s, s.parameters) for s in history if s.parameters is not None]
    if not seen:
        return
    stats, first = seen[0]
    facts = [f for _, f in seen]
    # The step that calls the model first, as a search does, isn't seen.
    stepped = any(s.optimizer is not None for s, _ in seen)

    def verdict(
        kind: str,
        severity: Severity,
        message: str,
        fix: str,
        subject: str | None,
        cause: str = "",
    ) -> Verdict:
        step = seen[-1][0].step
        return Verdict(kind, severity, message, fix, cause=cause, subject=subject, step=step)

    for name in (n for n in first.unregistered if all(n in f.unregistered for f in facts)):
        yield verdict(
            "layers not registered",
            "error",
            f"{name} is a plain list, dictionary or tensor: model.parameters() doesn't hold its "
            "weights, so no optimiser trains them",
            f"make {name} an nn.ModuleList, an nn.ModuleDict or an nn.Parameter",
            name,
        )
    strangers = [n for n in first.strangers if all(n in f.strangers for f in facts)]
    if strangers and not first.unregistered:
        yield verdict(
            "layers not registered",
            "error",
            f"{_some(strangers)} runs inside the model and isn't part of it: "
            "model.parameters() doesn't hold its weights, so no optimiser trains them",
            "make it once, in __init__, and keep it as an attribute: self.layer = ...",
            strangers[0].partition(" ")[0],
        )
    for name in (n for n in first.repeated if all(n in f.repeated for f in facts)):
        yield verdict(
            "layers shared",
            "error",
            f"{name} holds one layer several times: all its entries give the same output, and have "
            "the same weights",
            "make each anew: nn.ModuleList([make() for _ in range(n)]), not [make()] * n",
            name,
        )
    yield from _unreached(history, facts)
    drawn = next((c for s in history for c in s.cuts if c.operation == SAMPLE), None)
    if drawn is not None:
        yield Verdict(
            "parameters without gradient",
            "warning",
            f"{drawn.layer} is fed what sample() draws, which has no graph: the loss after it says "
            "nothing to what gave the mean and the deviation",
            "rsample(), or mean + deviation * torch.randn_like(mean)",
            cause=f"{SAMPLE} cuts the graph before {drawn.layer}",
            subject=drawn.layer,
            location=drawn.location,
            step=history[-1].step,
            evidence={},
        )
    if not stepped:
        return
    unheld = [n for n in first.unheld if all(n in f.unheld for f in facts)]
    if unheld:
        yield _unheld(unheld, first, stats)
    still = [n for n in first.still if all(n in f.still for f in facts)]
    rate = seen[-1][0].learning_rate
    # In full precision, and with a rate above 0, the rate is too low, which has its own verdict.
    small = underflow(history) is not None
    if len(seen) > 1 and still and (rate == 0 or (facts[-1].half and not small)):
        yield verdict(
            "weights that don't move",
            "error",
            f"{_some(still)} have a gradient, and no step changes them",
            "set a learning rate above 0"
            if rate == 0
            else "keep the weights in float32: a step this small is lost in their rounding",
            still[0],
            cause="the learning rate is 0" if rate == 0 else "",
        )
    if not still and not small:
        yield from _rounded(facts, verdict)
    yield from _memory(facts, verdict)
    yield from _scaled(seen, verdict)
    yield from _zero(seen, verdict)
    shared = [n for n in first.shared if all(n in f.shared for f in facts)]
    if shared:
        yield verdict(
            "parameters in two optimisers",
            "warning",
            f"{_some(shared)} are moved twice a step, by two optimisers or groups",
            "give every parameter to one optimiser",
            shared[0].rpartition(".")[0] or shared[0],
        )
    yield from _frozen(history[-1], facts[-1])
    yield from _frozen_at_random(history[-1])
    later = [f for s, f in seen if s.step > 0]
    carried = sum(f.carried for f in later)
    if carried and carried >= min(2, len(later)):
        yield Verdict(
            "gradients not zeroed",
            "error",
            "every step adds its gradient to those of all steps before",
            "call optimizer.zero_grad() once a step, before backward()",
            location=later[-1].location,
            step=seen[-1][0].step,
            evidence={"steps": float(carried)},
        )
    # In the end every decay balances its gradient, so only the start counts; but at the first step
    # an output layer that starts at 0 passes no gradient on.
    start = [f.decay for f in facts if f.decay is not None][:2]
    decay = min(start) if len(start) == 2 else None
    # Any decay is large beside a gradient that is lost on its way.
    front = front_response(stats) if stats.step == 0 else None
    arrives = front is None or front[0] >= UNRESPONSIVE
    if decay is not None and decay > DECAYS and arrives:
        yield Verdict(
            "weight decay too large",
            "error" if decay > DECAYS_MUCH else "warning",
            f"weight decay pulls at the weights {decay:.3g} times as much as the loss does",
            "weight_decay=1e-4, or AdamW with weight_decay=0.01",
            step=seen[-1][0].step,
            evidence={"decay_to_gradient": decay},
        )


def _rounded(facts: list[ParameterFacts], verdict: Callable[..., Verdict]) -> Iterator[Verdict]:
    """Find steps that are smaller than the rounding of half-precision weights."""
    lost = sorted(f.rounded for f in facts if f.rounded is not None)
    middle = lost[len(lost) // 2] if lost else 0.0
    if len(lost) > 1 and middle > ROUNDED:
        yield verdict(
            "weights that don't move",
            "error" if middle > ROUNDED_AWAY else "warning",
            f"a step leaves {middle:.0%} of the weights as they were, though they have a gradient",
            "keep the weights in float32 and compute in half precision with torch.autocast",
            None,
            cause="in half precision a step this small is lost in their rounding",
        )


def _memory(facts: list[ParameterFacts], verdict: Callable[..., Verdict]) -> Iterator[Verdict]:
    memory = max(f.memory for f in facts)
    if memory >= LONG_MEMORY:
        yield verdict(
            "momentum too large",
            "error" if memory >= 1 else "warning",
            f"with a momentum of {memory:g} "
            + (
                "no gradient is ever forgotten: the weights never settle"
                if memory >= 1
                else f"steps follow the gradients of {1 / (1 - memory):,.0f} steps"
            ),
            "momentum=0.9, or betas=(0.9, 0.999)",
            None,
        )


def _zero(
    seen: list[tuple[FlowStats, ParameterFacts]], verdict: Callable[..., Verdict]
) -> Iterator[Verdict]:
    """Find gradients that are exactly 0, in float16 or between two factors that start at 0."""
    facts = [f for _, f in seen]
    first = facts[0]
    if len(seen) > 2 and all(s.loss == 0 and set(f.zero) >= set(f.trainable) for s, f in seen):
        yield verdict(
            "wrong loss",
            "error",
            "from the first step on the loss is exactly 0, and so is every gradient",
            "look for what makes it 0: a margin that no pair violates, as where the farthest is "
            "taken for the nearest, or a mask that hides everything",
            None,
        )
        return
    zero = [n for n in first.zero if all(n in f.zero for f in facts)]
    if first.float16 and zero and set(zero) >= set(first.trainable):
        yield verdict(
            "float underflow",
            "error",
            "every gradient is exactly 0: in float16 numbers below 6e-8 are",
            SCALED,
            zero[0].rpartition(".")[0] or None,
        )
        return
    late = seen[-LATE:]
    began = len(seen) > LATE and not set(first.zero) >= set(first.trainable)
    if began and all(s.loss and set(f.zero) >= set(f.trainable) for s, f in late):
        yield verdict("vanishing", "error", f"after the first steps {NOTHING}", NO_SLOPE, None)
    null = [n for n in first.null if all(n in f.null for f in facts)]
    if len(facts) > 2 and len(null) > 1:
        whole = set(zero) >= set(first.trainable)
        yield verdict(
            "symmetric initialisation",
            "error" if whole else "warning",
            f"{_some(null)} are all 0 and get a gradient of exactly 0 at every step: each is "
            "multiplied by another that is 0",
            "draw one of every two factors at random, as LoRA's A beside B = 0",
            null[0].rpartition(".")[0] or null[0],
        )


def _unreached(history: list[FlowStats], facts: list[ParameterFacts]) -> Iterator[Verdict]:
    first = facts[0]
    never = [n for n in first.unreached if all(n in f.unreached for f in facts)]
    if not never:
        return
    cuts = [c for s in history for c in s.cuts if c.operation != REVERSED_MASK]
    if set(never) >= set(first.trainable):
        # If the whole graph is cut, it was the last operation between the model and its loss.
        where = next((c for c in reversed(cuts) if c.operation != ".item()"), None)
        whole = next(
            (c for s in history for c in s.calls if c.own and c.name != "difference"), None
        )
        kept = whole is not None and where is None
        yield Verdict(
            "no graph",
            "error",
            "the loss has no path to the model: no parameter gets a gradient",
            f"leave out {where.operation} on the way to the loss"
            if where is not None
            else "call backward() on the loss itself, not on loss.data or torch.tensor(loss)"
            if kept
            else "look for what cuts the graph on the way to the loss: .detach(), .data, argmax, "
            "torch.no_grad(), or a tensor made anew",
            cause=where.operation
            if where is not None
            else f"what {whole.name} gave had a path, which is lost before backward()"
            if whole is not None
            else "",
            location=where.location if where is not None else facts[-1].sent_back,
            step=history[-1].step,
            evidence={"tensors": float(len(never))},
        )
        return
    layers: dict[str, list[str]] = {}
    for name in first.trainable:
        layers.setdefault(name.rpartition(".")[0] or "(model)", []).append(name)
    missing = [x for x, own in layers.items() if set(own) <= set(never)]
    uncalled = {x for x in first.uncalled if all(x in f.uncalled for f in facts)}
    last = history[-1].step
    unused = [x for x in missing if x in uncalled]
    cut = [x for x in missing if x not in uncalled]
    cuts = [c for c in cuts if c.layer in missing]
    harsh = [c for c in cuts if c.operation != ".item()"] or cuts
    under = [x for x in unused if any(c.layer == x and c.operation in WITHOUT for c in cuts)]
    unused = [x for x in unused if x not in under]
    cut = [*cut, *under]
    if cut:
        where = harsh[-1] if harsh else None
        yield Verdict(
            "parameters without gradient",
            "error" if where is not None else "warning",
            f"no gradient comes to {_some(cut)}, of {len(layers)} layers with parameters",
            "give it use_reentrant=False: without, none of its inputs wants a gradient"
            if where is not None and where.operation == REENTRANT
            else f"leave out {where.operation} there, or set requires_grad_(False) if it is meant"
            if where is not None
            else "use what they give on the way to the loss, or set requires_grad_(False)",
            cause=f"{where.operation} cuts the graph after {where.layer}" if where else "",
            subject=cut[0],
            location=where.location if where is not None else None,
            step=last,
            evidence={"layers": float(len(cut)), "of": float(len(layers))},
        )
    if unused:
        yield Verdict(
            "parameters without gradient",
            "warning",
            f"{_some(unused)} took no part in the forward pass, so nothing trains them",
            "call them in forward, or take them out",
            subject=unused[0],
            step=last,
            evidence={"layers": float(len(unused)), "of": float(len(layers))},
        )


def _scaled(
    seen: list[tuple[FlowStats, ParameterFacts]], verdict: Callable[..., Verdict]
) -> Iterator[Verdict]:
    """Find gradients of a mean that are divided by hand before plain descent uses them."""
    factors = [f.scaled for _, f in seen]
    known = [x for x in factors if x is not None]
    if len(known) < ALWAYS or len(known) < len(factors) or seen[-1][0].optimizer != "SGD":
        return
    for stats, _ in seen:
        means = [c.value for c in stats.calls if c.reduction == "mean" and c.value]
        # A loss that is a sum, or was made larger, needs the division.
        if not means or stats.loss is None or stats.loss > ENLARGED * sum(means):
            return
    yield verdict(
        "gradients clipped away",
        "error",
        f"gradients of a mean loss are multiplied by {known[-1]:.2g} between backward() and step()",
        "leave that out, or divide once: by the steps of an accumulation, not by the images too",
        None,
        cause="a division by hand",
    )


def _frozen(stats: FlowStats, facts: ParameterFacts) -> Iterator[Verdict]:
    layers = stats.matrix_layers
    if layers and facts.trainable and all(x.frozen for x in layers):
        yield Verdict(
            "weights that don't move",
            "warning",
            f"the weights of all {len(layers)} layers are frozen (requires_grad is False): only "
            f"{_some(list(facts.trainable))} can change",
            "call requires_grad_(True) on the layers to be trained, at least on the last",
            step=stats.step,
            subject=layers[-1].name,
            evidence={"layers": float(len(layers))},
        )


def _frozen_at_random(stats: FlowStats) -> Iterator[Verdict]:
    """Find layers before all that are trained which are frozen as they were drawn."""
    ran = [x for x in stats.layers if x.output is not None]
    first = next((i for i, x in enumerate(ran) if not x.frozen), 0)
    frozen, others = ran[:first], ran[first:]
    if not any(x.matrix for x in frozen) or any(x.frozen for x in others):
        return
    told = [x.drawn for x in frozen if x.matrix]
    if stats.step >= SETTLED and True in told and all(x.drawn is not False for x in frozen):
        names = [x.name for x in frozen if x.matrix]
        yield Verdict(
            "weights not loaded",
            # What is random tells images apart all the same, as a trunk that stands for a trained
            # one may; of words it tells nothing.
            "warning" if any(x.kind in TABLES for x in frozen) else "note",
            f"{_some(names)} before all that is trained: frozen (requires_grad is False), and "
            "still as initialised at random",
            "load their trained weights, or let them train: requires_grad_(True)",
            subject=names[0],
            step=stats.step,
            evidence={"layers": float(len(names))},
        )


def _unheld(unheld: list[str], facts: ParameterFacts, stats: FlowStats) -> Verdict:
    lacking = set(unheld)
    of = len(facts.trainable)
    # The head alone, or the last blocks, may be trained on purpose.
    kept = [n in lacking for n in facts.trainable]
    tail = kept == sorted(kept, reverse=True) and not all(kept) and not facts.foreign
    replaced = "; it holds others that the model doesn't use" if facts.foreign else ""
    return Verdict(
        "parameters in no optimiser",
        "warning" if tail else "error",
        f"the optimiser lacks {len(unheld)} of {of} trainable tensors: {_some(unheld)}{replaced}",
        "set requires_grad_(False) on what is not to be trained, or give the optimiser "
        "model.parameters()"
        if tail
        else "make the optimiser from model.parameters() once the model is complete",
        subject=unheld[0].rpartition(".")[0] or unheld[0],
        location=facts.location,
        step=stats.step,
        evidence={"lacking": float(len(unheld)), "trainable": float(of)},
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
