"""The card of the mask detector in words: Markdown, from its figures alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from unmask.mask.runtime.card import ShippedCard
from unmask.mask.runtime.classes import plain_words

# Kinds of faces with a lower figure are named among those where it fails.
_WEAK_RECALL, _WEAK_ACCURACY = 0.85, 0.90
_FEWEST = 10


def in_words(card: ShippedCard) -> str:
    """Return the card as Markdown."""
    f = card.facts
    parts = [
        "# The mask detector that ships",
        _what(card),
        "## How good it is",
        _folds(f["cross_validation"], f["cross_validation_float32"]),
        _table(f["cross_validation"]["pooled"]["rows"]),
        _certainty(f["reliability"]),
        "## Where it fails",
        _weak(f["cross_validation"]["pooled"]["rows"]),
        _hard(f["hard_set"]),
        "## The other two questions",
        _flow(f["flow"]),
        _audit(f["audit"]),
    ]
    return "\n\n".join(parts) + "\n"


def _what(card: ShippedCard) -> str:
    f, data = card.facts, card.facts["data"]
    faces = ", ".join(f"{n:,} {plain_words(name)}" for name, n in data["faces"].items())
    fit, canvas = f["recipe"]["fit"], f["recipe"]["canvas"]
    return (
        f"One stage, {f['parameters']:,} parameters, trained from nothing on {data['pictures']:,} "
        f"pictures of {data['name']} (SHA-256 {data['sha256'][:16]}): {faces}. "
        f"{f['recipe']['epochs']} epochs, batches of {fit['batch_size']}, {fit['optimizer']} at "
        f"{fit['rate']:g}, canvases of {canvas['size']} pixels. It sees {f['scale']:g} pixels for "
        "one of a small picture. Exported, its scores lie within "
        f"{f['onnx_difference']:.1e} of PyTorch's; detector.onnx is that in 8 bits, which finds "
        f"{f['quantized']['again']} of {f['quantized']['faces']} faces again and says the same of "
        "them. All figures are of detectors in 8 bits, but for the two last questions."
    )


def _folds(cross: dict[str, Any], floating: dict[str, float]) -> str:
    count = len(cross["folds"])
    rows = []
    for name, value in cross["mean"].items():
        each = [fold[name] for fold in cross["each"]]
        spread = f"{min(each):.3f} to {max(each):.3f}"
        rows.append((_figure_name(name), f"{value:.3f}", spread, f"{floating[name]:.3f}"))
    low, high = cross["pooled"]["map_50_interval_95"]
    return (
        f"By picture, {count} of 5 folds, each by a detector that had not seen its pictures. All "
        f"their detections together come to an mAP@50 of {cross['pooled']['map_50']:.3f} "
        f"(95 %: {low:.3f} to {high:.3f}).\n\n"
        + _markdown(("figure", "mean of the folds", "least to most", "in floating point"), rows)
    )


def _figure_name(name: str) -> str:
    if name == "map_50":
        return "mAP@50"
    if name == "recall_20px_at_precision_90":
        return "recall of faces of 20 px and more at precision 0.90"
    return f"AP@50 {plain_words(name)}"


def _table(rows: list[dict[str, Any]]) -> str:
    return "At a score of 0.5 or more, in % with 95 % intervals:\n\n" + _markdown(
        ("faces", "annotated", "recall", "precision", "class right"),
        [
            (
                plain_words(row["name"]),
                f"{row['faces']:,}",
                *(
                    _part(row[key], row[f"{key}_interval_95"])
                    for key in ("recall", "precision", "accuracy")
                ),
            )
            for row in rows
        ],
    )


def _certainty(reliability: dict[str, Any]) -> str:
    of = {"face": "that something is a face", "class": "of the class told"}
    lines = [
        f"its certainty {of[key]} lies {100 * found['mean_gap']:.1f} points from the truth on "
        f"average and {100 * found['largest_gap']:.1f} in the worst fifth of the answers"
        for key, found in reliability.items()
    ]
    return f"Calibrated without the pictures it is checked on, {', '.join(lines)}."


def _weak(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        if row["faces"] < _FEWEST:
            continue
        for key, least, words in (
            ("recall", _WEAK_RECALL, "of them are found"),
            ("accuracy", _WEAK_ACCURACY, "of those judged are told right"),
        ):
            if row[key] is not None and row[key] < least:
                part = _part(row[key], row[f"{key}_interval_95"])
                lines.append(f"- {plain_words(row['name'])}: {part} % {words}")
    return "\n".join(lines) or "No kind of face in the table above falls far behind the others."


def _hard(kinds: dict[str, dict[str, Any]]) -> str:
    rows = []
    for kind, found in kinds.items():
        was = found["as_they_were"] or {"recall": None, "accuracy": None}
        wrong: Counter[str] = Counter()
        for name, said in found["confusion"].items():
            wrong.update({plain_words(k): n for k, n in said.items() if k != name})
        rows.append(
            (
                kind,
                str(found["faces"]),
                _part(found["recall"], found["recall_interval_95"]),
                _part(was["recall"]),
                _part(found["accuracy"], found["accuracy_interval_95"]),
                _part(was["accuracy"]),
                ", ".join(f"{words} {n}" for words, n in wrong.most_common()) or "-",
            )
        )
    return (
        "What detectors of masks are known to mistake, composed from pictures not trained on: "
        "hands, beards and scarves drawn over bare faces, masks dyed or printed, narrow faces as "
        "they are, faces that fill the picture. In %, before: of the same faces as they were.\n\n"
        + _markdown(
            ("faces", "count", "found", "before", "class right", "before", "else said"), rows
        )
    )


def _flow(flow: dict[str, Any]) -> str:
    said = "; ".join(f"{v['severity']}: {v['message']}" for v in flow["verdicts"])
    health = "no error" if flow["healthy"] else "errors"
    return (
        f"Will it train? The flow check of a fresh network on {flow['pictures']} canvases found "
        f"{health}{f' ({said})' if said else ''}."
    )


def _audit(audit: dict[str, Any]) -> str:
    lines = [
        f"Can it be fooled? Of {audit['faces']} bare faces of 20 pixels and more that it was not "
        f"trained on, cut out as {audit['crop']} x {audit['crop']} pixels of which the face takes "
        "up half a side:"
    ]
    for norm, found in audit.items():
        if not isinstance(found, dict):
            continue
        right = found["right_as_they_are"]
        passed = found.get("to_pass_for_masked")
        if not passed or passed["median"] is None:
            lines.append(f"- {norm}: none was made to pass for masked")
            continue
        unit, factor = ("/255 a value", 255) if norm == "linf" else ("", 1)
        name = {"linf": "Linf", "l2": "L2"}[norm]
        lines.append(
            f"- {name}: {right['count']} are told right as they are; {passed['reached']} of "
            f"{passed['of']} of these pass for masked after a change of {name} "
            f"{factor * passed['median']:.2f}{unit} (median; 90 % lie between "
            f"{factor * passed['p5']:.2f} and {factor * passed['p95']:.2f})"
        )
        lines += [f"  - the audit warns: {message}" for message in found["warnings"]]
    return "\n".join(lines)


def _part(value: float | None, interval: Iterable[float] | None = None) -> str:
    if value is None:
        return "-"
    if interval is None:
        return f"{100 * value:.0f}"
    low, high = interval
    return f"{100 * value:.1f} ({100 * low:.0f}-{100 * high:.0f})"


def _markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
