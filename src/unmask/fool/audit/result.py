"""The result of an audit, and the figures that follow from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UserError
from unmask.fool.audit.diagnosis import Diagnosis, Watched
from unmask.fool.audit.plan import AuditPlan
from unmask.fool.audit.preflight import Preflight
from unmask.fool.audit.records import AttackRecord, Pairs, Worst, read_arrays, write_arrays
from unmask.saved_state import reading
from unmask.stats import wilson
from unmask.verdict import Verdict

_ROUNDING = 1e-5
# A change of every pixel by this fraction of its range is hardly visible.
_UNSEEN = 8 / 255
_QUANTILES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
_FORMAT = "unmask-audit/1"
# The fraction of images that a black box may fool beyond all gradients before these are doubted.
_BLACK_BOX = 0.05


@dataclass(frozen=True)
class Share:
    """A fraction of some images with its 95 % confidence interval (Wilson, 1927).

    Args:
        count: the images counted.
        of: all images.
    """

    count: int
    of: int

    @property
    def value(self) -> float:
        """The fraction; NaN of no images."""
        return self.count / self.of if self.of else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the fraction."""
        return wilson(self.count, self.of)

    def as_dict(self) -> dict[str, Any]:
        """Return count, denominator, value and interval."""
        return {
            "count": self.count,
            "of": self.of,
            "value": self.value if self.of else None,
            "interval_95": list(self.interval),
        }


def figure_names(plan: AuditPlan) -> list[str]:
    """Return the names of the figures that an audit by this plan has for a gate."""
    sizes = [f"robust_accuracy_at_{eps:g}" for eps in plan.eps]
    changes = [f"{name}_{plan.norm}" for name in (*_QUANTILES, "mean")]
    return ["clean_accuracy", "robust_accuracy", "fooled", "warnings", *sizes, *changes]


@dataclass(frozen=True)
class Audit:
    """An audit of one model on some images; every figure is the judge's, not an attack's own.

    Args:
        model: its name.
        data: the name of the images.
        class_names: in the order of the logits.
        plan: the settings.
        worst: the nearest adversarial image of each image over the whole ensemble.
        pairs: the smallest changes towards other classes; None where none were wanted.
        records: one for each attack and eps, summed over all images.
        unstable: how many adversarial images get another prediction in another pass.
        examples: the nearest adversarial image of each class, uint8[k, c, h, w].
        example_rows: the images that these come from, int64[k].
        preflight: the measurements before the attacks.
        diagnosis: the indicators of attack failure.
        stamp: the provenance.
        failures: a line for each shard that could not be attacked; its images are missing.
    """

    model: str
    data: str
    class_names: tuple[str, ...]
    plan: AuditPlan
    worst: Worst
    pairs: Pairs | None
    records: tuple[AttackRecord, ...]
    unstable: int
    examples: NDArray[np.uint8]
    example_rows: NDArray[np.int64]
    preflight: Preflight
    diagnosis: Diagnosis
    stamp: dict[str, Any]
    failures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.examples) != len(self.example_rows):
            raise ValueError("an Audit's examples have one row each")

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which images the model classifies correctly, bool[n]."""
        right: NDArray[np.bool_] = self.worst.clean == self.worst.labels
        return right

    @property
    def clean(self) -> Share:
        """The clean accuracy."""
        return Share(int(self.right.sum()), len(self.worst))

    def robust(self, eps: float) -> Share:
        """Return the robust accuracy: the fraction of all images that no attack fooled within eps.

        An image that the model misclassifies unchanged counts as fooled.

        Args:
            eps: in units of pixels in [0, 1], in l0 a number of values.
        """
        return Share(int((self.worst.size > eps + _ROUNDING).sum()), len(self.worst))

    def fooled(self, eps: float) -> Share:
        """Return the fraction of correctly classified images that some attack fooled within eps."""
        sizes = self.worst.size[self.right]
        return Share(int((sizes <= eps + _ROUNDING).sum()), len(sizes))

    @property
    def reach(self) -> float:
        """A size a tenth beyond those of the plan and nearly all changes found."""
        found = self.worst.size[np.isfinite(self.worst.size)]
        return 1.1 * max([*self.plan.eps, float(np.quantile(found, 0.99)) if len(found) else 0.0])

    def curve(
        self, end: float, points: int = 201
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return sizes from 0 to end and the robust accuracy at each, float64[points] each."""
        sizes = np.linspace(0, end, points)
        counts = (self.worst.size[None, :] > sizes[:, None] + _ROUNDING).mean(1)
        return sizes, counts

    @property
    def smallest(self) -> dict[str, float | None]:
        """The quantiles and the mean of the smallest change in the audit's norm.

        They are over the images classified correctly; one that nothing fooled counts as infinite in
        the quantiles, and a quantile that is infinite is None. The mean is over those fooled.
        """
        sizes = np.sort(self.worst.size[self.right])
        found = sizes[np.isfinite(sizes)]
        figures: dict[str, float | None] = {}
        for name, part in _QUANTILES.items():
            at = sizes[min(int(part * len(sizes)), len(sizes) - 1)] if len(sizes) else np.inf
            figures[name] = float(at) if np.isfinite(at) else None
        figures["mean"] = float(found.mean()) if len(found) else None
        return figures

    @property
    def meaning(self) -> str:
        """The meaning of the smallest changes, in one sentence."""
        half = self.smallest["median"]
        if not self.clean.value:
            return "It gets no image right, so that there was none to attack."
        if half is None:
            return "No attack fooled half of the images that it gets right, at any size tried."
        pixels = self.examples[0].size if len(self.examples) else 0
        if self.plan.norm == "l0":
            return (
                f"Half of the images that it gets right are fooled by changing {half:.0f} of their "
                f"values or fewer."
            )
        if self.plan.norm in ("l1", "l2"):
            whole = pixels if self.plan.norm == "l1" else pixels**0.5
            mean = 100 * half / whole if pixels else 0.0
            sees = f", {mean:.2g} % of the range of a pixel on average" if pixels else ""
        elif half <= _UNSEEN:
            sees = ", which hardly anyone sees"
        else:
            sees = f", {100 * half:.0f} % of the range of a pixel"
        return f"Half of the images that it gets right are fooled by a change of {half:.3g}{sees}."

    def __str__(self) -> str:
        norm, sizes = self.plan.norm, sorted(self.plan.eps)
        lines = [f"{self.model} on {len(self.worst):,} images of {self.data}"]
        shares = [("clean accuracy", self.clean)]
        shares += [(f"robust accuracy at {norm} {e:.3g}", self.robust(e)) for e in sizes]
        for name, share in shares:
            low, high = share.interval
            lines.append(f"{name}: {share.value:.1%} ({low:.1%} to {high:.1%})")
        return "\n".join([*lines, self.meaning, *map(str, self.verdicts)])

    @property
    def saved(self) -> Share:
        """Of the adversarial images found, the fraction that still fools as an 8-bit image."""
        found = self.worst.by >= 0
        return Share(int(self.worst.saved[found].sum()), int(found.sum()))

    @property
    def black_box_gain(self) -> int:
        """How many images a black box fooled at a size where all gradients before had failed."""
        gradients = any(r.needs_gradient for r in self.records)
        return sum(r.nearer for r in self.records if not r.needs_gradient and r.eps) * gradients

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Every reason not to take the figures at face value."""
        found = [*self.preflight.verdicts, *self.diagnosis.verdicts]
        if self.failures:
            found.append(
                Verdict(
                    "incomplete",
                    "warning",
                    f"{len(self.failures)} parts could not be attacked and are left out: "
                    + "; ".join(self.failures),
                    "run the same command with --resume, which attacks these alone",
                )
            )
        failing = int(((self.worst.by >= 0) & (self.worst.predicted < 0)).sum())
        if failing:
            found.append(
                Verdict(
                    "not_finite_near",
                    "error",
                    f"{failing} images are changed a little and get logits that are NaN or "
                    "infinite; they count as fooled",
                    "find the operation that overflows or divides by 0",
                )
            )
        attacked = int((self.worst.by >= 0).sum())
        if attacked and self.unstable > 0.01 * attacked:
            found.append(
                Verdict(
                    "unstable_predictions",
                    "warning",
                    f"{self.unstable} of {attacked} adversarials get another prediction in another "
                    "forward pass",
                    "switch the model's randomness off",
                )
            )
        gain = self.black_box_gain
        if gain > _BLACK_BOX * self.clean.count:
            found.append(
                Verdict(
                    "black_box_beats_gradients",
                    "warning",
                    f"a black box fooled {gain} of {self.clean.count} images on which every "
                    "gradient had failed",
                    "look for what masks the gradients",
                )
            )
        return tuple(found)

    def matrix(self, name: str) -> NDArray[np.float64]:
        """Return a figure by true class (row) and target class (column).

        Args:
            name: "success", the fraction of the pairs reached; "l2", "linf" or "similarity", means
                over those reached.

        Returns:
            float64[k, k]; NaN on the diagonal and where there is no pair.
        """
        k = len(self.class_names)
        total, count = np.zeros((k, k)), np.zeros((k, k))
        if self.pairs is not None:
            counted = np.ones_like(self.pairs.reached) if name == "success" else self.pairs.reached
            values = self.pairs.reached if name == "success" else getattr(self.pairs, name)
            at = (self.pairs.labels[counted], self.pairs.targets[counted])
            np.add.at(total, at, values[counted].astype(np.float64))
            np.add.at(count, at, 1)
        with np.errstate(invalid="ignore"):
            table: NDArray[np.float64] = total / np.where(count > 0, count, np.nan)
        return table

    def shown_classes(self, most: int = 20) -> list[int]:
        """Return the classes that a matrix shows: all, or the most easily confused of many."""
        k = len(self.class_names)
        if k <= most or self.pairs is None:
            return list(range(min(k, most)))
        size = self.pairs.linf if self.plan.norm == "linf" else self.pairs.l2
        chosen: list[int] = []
        for i in np.argsort(np.where(self.pairs.reached, size, np.inf), kind="stable"):
            for c in (int(self.pairs.labels[i]), int(self.pairs.targets[i])):
                if c not in chosen and len(chosen) < most:
                    chosen.append(c)
        return sorted(chosen)

    def figures(self) -> dict[str, float]:
        """Return the figures that a gate may name, figure_names; infinity where nothing fooled.

        robust_accuracy is that of all images at the largest eps, fooled the fraction of those
        classified correctly there, warnings the number of those and of errors, without notes.
        """
        largest = max(self.plan.eps)
        named: dict[str, float] = {
            "clean_accuracy": self.clean.value,
            "robust_accuracy": self.robust(largest).value,
            "fooled": self.fooled(largest).value,
            "warnings": float(sum(v.severity != "note" for v in self.verdicts)),
        }
        for eps in self.plan.eps:
            named[f"robust_accuracy_at_{eps:g}"] = self.robust(eps).value
        for name, value in self.smallest.items():
            named[f"{name}_{self.plan.norm}"] = float("inf") if value is None else value
        return named

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain values, with their denominators."""
        pairs = self.pairs
        return {
            "format": _FORMAT,
            "model": self.model,
            "data": self.data,
            "norm": self.plan.norm,
            "pictures": len(self.worst),
            "clean_accuracy": self.clean.as_dict(),
            "robust_accuracy_of_all": {f"{e:g}": self.robust(e).as_dict() for e in self.plan.eps},
            "fooled_of_those_right": {f"{e:g}": self.fooled(e).as_dict() for e in self.plan.eps},
            "smallest_change_of_those_right": self.smallest,
            "fooled_as_8_bit_of_adversarials": self.saved.as_dict(),
            "attacks": [asdict(r) for r in self.records],
            "pairs": None
            if pairs is None
            else {
                "pairs": len(pairs.rows),
                "reached": Share(int(pairs.reached.sum()), len(pairs.rows)).as_dict(),
                "classes": [self.class_names[c] for c in self.shown_classes()],
                **{
                    n: _plain(self.matrix(n)[np.ix_(self.shown_classes(), self.shown_classes())])
                    for n in ("success", "l2", "linf", "similarity")
                },
            },
            "warnings": [_as_dict(v) for v in self.verdicts],
            "preflight": self.preflight.figures,
            "diagnosis": {
                "pictures": self.diagnosis.pictures,
                "unconstrained": self.diagnosis.unconstrained,
                "watched": [asdict(w) for w in self.diagnosis.watched],
            },
            "unstable": self.unstable,
            "failures": list(self.failures),
            "black_box_gain": self.black_box_gain,
            "plan": self.plan.as_dict(),
            "stamp": self.stamp,
        }

    def save(self, path: Path) -> None:
        """Write everything as one NPZ file, whole or not at all."""
        arrays = self.worst.as_arrays()
        if self.pairs is not None:
            arrays |= {f"pairs_{k}": v for k, v in self.pairs.__dict__.items()}
        arrays |= {"examples": self.examples, "example_rows": self.example_rows}
        header = {
            "format": _FORMAT,
            "model": self.model,
            "data": self.data,
            "class_names": self.class_names,
            "plan": self.plan.as_dict(),
            "records": [asdict(r) for r in self.records],
            "unstable": self.unstable,
            "failures": self.failures,
            "preflight": {
                **self.preflight.figures,
                "findings": [v.as_dict() for v in self.preflight.verdicts],
            },
            "diagnosis": {
                "pictures": self.diagnosis.pictures,
                "unconstrained": self.diagnosis.unconstrained,
                "watched": [asdict(w) for w in self.diagnosis.watched],
                "findings": [v.as_dict() for v in self.diagnosis.verdicts],
            },
            "stamp": self.stamp,
        }
        write_arrays(path, arrays, header)

    @staticmethod
    def load(path: Path) -> Audit:
        """Read what save wrote.

        Args:
            path: of the NPZ file.

        Raises:
            UserError: when the file is missing or damaged.
        """
        arrays, h = read_arrays(path)
        if not isinstance(h, dict) or h.get("format") != _FORMAT:
            raise UserError(f"{path} is no audit", do="give an audit.npz that Unmask wrote")
        with reading(path):
            columns = {k.removeprefix("pairs_"): v for k, v in arrays.items() if k[:6] == "pairs_"}
            before, seen = h["preflight"], h["diagnosis"]
            audit = Audit(
                model=h["model"],
                data=h["data"],
                class_names=tuple(h["class_names"]),
                plan=AuditPlan.from_dict(h["plan"]),
                worst=Worst.from_arrays(arrays, path),
                pairs=Pairs.from_arrays(columns, path) if columns else None,
                records=tuple(AttackRecord(**r) for r in h["records"]),
                unstable=h["unstable"],
                examples=arrays["examples"],
                example_rows=arrays["example_rows"],
                preflight=_preflight(before),
                diagnosis=Diagnosis(
                    seen["pictures"],
                    seen["unconstrained"],
                    tuple(Watched(**w) for w in seen["watched"]),
                    _verdicts(seen["findings"]),
                ),
                stamp=h["stamp"],
                # Audits of earlier versions have none.
                failures=tuple(h.get("failures", ())),
            )
            audit.worst.check(len(audit.records), path)
        return audit


def _preflight(entries: dict[str, Any]) -> Preflight:
    figures = {k: v for k, v in entries.items() if k != "findings"}
    return Preflight(**figures, verdicts=_verdicts(entries["findings"]))


def _verdicts(entries: list[dict[str, Any]]) -> tuple[Verdict, ...]:
    """Return verdicts as they were saved; audits of 0.1 name the remedy "do"."""
    return tuple(
        Verdict(e["kind"], "warning", e["message"], e["do"]) if "do" in e else Verdict(**e)
        for e in entries
    )


def _as_dict(verdict: Verdict) -> dict[str, Any]:
    # "do" was the remedy's name in 0.1, which readers of the JSON expect.
    return {**verdict.as_dict(), "do": verdict.fix}


def _plain(table: NDArray[np.float64]) -> list[list[float | None]]:
    return [[None if np.isnan(v) else float(v) for v in row] for row in table]
