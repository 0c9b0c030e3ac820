"""The settings and results of a shift measurement, and its figures by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from unmask.errors import MAX_SEED, UserError, require_whole, unknown
from unmask.shift.corruptions.registry import HIGHEST, corruptions
from unmask.shift.geometry import WorstCase
from unmask.shift.pipeline import Mistake
from unmask.shift.runtimes import RuntimeResult
from unmask.shift.scores import Scores
from unmask.verdict import Verdict

# Errors of AlexNet on ImageNet-C, mean over five severities (Hendrycks & Dietterich, 2019).
ALEXNET = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
_IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class ShiftPlan:
    """Every setting of a shift measurement.

    Args:
        corruptions: names; () for all that suit the images.
        severities: whole ones or any in (0, 5], increasing.
        images: how many, spread evenly over those given.
        drop: the loss of accuracy whose smallest severity is searched for.
        seed: of everything random.
        smallest: whether the smallest severity is searched for, by bisection.
        geometry: whether the worst rotation and translation is searched for.
        pipeline: whether mistakes of the pipeline are tried.
        runtimes: whether other runtimes are tried.
        compiled: whether torch.compile is one of them.
        fixes: whether a temperature and new batch-norm statistics are tried.

    Raises:
        UserError: when a setting is out of range or unknown.
    """

    corruptions: tuple[str, ...] = ()
    severities: tuple[float, ...] = (1, 2, 3, 4, 5)
    images: int = 1000
    drop: float = 0.1
    seed: int = 0
    smallest: bool = True
    geometry: bool = True
    pipeline: bool = True
    runtimes: bool = True
    compiled: bool = False
    fixes: bool = True

    def __post_init__(self) -> None:
        known = corruptions()
        for name in self.corruptions:
            if name not in known:
                raise unknown("corruption", name, known)
        s = self.severities
        if not s or list(s) != sorted(set(s)) or not 0 < s[0] <= s[-1] <= HIGHEST:
            raise UserError("severities must grow from above 0 to 5", got=s, do="give 1 2 3 4 5")
        require_whole("number of images", self.images, 1, MAX_SEED)
        require_whole("seed", self.seed, 0, MAX_SEED)
        if not 0 < self.drop < 1:
            raise UserError("the drop must lie between 0 and 1", got=self.drop, do="0.1 is usual")


def figure_names(plan: ShiftPlan) -> list[str]:
    """Return the names of all figures that a measurement by this plan may have for a gate."""
    of_all = ["clean_accuracy", "ece", "confidence", "auroc", "flip_rate", "mce"]
    errors = ["mean_corruption_error", "relative_corruption_error"]
    kinds = ("accuracy", "worst_accuracy", "ece", "auroc")
    cells = [f"{kind}_at_severity_{severity:g}" for severity in plan.severities for kind in kinds]
    return [*of_all, *errors, *cells, *(["worst_geometry_accuracy"] if plan.geometry else [])]


@dataclass(frozen=True)
class Temperature:
    """A temperature fitted on one half of the images, and its effect on the other.

    Args:
        temperature: that the logits are divided by, above 0.
        ece_before: the expected calibration error without it.
        ece_after: with it.
    """

    temperature: float
    ece_before: float
    ece_after: float


@dataclass(frozen=True)
class Adapted:
    """Accuracy under a corruption at severity 3 before and after new batch-norm statistics.

    Args:
        corruption: its name.
        before: the accuracy with the model's own statistics.
        after: with those of the corrupted images.
    """

    corruption: str
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class Shift:
    """The result of a shift measurement.

    Args:
        model: its name.
        data: the name of the images.
        class_names: in the order of the logits.
        class_counts: images of each class.
        plan: the settings.
        clean: scores of the unchanged images.
        cells: by corruption, the scores at each severity of the plan.
        flips: by corruption, the mean fraction of predictions that change from one severity to the
            next, from 0 on.
        smallest: by corruption, the smallest severity that costs plan.drop of accuracy; None where
            5 doesn't.
        framings: accuracy with another framing.
        geometry: the worst case of a grid, or None.
        mistakes: of the pipeline, with pixel values.
        file_mistakes: of the pipeline, with image files.
        runtimes: the agreement of other runtimes.
        temperature: the effect of calibration, or None.
        adapted: the effect of new batch-norm statistics.
        provenance: what is needed to replay it.
        verdicts: worst first.
        not_finite: how many unchanged images get logits that are NaN or infinite, which count as
            wrong.
        not_finite_weights: the name of the model's weights that hold NaN or infinity, "" for none.
        variation: the difference of two passes of the same images, as a fraction of the largest
            logit; where it is more than rounding nothing else can be compared and only the
            accuracies are measured.
        labels_only: whether the model returns the class alone, without confidence.
    """

    model: str
    data: str
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    plan: ShiftPlan
    clean: Scores
    cells: dict[str, tuple[Scores, ...]]
    flips: dict[str, float]
    smallest: dict[str, float | None]
    framings: dict[str, float] = field(default_factory=dict)
    geometry: WorstCase | None = None
    mistakes: list[Mistake] = field(default_factory=list)
    file_mistakes: list[Mistake] = field(default_factory=list)
    runtimes: list[RuntimeResult] = field(default_factory=list)
    temperature: Temperature | None = None
    adapted: list[Adapted] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    not_finite: int = 0
    not_finite_weights: str = ""
    variation: float = 0.0
    labels_only: bool = False

    def at_severity(self, severity: float) -> dict[str, Scores]:
        """Return the scores of each corruption at a severity of the plan; empty for another."""
        if severity not in self.plan.severities:
            return {}
        place = self.plan.severities.index(severity)
        return {name: row[place] for name, row in self.cells.items()}

    def figures(self) -> dict[str, float]:
        """Return the figures by name, as --fail-if knows them."""
        found = {
            "clean_accuracy": self.clean.accuracy,
            "ece": self.clean.ece,
            "confidence": self.clean.confidence,
        }
        if self.clean.auroc is not None:
            found["auroc"] = self.clean.auroc
        for severity in self.plan.severities:
            cells = list(self.at_severity(severity).values())
            if not cells:
                continue
            end = f"at_severity_{severity:g}"
            found[f"accuracy_{end}"] = sum(c.accuracy for c in cells) / len(cells)
            found[f"worst_accuracy_{end}"] = min(c.accuracy for c in cells)
            found[f"ece_{end}"] = sum(c.ece for c in cells) / len(cells)
            areas = [c.auroc for c in cells if c.auroc is not None]
            if areas:
                found[f"auroc_{end}"] = sum(areas) / len(areas)
        errors = {k: sum(1 - c.accuracy for c in row) / len(row) for k, row in self.cells.items()}
        if errors:
            clean_error = 1 - self.clean.accuracy
            found["mean_corruption_error"] = sum(errors.values()) / len(errors)
            found["relative_corruption_error"] = found["mean_corruption_error"] - clean_error
            found["flip_rate"] = sum(self.flips.values()) / len(self.flips)
        if len(self.class_names) == _IMAGENET_CLASSES and set(ALEXNET) <= set(errors):
            found["mce"] = sum(errors[k] / ALEXNET[k] for k in ALEXNET) / len(ALEXNET)
        if self.geometry is not None:
            found["worst_geometry_accuracy"] = self.geometry.worst
        return found

    @property
    def worst_classes(self) -> list[tuple[str, float, float | None]]:
        """(class, clean recall, mean recall at severity 3 or None), the worst first."""
        cells = list(self.at_severity(3).values())
        found = []
        for k, name in enumerate(self.class_names):
            clean = self.clean.recall[k]
            if clean is None:
                continue
            shifted = [r for c in cells if (r := c.recall[k]) is not None]
            found.append((name, clean, sum(shifted) / len(shifted) if shifted else None))
        return sorted(found, key=lambda x: x[1] if x[2] is None else x[2])

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "model": self.model,
            "data": self.data,
            "plan": asdict(self.plan),
            "figures": self.figures(),
            "clean": self.clean.as_dict(),
            "corruptions": {
                name: {
                    "severities": [c.as_dict() for c in row],
                    "flip_rate": self.flips[name],
                    "smallest_severity": self.smallest.get(name),
                }
                for name, row in self.cells.items()
            },
            "variation": self.variation,
            "framings": self.framings,
            "geometry": None if self.geometry is None else self.geometry.as_dict(),
            "pipeline": [m.as_dict() for m in [*self.mistakes, *self.file_mistakes]],
            "runtimes": [r.as_dict() for r in self.runtimes],
            "temperature": None if self.temperature is None else asdict(self.temperature),
            "batch_norm": [asdict(a) for a in self.adapted],
            "classes": [
                {"name": n, "recall": c, "recall_at_severity_3": s}
                for n, c, s in self.worst_classes
            ],
            "verdicts": [v.as_dict() for v in self.verdicts],
            "provenance": self.provenance,
        }

    def __str__(self) -> str:
        lines = [f"{k} {v:.4f}" for k, v in self.figures().items()]
        return "\n".join([f"{self.model} on {self.data}", *lines, *map(str, self.verdicts)])
