"""How many faces of each kind were seen, and whether all that had to wear a mask did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from unmask.errors import UserError
from unmask.mask.runtime.classes import WITH, plain_words
from unmask.mask.runtime.detections import NOT_JUDGED_NAME


@dataclass
class Summary:
    """What was looked at and seen so far.

    faces: by the name of their class, in pictures one each, in a video one for each track that was
    seen often enough. failures: one line for each file that could not be looked at, or not whole.
    """

    class_names: tuple[str, ...]
    pictures: int = 0
    frames: int = 0
    faces: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, names: Iterable[str]) -> None:
        """Count faces by the names of their classes."""
        self.faces.update(names)

    @property
    def all_masked(self) -> bool:
        """Whether no face was seen without a mask or with one worn improperly.

        Faces that could not be judged count neither way.
        """
        return not sum(n for name, n in self.faces.items() if name not in (WITH, NOT_JUDGED_NAME))

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold, a count for every class there is."""
        names = (*self.class_names, NOT_JUDGED_NAME)
        return {
            "pictures": self.pictures,
            "frames": self.frames,
            "faces": {name: self.faces[name] for name in names},
            "failures": self.failures,
        }

    def line(self) -> str:
        """Return the summary in one line of plain words."""
        names = (*self.class_names, NOT_JUDGED_NAME)
        kinds = [f"{self.faces[n]:,} {plain_words(n)}" for n in names if self.faces[n]]
        counts = {"picture": self.pictures, "frame": self.frames}
        seen = [f"{n:,} {what}{'s' * (n != 1)}" for what, n in counts.items() if n] or ["nothing"]
        total = sum(self.faces.values())
        faces = f"{total:,} face{'s' * (total != 1)}" if total else "no faces"
        return f"{' and '.join(seen)}: {faces}" + (f": {', '.join(kinds)}" if kinds else "")


def require_mask_class(class_names: tuple[str, ...]) -> None:
    """Raise UserError when a detector's classes don't say who wears a mask."""
    if WITH not in class_names:
        raise UserError(
            f"--require-masks needs a detector with the class {WITH!r}",
            got=", ".join(class_names),
        )
