"""The card of the mask detector in words: Markdown, from its figures alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from unmask.mask.runtime.classes import plain_words
from unmask.models.card import ModelCard

# Kinds of faces with a lower figure are named among those where it fails.
_WEAK_RECALL, _WEAK_ACCURACY = 0.85, 0.90
_FEWEST = 10
_UNASKED = "Neither the flow check nor the audit was run for these weights."


def in_words(card: ModelCard) -> str:
    """Return the card as Markdown."""
    f = card.facts
    parts = [
        "# The mask detector that ships",
        _what(card),
        "## How good it is",
        _folds(f["cross_validation"], f["original"]),
        _table(f["cross_validation"]["pooled"]),
        "## Other light, other poses, other cameras",
        _shifts(f["shifts"]),
        _empty(f["without_a_face"]),
        "## Other origins",
        _origins(f.get("other_origins", {})),
        "## What it answers, and what it hides",
        _judged(f["judged_by_size"]),
        _hidden(f["hidden"]),
        "## Where it fails",
        _weak(f["cross_validation"]["pooled"]["rows"]),
        _hard(f["hard_set"]),
        "## The other two questions",
        *([_flow(f["flow"]), _audit(f["audit"])] if "audit" in f else [_UNASKED]),
    ]
    return "\n\n".join(parts) + "\n"


def _what(card: ModelCard) -> str:
    f, data = card.facts, card.facts["data"]
    faces = ", ".join(f"{n:,} {plain_words(name)}" for name, n in data["faces"].items())
    recipe = f["recipe"]
    return (
        f"One stage, {f['parameters']:,} parameters, trained from nothing on {data['pictures']:,} "
        f"images of {data['name']} (SHA-256 {data['sha256'][:16]}): {faces}. "
        f"{recipe['steps']:,} steps of {recipe['batch']} canvases of {recipe['canvas']['size']} "
        "pixels, with things drawn on faces, other light and scenes without a face (textures, "
        "scikit-image's samples and CIFAR-10's training images). It sees "
        f"{f['scale']:g} pixels for one of a small image; images of little contrast are stretched "
        f"first. Exported, its scores lie within {f['onnx_difference']:.1e} of PyTorch's; "
        f"detector.onnx is that in 8 bits, which finds {f['quantized']['again']} of "
        f"{f['quantized']['faces']} faces again and gives them the same class. The "
        "folds were measured "
        f"in {f['measured_in']}."
    )


def _folds(cross: dict[str, Any], original: dict[str, Any]) -> str:
    rows = []
    for name, value in cross["mean"].items():
        each = [fold[name] for fold in cross["each"]]
        spread = f"{min(each):.3f} to {max(each):.3f}"
        rows.append((_figure_name(name), f"{value:.3f}", spread, f"{original['mean'][name]:.3f}"))
    low, high = cross["pooled"]["map_50_interval_95"]
    return (
        f"By image, {len(cross['folds'])} of 5 folds, each by a detector that had seen neither its "
        "images nor copies of them. All their detections together give an mAP@50 of "
        f"{cross['pooled']['map_50']:.3f} (95 %: {low:.3f} to {high:.3f}) on the corrected "
        f"annotations of {cross['pooled']['pictures']} images.\n\n"
        + _markdown(("figure", "mean of the folds", "least to most", "original annotations"), rows)
    )


def _figure_name(name: str) -> str:
    if name == "map_50":
        return "mAP@50"
    if name == "recall_20px_at_precision_90":
        return "recall of faces of 20 px and more at precision 0.90"
    return f"AP@50 {plain_words(name)}"


def _table(pooled: dict[str, Any]) -> str:
    rows = pooled["rows"]
    return f"At a score of {pooled['threshold']:.2f} or more, in % with 95 % intervals:\n\n" + (
        _markdown(
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
    )


def _shifts(shifts: dict[str, dict[str, Any]]) -> str:
    rows = [
        (
            name,
            str(found["images"]),
            f"{found['faces_20px']:,}",
            _part(found["recall_20px"], found["recall_20px_interval_95"]),
            _part(found["accuracy"]),
            f"{100 * found['gaps']['face']:.1f} / {100 * found['gaps']['class']:.1f}",
        )
        for name, found in shifts.items()
    ]
    return (
        "The same images changed: a tenth as bright, out of focus by two pixels, four tenths as "
        "large, turned by so many degrees. None of other origins is at hand; on such, figures are "
        "lower. Faces of 20 px and more, at the threshold; in %, and the points by which stated "
        "confidences (face / class) differ from the truth on average:\n\n"
        + _markdown(("images", "count", "faces", "found", "class right", "confidence gap"), rows)
    )


def _empty(empty: dict[str, Any]) -> str:
    worst = ", ".join(f"{name} ({n} of {empty['detectors']})" for name, n in empty["worst"])
    return (
        f"Of {empty['images']} images without a face, none trained on (scikit-image's other "
        "samples, CIFAR-10's test images side by side, textures), "
        f"{_part(empty['alarmed_rate'], empty['alarmed_interval_95'])} % have a false positive: "
        f"{worst or 'none'}."
    )


def _origins(found: dict[str, dict[str, Any]]) -> str:
    if not found:
        return (
            "No annotated images of another origin were at hand, so there are no figures of this "
            "detector on such. Those of the detector before it fell there: on 1,570 photographs "
            "from the web AP@50 0.76 with mask, 0.71 without, 0.49 worn improperly (0.92, 0.87 and "
            "0.79 on kept-back images of the set), and of webcam faces of 20 px and more it found "
            "0.75 where YuNet finds 0.84. `python -m benchmarks.release.detector_card FACES "
            "--origin NAME=FOLDER` adds the figures of annotated images of your own."
        )
    rows = []
    for name, figures in found.items():
        low, high = figures["map_50_interval_95"]
        whole = figures["overall"]
        each = (
            "-" if value is None else f"{value:.3f} ({interval[0]:.2f}-{interval[1]:.2f})"
            for value, interval in zip(figures["ap_50"], figures["ap_50_intervals_95"], strict=True)
        )
        rows.append(
            (
                f"{name} (SHA-256 {figures['sha256'][:16]})",
                f"{figures['pictures']:,}",
                f"{figures['faces']:,}",
                *each,
                f"{figures['map_50']:.3f} ({low:.2f}-{high:.2f})",
                _part(whole["recall"], whole["recall_interval_95"]),
                _part(whole["precision"], whole["precision_interval_95"]),
                f"{100 * figures['gaps']['face']:.1f} / {100 * figures['gaps']['class']:.1f}",
            )
        )
    kinds = [plain_words(name) for name in next(iter(found.values()))["class_names"]]
    head = ("images of", "count", "faces", *(f"AP@50 {kind}" for kind in kinds), "mAP@50")
    return (
        "The detector that ships, on annotated images from elsewhere, with 95 % intervals. Box "
        "conventions differ between sets, so that boxes count less at IoU 0.5 than they are worth; "
        "recall and precision in %, confidence gaps (face / class) in points:\n\n"
        + _markdown((*head, "recall", "precision", "confidence gap"), rows)
    )


def _judged(rows: list[dict[str, Any]]) -> str:
    return (
        "A face that is found is judged when its class is certain enough to be right in 95 % of "
        "such answers at its size. On all images, and the dark, blurred and far ones:\n\n"
        + _markdown(
            ("faces", "found", "judged, %", "of these right, %"),
            [
                (
                    row["name"],
                    f"{row['found']:,}",
                    _part(row["judged"] / row["found"] if row["found"] else None),
                    _part(
                        row["right"] / row["judged"] if row["judged"] else None,
                        row["accuracy_interval_95"],
                    ),
                )
                for row in rows
            ],
        )
    )


def _hidden(hidden: dict[str, Any]) -> str:
    return (
        f"`--blur` hides the heads of what may be faces from a score of {hidden['threshold']:g} on "
        "(a lower threshold than counts as a face). Of "
        f"{hidden['faces']:,} annotated faces of {hidden['least_side']:g} px and more "
        f"{_part(hidden['visible_rate'], hidden['visible_interval_95'])} % stay visible (less than "
        "80 % of the box covered)."
    )


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
        wrong: Counter[str] = Counter()
        for name, said in found["confusion"].items():
            wrong.update({plain_words(k): n for k, n in said.items() if k != name})
        bare = "without_mask" in found["confusion"]
        rows.append(
            (
                kind,
                str(found["faces"]),
                _part(found["recall"], found["recall_interval_95"]),
                _part(found["accuracy"], found["accuracy_interval_95"]),
                _part(found["called_masked_rate"], found["called_masked_interval_95"])
                if bare
                else "-",
                ", ".join(f"{words} {n}" for words, n in wrong.most_common()) or "-",
            )
        )
    return (
        "What detectors of masks are known to mistake, composed from images not trained on: hands, "
        "beards, scarves and niqabs drawn over bare faces, masks dyed or printed, narrow faces as "
        "they are, faces that fill the image. Training has such drawings too, made by other code. "
        "In %:\n\n"
        + _markdown(
            ("faces", "count", "found", "class right", "called masked", "mistaken for"), rows
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
            lines.append(f"- {norm}: none was made to be classified as masked")
            continue
        unit, factor = ("/255 a value", 255) if norm == "linf" else ("", 1)
        name = {"linf": "Linf", "l2": "L2"}[norm]
        lines.append(
            f"- {name}: {right['count']} are classified right as they are; {passed['reached']} of "
            f"{passed['of']} of these are classified as masked after a change of {name} "
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
