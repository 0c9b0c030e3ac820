"""What was processed and found, and whether a gate that requires masks may open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UserError
from unmask.mask.runtime.classes import WITH, plain_words
from unmask.mask.runtime.detections import NOT_JUDGED, NOT_JUDGED_NAME, Detections

# Frames that lie further apart, in seconds, are each a sighting by themselves, as in a time lapse.
# Otherwise a sighting takes two frames in a row, since one alone may be a mistake.
_FAR_APART = 0.5
# A face that wasn't judged still shuts the gate where a properly worn mask is less likely than
# this: whether bare or improper, it is one of the two.
_MASKED = 0.1
# A face that isn't seen for this many seconds is gone.
_FORGOTTEN = 2.0


@dataclass(frozen=True)
class Sighting:
    """A face that should wear a mask and doesn't, or wears it improperly.

    Args:
        file: of the image or video.
        name: the class.
        score: the highest confidence that it is a face, 0 to 1.
        frame: of a video, where it was first seen so; of an animation, the frame; None for an
            image.
        seconds: the time of that frame of a video, otherwise None.
        lasted: how long it went on, in seconds.
    """

    file: str
    name: str
    score: float
    frame: int | None = None
    seconds: float | None = None
    lasted: float = 0.0

    def line(self) -> str:
        """Return the sighting in one line of plain words."""
        where = self.file
        if self.frame is not None:
            where += f", frame {self.frame}"
        if self.seconds is not None:
            where += f" at {self.seconds:.2f} s"
            where += f" for {self.lasted:.2f} s" if self.lasted else ""
        return f"{where}: {plain_words(self.name)} ({self.score:.0%})"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return dict(self.__dict__)


@dataclass
class _Run:
    """Frames in a row in which a track was seen without a properly worn mask."""

    name: str
    score: float
    frame: int
    first: float
    last: float
    frames: int = 1
    gap: float = 0.0


class Watch:
    """Follows who wears no mask through the frames of one video.

    Args:
        file: the name of the video.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.sightings: list[Sighting] = []
        self._runs: dict[int, _Run] = {}
        self._before: float | None = None
        self._frames = 0

    def see(
        self, found: Detections, numbers: NDArray[np.int64], frame: int, seconds: float
    ) -> None:
        """Add a frame to the runs of its tracks.

        Args:
            found: the faces detected in this frame alone.
            numbers: int64[n], the numbers of their tracks.
            frame: its number, from 0.
            seconds: its time.
        """
        gap = 0.0 if self._before is None else max(seconds - self._before, 0.0)
        for going in self._runs.values():
            if going.last == self._before:
                going.gap = max(going.gap, gap)
        self._before, self._frames = seconds, self._frames + 1
        for number, name, score in zip(
            numbers.tolist(), _names(found), found.scores.tolist(), strict=True
        ):
            run = self._runs.get(number)
            if name == NOT_JUDGED_NAME:
                continue
            if name == WITH:
                self._end(number)
            elif run is None or seconds - run.last > max(_FORGOTTEN, 1.5 * gap):
                self._end(number)
                self._runs[number] = _Run(name, score, frame, seconds, seconds, gap=gap)
            else:
                run.last, run.frames = seconds, run.frames + 1
                run.gap = max(run.gap, gap)
                if score > run.score:
                    run.name, run.score = name, score

    def end(self) -> list[Sighting]:
        """Return all confirmed sightings, in the order of their frames."""
        for number in list(self._runs):
            self._end(number)
        return sorted(self.sightings, key=lambda s: s.frame or 0)

    def _end(self, number: int) -> None:
        run = self._runs.pop(number, None)
        # A video of one frame is an image.
        alone = run is not None and run.frames < 2 and run.gap < _FAR_APART and self._frames > 1
        if run is None or alone:
            return
        lasted = run.last - run.first
        self.sightings.append(
            Sighting(self.file, run.name, run.score, run.frame, run.first, lasted)
        )


@dataclass
class Summary:
    """What was processed and found so far.

    Args:
        class_names: of the detector.
        pictures: how many images were processed.
        frames: how many frames, of videos and animations.
        videos: how many videos.
        faces: counts by the name of their class: in an image every face, in a video every track
            that was seen often enough.
        sightings: faces without a properly worn mask.
        failures: one line for each file that could not be processed, or not completely.
        passed_over: the names of files that may hold images and were not opened.
    """

    class_names: tuple[str, ...]
    pictures: int = 0
    frames: int = 0
    videos: int = 0
    faces: Counter[str] = field(default_factory=Counter)
    sightings: list[Sighting] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)

    def add(self, names: Iterable[str]) -> None:
        """Count faces by the names of their classes."""
        self.faces.update(names)

    def add_image(self, file: str, found: Detections, frame: int | None = None) -> None:
        """Count an image and its faces.

        Args:
            file: its name.
            found: its faces.
            frame: the number of the frame of an animation, None for an image.
        """
        if frame is None:
            self.pictures += 1
        else:
            self.frames += 1
        self.add(found.names())
        for name, score in zip(_names(found), found.scores.tolist(), strict=True):
            if name not in (WITH, NOT_JUDGED_NAME):
                self.sightings.append(Sighting(file, name, score, frame))

    def unmasked(self, tolerate: float = 0.0) -> list[Sighting]:
        """Return the sightings in images, and those in videos that lasted over tolerate seconds."""
        return [
            s for s in self.sightings if s.seconds is None or s.lasted > tolerate or not tolerate
        ]

    @property
    def seen(self) -> bool:
        """Whether anything was processed."""
        return bool(self.pictures or self.frames)

    @property
    def complete(self) -> bool:
        """Whether everything was processed completely."""
        return not (self.failures or self.passed_over)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with a count for every class."""
        names = (*self.class_names, NOT_JUDGED_NAME)
        return {
            "pictures": self.pictures,
            "frames": self.frames,
            "videos": self.videos,
            "faces": {name: self.faces[name] for name in names},
            "sightings": [s.as_dict() for s in self.sightings],
            "failures": self.failures,
            "passed_over": self.passed_over,
        }

    def line(self) -> str:
        """Return the summary in one line of plain words."""
        names = (*self.class_names, NOT_JUDGED_NAME)
        kinds = [f"{self.faces[n]:,} {plain_words(n)}" for n in names if self.faces[n]]
        counts = {"image": self.pictures, "frame": self.frames}
        seen = [f"{n:,} {what}{'s' * (n != 1)}" for what, n in counts.items() if n] or ["nothing"]
        if self.videos:
            seen[-1] += f" of {self.videos:,} video{'s' * (self.videos != 1)}"
        total = sum(self.faces.values())
        faces = f"{total:,} face{'s' * (total != 1)}" if total else "no faces"
        line = f"{' and '.join(seen)}: {faces}" + (f": {', '.join(kinds)}" if kinds else "")
        missed = len(self.passed_over) + len(self.failures)
        return line + (f"; {missed:,} not looked at or not whole" if missed else "")


def _names(found: Detections) -> list[str]:
    """Return the class of every face as the gate counts it."""
    names = found.names()
    if WITH not in found.class_names:
        return names
    masked = found.probabilities[:, found.class_names.index(WITH)]
    likely = found.probabilities.argmax(1)
    for row in np.flatnonzero((found.labels == NOT_JUDGED) & (masked < _MASKED)):
        names[row] = found.class_names[likely[row]]
    return names


def require_mask_class(class_names: tuple[str, ...]) -> None:
    """Raise UserError when no class of a detector stands for a properly worn mask."""
    if WITH not in class_names:
        raise UserError(
            f"--require-masks needs a detector with the class {WITH!r}",
            got=", ".join(class_names),
        )
