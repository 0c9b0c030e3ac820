"""The result of an audit of a labelled set of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from unmask.data.audit_labels import LabelErrors
from unmask.verdict import Verdict

Group = Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Shortcut:
    """The accuracy with which something unrelated to the class predicts it.

    Args:
        name: of the measure, such as "border pixels".
        images: how many.
        accuracy: cross-validated, of a linear model.
        chance: the fraction of the most common class.
    """

    name: str
    images: int
    accuracy: float
    chance: float


@dataclass(frozen=True, eq=False)
class DataAudit:
    """The findings in a set of images; places are indices into a part, such as "test".

    Args:
        name: of the set.
        counts: images by part and class.
        copies: groups of equal images, each a list of (part, place).
        near: pairs of nearly equal images, each two (part, place).
        conflicts: groups of equal images with different labels.
        label_errors: by part, likely label errors.
        outliers: by part and measure, the places of images far from all others.
        shortcuts: measures that predict the class but shouldn't.
        verdicts: worst first.
        provenance: what is needed to replay it.
    """

    name: str
    counts: dict[str, dict[str, int]]
    copies: list[list[tuple[str, int]]]
    near: list[list[tuple[str, int]]]
    conflicts: list[list[tuple[str, int]]]
    label_errors: dict[str, LabelErrors]
    outliers: dict[str, dict[str, list[int]]]
    shortcuts: list[Shortcut]
    verdicts: list[Verdict]
    provenance: dict[str, Any] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """Return the figures by name, as --fail-if knows them."""
        total = sum(sum(by.values()) for by in self.counts.values())
        found: dict[str, float] = {
            "images": total,
            "duplicates": sum(len(g) - 1 for g in self.copies),
            "near_duplicates": len(self.near),
            "leaks": sum(crosses(g) for g in self.copies),
            "near_leaks": sum(crosses(p) for p in self.near),
            "conflicting_labels": len(self.conflicts),
        }
        for part, errors in self.label_errors.items():
            found[f"label_errors_{part}"] = len(errors.rows)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "name": self.name,
            "figures": self.figures(),
            "counts": self.counts,
            "copies": self.copies,
            "near_duplicates": self.near,
            "conflicting_labels": self.conflicts,
            "label_errors": {
                part: {
                    "images": e.images,
                    "model_accuracy": e.accuracy,
                    "surest": [list(pair) for pair in e.surest],
                    "rows": e.rows.tolist(),
                    "suggested": e.suggested.tolist(),
                    "confidence": e.confidence.tolist(),
                }
                for part, e in self.label_errors.items()
            },
            "outliers": self.outliers,
            "shortcuts": [s.__dict__ for s in self.shortcuts],
            "verdicts": [v.as_dict() for v in self.verdicts],
            "provenance": self.provenance,
        }


def crosses(group: Group) -> bool:
    """Return whether images, each a (part, place), are in several parts."""
    return len({part for part, _ in group}) > 1
