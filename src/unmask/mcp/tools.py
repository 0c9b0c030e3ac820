"""What an assistant can ask: each tool takes plain values and returns plain values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from unmask.errors import UserError

LONGEST_MINUTES = 30.0
MOST_IMAGES = 2000


def check(
    model: str,
    data: str,
    minutes: float = 1.0,
    questions: list[str] | None = None,
    eps: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Find out what is wrong with an image classifier: all questions at once, within a time.

    Args:
        model: a name that ships (mnist, cifar10), a .safetensors or .onnx file, an import path
            "my_module:make_model", "timm:NAME" or "hf:FOLDER".
        data: mnist, cifar10, or a folder or zip of images with a folder for each class.
        minutes: the time allowed, at most 30; samples are as large as fit.
        questions: some of preflight, accuracy, data, flow, shift, audit, certificate.
        eps: the size of the audit's changes of pixels in [0, 1].
        seed: of everything random.

    Returns:
        passed, figures, the verdicts (kind, severity, message, cause, fix), worst first, and what
        was skipped and why.
    """
    from unmask.check.run import check_model

    if not 0 < minutes <= LONGEST_MINUTES:
        raise UserError(
            f"a check takes more than 0 and at most {LONGEST_MINUTES:g} minutes", got=minutes
        )
    found = check_model(
        model, data, minutes=minutes, questions=tuple(questions or ()), eps=eps, seed=seed
    )
    return _answer(
        {
            "model": found.model,
            "data": found.data,
            "passed": found.healthy,
            "verdicts": [v.as_dict() for v in found.verdicts],
            "figures": found.figures(),
            "limits": {p.name: f"{p.status}: {p.reason}" for p in found.parts if p.reason},
            "seconds": round(found.seconds, 1),
            "provenance": found.provenance,
        }
    )


def audit(
    model: str,
    data: str,
    eps: float | None = None,
    norm: Literal["linf", "l2"] = "linf",
    images: int = 100,
    seed: int = 0,
) -> dict[str, Any]:
    """Attack a classifier with an ensemble: its accuracy under attack, and whether to believe it.

    Args:
        model: as check takes it.
        data: as check takes it.
        eps: the largest change of pixels in [0, 1]; 8/255 in linf for colour, 0.3 for grey.
        norm: how changes are measured.
        images: how many to attack, at most 2,000; 100 take a minute or several on a processor.
        seed: of everything random.

    Returns:
        Clean and robust accuracy with 95 % intervals, and the warnings about the figure itself.
    """
    from unmask.fool.audit.run import audit as run

    if not 1 <= images <= MOST_IMAGES:
        raise UserError(f"images lie in 1 to {MOST_IMAGES:,}", got=images)
    found = run(model, data, eps=eps, norm=norm, images=images, pairs=0, seed=seed)
    told = found.as_dict()
    kept = ("model", "data", "norm", "clean_accuracy", "robust_accuracy_of_all")
    return _answer(
        {
            **{name: told[name] for name in kept},
            "images": len(found.worst),
            "verdicts": [v.as_dict() for v in found.verdicts],
            "figures": found.figures(),
        }
    )


def detect(image: str, threshold: float | None = None) -> dict[str, Any]:
    """Find faces in a photograph, and whether each wears a mask, wears it wrongly, or none.

    Args:
        image: the path of an image file.
        threshold: the confidence from which on a box counts, in (0, 1]; the detector's own if none.

    Returns:
        The image's size, and for every face its box (left, top, right, bottom in pixels), class,
        confidence that it is a face, and calibrated probabilities of the classes.
    """
    from unmask.mask.runtime.detector import MaskDetector

    path = Path(image)
    if not path.is_file():
        raise UserError("there is no such image", got=image, do="give the path of a file")
    found = MaskDetector.load().detect(path, threshold=threshold)
    faces = [
        {
            "box": [round(float(side), 1) for side in box],
            "class": "not_judged" if label < 0 else found.class_names[label],
            "confidence": round(float(score), 4),
            "probabilities": {
                name: round(float(p), 4)
                for name, p in zip(found.class_names, probabilities, strict=True)
            },
        }
        for box, label, score, probabilities in zip(
            found.boxes, found.labels, found.scores, found.probabilities, strict=True
        )
    ]
    return _answer({"width": found.width, "height": found.height, "faces": faces})


_COMMANDS = {
    "flow": ("unmask flow check MODEL --repair", "docs/flow.md"),
    "data": ("unmask data audit DATA", "docs/check.md"),
    "check": ("unmask check MODEL DATA", "docs/check.md"),
    "shift": ("unmask shift MODEL DATA", "docs/shift.md"),
    "fool": ("unmask fool audit MODEL DATA", "docs/audit.md"),
}


def explain_verdict(kind: str) -> dict[str, Any]:
    """Say what a kind of verdict means, which question finds it, and how to look closer.

    Args:
        kind: as in a verdict, such as "vanishing", "leak" or "preprocessing".

    Returns:
        The meaning, the question, the command that measures it alone, and the guide.
    """
    from unmask.report.kinds import explain

    question, meaning = explain(kind)
    command, guide = _COMMANDS[question]
    return {
        "kind": kind,
        "meaning": meaning,
        "question": question,
        "command": command,
        "guide": guide,
        "severities": {
            "error": "the classifier is predicted to fail at its task",
            "warning": "a figure can't be trusted, or something is lost",
            "note": "worth knowing",
        },
    }


def _answer(values: dict[str, Any]) -> dict[str, Any]:
    return {name: plain(value) for name, value in values.items()}


def plain(value: Any) -> Any:
    """Return a value as JSON has it: numbers that JSON lacks become None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
