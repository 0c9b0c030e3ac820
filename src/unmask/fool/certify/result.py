"""The images that were proved and attacked, and the figures that follow."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unmask.errors import MAX_SEED, UserError, require_whole
from unmask.fool.norms import Threat
from unmask.runtime import write_atomically
from unmask.saved_state import check_array, check_keys, parse_json, read_arrays, reading
from unmask.stats import wilson
from unmask.verdict import Verdict

CertifyKind = Literal["attacked", "not_proved"]

WRONG, ATTACKED, OPEN, PROVED = "wrong", "attacked", "open", "proved"
STATUSES = (WRONG, ATTACKED, OPEN, PROVED)
STAGES = ("none", "ibp", "crown-ibp", "crown", "alpha-crown", "branch and bound")
FIGURES = ("clean", "proved", "attacked", "open", "robust_low", "robust_high")


@dataclass(frozen=True)
class CertifyPlan:
    """The property to prove, and the time and steps to spend on it.

    Args:
        eps: the largest change, in units of pixels in [0, 1].
        norm: "linf" or "l2".
        minutes: the time allowed.
        images: how many, spread evenly over those available.
        steps: of each attack and of the slopes' optimisation.
        seed: of the attacks.

    Raises:
        UserError: for values out of range.
    """

    eps: float
    norm: str = "linf"
    minutes: float = 10.0
    images: int = 1000
    steps: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise UserError("no bounds are known in this norm", got=self.norm, do="linf or l2")
        Threat.of(self.norm, self.eps)
        if not self.minutes > 0:
            raise UserError("there is no time to prove anything", got=self.minutes, do="give 1")
        for name, value, low in (
            ("number of images", self.images, 1),
            ("number of steps", self.steps, 1),
            ("seed", self.seed, 0),
        ):
            require_whole(name, value, low, MAX_SEED)

    @property
    def question(self) -> dict[str, Any]:
        """All settings but the time; a stored result must agree with them to be resumed."""
        return {k: v for k, v in asdict(self).items() if k not in ("minutes", "steps")}


@dataclass(eq=False)
class Certification:
    """The state of each of n images, to which further work only adds.

    Args:
        model: its name.
        identity: the SHA-256 of the model's weights.
        data: the name of the images.
        class_names: in the order of the logits.
        plan: what was asked.
        rows: the places of the images in the data, int64[n].
        labels: the true classes, int64[n].
        predicted: the classes predicted for the unchanged images, int64[n].
        status: an index into STATUSES, int8[n].
        stage: an index into STAGES, of the last that was tried, int8[n].
        bound: the best lower bound of the true logit less any other, float64[n]; -inf where there
            is none.
        seconds: spent so far.
        stamp: the provenance.
    """

    model: str
    identity: str
    data: str
    class_names: tuple[str, ...]
    plan: CertifyPlan
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    status: NDArray[np.int8]
    stage: NDArray[np.int8]
    bound: NDArray[np.float64]
    seconds: float
    stamp: dict[str, Any]

    def __len__(self) -> int:
        return len(self.rows)

    def count(self, status: str) -> int:
        """Return the number of images with that status."""
        return int((self.status == STATUSES.index(status)).sum())

    def interval(self, count: int) -> tuple[float, float]:
        """Return the 95 % confidence interval of a count of the images (Wilson)."""
        return wilson(count, len(self))

    def figures(self) -> dict[str, float]:
        """Return the fractions that conditions can be set on, by name: see FIGURES."""
        n = max(len(self), 1)
        return {
            "clean": (len(self) - self.count(WRONG)) / n,
            "proved": self.count(PROVED) / n,
            "attacked": self.count(ATTACKED) / n,
            "open": self.count(OPEN) / n,
            "robust_low": self.count(PROVED) / n,
            "robust_high": (self.count(PROVED) + self.count(OPEN)) / n,
        }

    def stages(self) -> list[tuple[str, int]]:
        """Return how many images each bound proved."""
        proved = self.stage[self._is(PROVED)]
        return [(name, int((proved == i).sum())) for i, name in enumerate(STAGES) if i]

    def verdicts(self) -> list[Verdict]:
        """Return what is wrong, each with its figures."""
        found = []
        n, right = len(self), len(self) - self.count(WRONG)
        attacked, open_, proved = self.count(ATTACKED), self.count(OPEN), self.count(PROVED)
        where = f"{self.plan.norm} {self.plan.eps:.4g}"
        if attacked:
            most = attacked / max(right, 1)
            found.append(
                Verdict(
                    kind="attacked",
                    severity="error" if most > 0.5 else "warning",
                    message=f"{attacked:,} of the {right:,} images that are classified correctly "
                    f"change class within {where}",
                    cause="there is an image within eps for each of them, found by APGD",
                    fix="train for it: unmask fool harden",
                    evidence={"attacked": attacked / n, "eps": self.plan.eps},
                )
            )
        if open_ > 0.01 * n:
            found.append(
                Verdict(
                    kind="not_proved",
                    severity="warning" if open_ > proved else "note",
                    message=f"{open_:,} of {n:,} images are neither proved nor attacked",
                    cause="the bounds are too loose for this network, or the time was too short",
                    fix="give more --minutes, a smaller eps, or a network trained for proofs: "
                    "unmask fool harden --certified",
                    evidence={"open": open_ / n, "proved": proved / n},
                )
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the images as plain JSON values."""
        n = len(self)
        counts = {s: self.count(s) for s in STATUSES}
        return {
            "model": self.model,
            "identity": self.identity,
            "data": self.data,
            "plan": asdict(self.plan),
            "images": n,
            "counts": counts,
            "intervals": {s: list(self.interval(c)) for s, c in counts.items()},
            "figures": self.figures(),
            "stages": dict(self.stages()),
            "verdicts": [v.as_dict() for v in self.verdicts()],
            "seconds": self.seconds,
            "stamp": self.stamp,
            "each": [
                {
                    "image": int(self.rows[i]),
                    "class": self.class_names[self.labels[i]],
                    "predicted": self.class_names[self.predicted[i]],
                    "status": STATUSES[self.status[i]],
                    "by": STAGES[self.stage[i]],
                    "bound": float(self.bound[i]) if np.isfinite(self.bound[i]) else None,
                }
                for i in range(n)
            ],
        }

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        head = {
            "format": "unmask-certification/1",
            "model": self.model,
            "identity": self.identity,
            "data": self.data,
            "class_names": self.class_names,
            "plan": asdict(self.plan),
            "seconds": self.seconds,
            "stamp": self.stamp,
        }
        buffer = io.BytesIO()
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        np.savez_compressed(buffer, head=np.array(json.dumps(head)), **arrays)
        with write_atomically(path) as file:
            file.write(buffer.getvalue())

    @staticmethod
    def load(path: Path) -> Certification:
        """Read what save wrote.

        Args:
            path: of the NPZ file.

        Raises:
            UserError: when it is missing or damaged.
        """
        if not path.exists():
            raise UserError("there is nothing to go on with", got=path, do="leave --resume away")
        arrays: dict[str, Any] = read_arrays(path)
        with reading(path):
            head = parse_json(str(arrays.pop("head")), path)
            check_keys(head, ("format", *_HEAD), path)
            if head.pop("format") != "unmask-certification/1":
                raise ValueError("another format")
            check_keys(arrays, _ARRAYS, path, "it")
            count = len(arrays["rows"])
            for name, dtype in _ARRAYS.items():
                check_array(arrays, name, path, dtype=dtype, shape=(count,))
            for name, kinds in (("status", STATUSES), ("stage", STAGES)):
                if count and not 0 <= arrays[name].min() <= arrays[name].max() < len(kinds):
                    raise ValueError(f"a {name} that isn't known")
            head["plan"] = CertifyPlan(**head["plan"])
            head["class_names"] = tuple(head["class_names"])
            return Certification(**head, **arrays)

    def _is(self, status: str) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.status == STATUSES.index(status)
        return found

    def __str__(self) -> str:
        f = self.figures()
        return (
            f"{self.model} on {len(self):,} images of {self.data}, {self.plan.norm} "
            f"{self.plan.eps:.4g}: proved robust for {f['proved']:.1%}, robust for at most "
            f"{f['robust_high']:.1%}, clean accuracy {f['clean']:.1%}"
        )


_ARRAYS = {
    "rows": np.int64,
    "labels": np.int64,
    "predicted": np.int64,
    "status": np.int8,
    "stage": np.int8,
    "bound": np.float64,
}
_HEAD = ("model", "identity", "data", "class_names", "plan", "seconds", "stamp")
