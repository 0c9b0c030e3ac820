"""The judge of NaN and infinity: their source, or that training diverged."""

from __future__ import annotations

import math

from unmask.flow.judge import fixes
from unmask.flow.measure.calls import CLASSIFIERS
from unmask.flow.measure.magnitude import Magnitude
from unmask.flow.measure.statistics import FlowStats, LayerStats
from unmask.verdict import Verdict

# A loss that grew to this many times its start diverged by its steps.
RAN_AWAY = 1e4

# Operations that make NaN or infinity from some finite numbers, whatever the learning rate: what to
# do, and why.
_AWAY, _MASKED = "divide by x.clamp_min(1e-8)", "leave one place of each row unmasked"
_IN_FLOAT32 = "compute it in float32: x.float(), or torch.autocast(enabled=False) around it"
_RISKY: dict[str, tuple[str, str]] = {
    "sqrt": ("sqrt(x + 1e-8)", "the derivative of sqrt at 0 is infinite"),
    "rsqrt": ("rsqrt(x + 1e-8)", "1 / sqrt(x) is infinite at 0"),
    "norm": ("divide by norm.clamp_min(1e-8), or torch.nn.functional.normalize", "x / |x| at 0"),
    "log": ("log(x.clamp_min(1e-8)), or log_softmax", "log(0) is minus infinity"),
    "log2": ("log2(x.clamp_min(1e-8))", "log(0) is minus infinity"),
    "log10": ("log10(x.clamp_min(1e-8))", "log(0) is minus infinity"),
    "log1p": ("log1p(x.clamp_min(-1 + 1e-6))", "log(0) is minus infinity"),
    "div": (_AWAY, "division by 0"),
    "truediv": (_AWAY, "division by 0"),
    "rtruediv": (_AWAY, "division by 0"),
    "rdiv": (_AWAY, "division by 0"),
    "reciprocal": (_AWAY, "division by 0"),
    "pow": ("keep the base above 0: x.clamp_min(1e-8)", "a fractional power at or below 0"),
    "exp": ("exp(x.clamp_max(80)), or logsumexp", "exp overflows above 88 in float32"),
    "softmax": (_MASKED, "a row that is masked throughout"),
    "attention": (_MASKED, "a row that is masked throughout"),
    "kl_div": ("feed it log-probabilities, and probabilities as targets", "a target below 0"),
    **dict.fromkeys(
        CLASSIFIERS,
        (
            "leave out batches in which no label counts, or use reduction='sum' over their number",
            "a mean over no label: all are ignore_index, or of weight 0",
        ),
    ),
    "std": ("x.std(correction=0) + 1e-8, of two values or more", "the deviation of one value"),
    "var": ("x.var(correction=0), of two values or more", "the variance of one value"),
    "acos": ("clamp to -1 + 1e-6 .. 1 - 1e-6", "its derivative at 1 is infinite"),
    "asin": ("clamp to -1 + 1e-6 .. 1 - 1e-6", "its derivative at 1 is infinite"),
    "atan2": ("move the arguments off 0", "its derivative at (0, 0) is no number"),
}


def numbers(history: list[FlowStats]) -> Verdict | None:
    """Find the first NaN or infinity, and its source where that is known."""
    for stats in history:
        bad = next((x for x in stats.layers if not all(m.finite for m in _magnitudes(x))), None)
        losses = [x for x in (stats.loss, stats.loss_after) if x is not None]
        if bad is None and all(map(math.isfinite, losses)) and stats.origin is None:
            continue
        made = None if _ran_away(history, stats) else _made(stats, first=stats is history[0])
        if made is not None:
            return made
        return Verdict(
            "diverged",
            "error",
            f"NaN or infinity at step {stats.step + 1}",
            fixes.diverged(history),
            step=stats.step,
            subject=bad.name if bad else None,
            evidence={"step": stats.step},
        )
    return None


def _ran_away(history: list[FlowStats], bad: FlowStats) -> bool:
    """Return whether the loss had grown so much before that any operation would have failed."""
    losses = [s.loss for s in history if s.step <= bad.step and s.loss is not None]
    known = [abs(x) for x in losses if math.isfinite(x)]
    return len(known) > 1 and max(known) > RAN_AWAY * max(known[0], 1.0)


def _made(stats: FlowStats, first: bool) -> Verdict | None:
    origin = stats.origin
    if origin is None or origin.place == "weights":
        return None
    evidence: dict[str, float] = {"step": stats.step}
    if origin.place in ("inputs", "targets"):
        return Verdict(
            "bad data",
            "error",
            f"the {origin.place} of step {stats.step + 1} hold NaN or infinity",
            "clean the data: look for it with torch.isfinite(x).all()",
            step=stats.step,
            evidence=evidence,
        )
    if origin.place == "factors":
        return Verdict(
            "bad data",
            "error",
            "the loss is multiplied by NaN or infinity that comes from outside the graph, as "
            "weights, masks, returns and advantages do",
            "look at what they are made of: the deviation of one value is NaN, x.std(correction=0) "
            "+ 1e-8 is not",
            location=origin.location,
            step=stats.step,
            evidence=evidence,
        )
    name = origin.operation.rstrip("_")
    known = next((k for k in (name, name.rpartition("_")[2]) if k in _RISKY), None)
    if origin.infinite and name in CLASSIFIERS:
        known = None
    if known is None and not first:
        # The numbers grew too large, which is the fault of the steps.
        return None
    fix, cause = _RISKY[known] if known else ("compute it in float32, on smaller numbers", "")
    if origin.half and known in (None, "exp", "pow"):
        fix, cause = _IN_FLOAT32, "float16 ends at 65,504"
    return Verdict(
        "not a number",
        "error",
        f"{name} makes {'infinity' if origin.infinite else 'NaN'} of finite numbers"
        + (", on the way back" if origin.place == "backward" else ""),
        fix,
        cause=cause,
        subject=origin.layer,
        location=origin.location,
        step=stats.step,
        evidence=evidence,
    )


def _magnitudes(layer: LayerStats) -> list[Magnitude]:
    all_of = (layer.weight, layer.weight_gradient, layer.output, layer.output_gradient)
    return [m for m in all_of if m is not None]
