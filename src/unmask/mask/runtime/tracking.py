"""Faces followed from frame to frame, so that a vote over frames decides what each wears."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from unmask.data.detection.boxes import iou
from unmask.mask.runtime.detections import NOT_JUDGED, Detections

# A vote counts half after seven frames: a mask taken off is noticed within a second.
FORGET = 0.9
# A face that is hidden for up to this many frames keeps its track when it comes back in its place.
PATIENCE = 15
# Seen this often, it is a face and not a false positive.
SURE_AFTER = 3
LEAST_OVERLAP = 0.2
# Mean difference of the values, 0 to 255, between frames of two scenes; within one scene it is
# about a tenth of that.
_CUT = 45.0


@dataclass(eq=False)
class Track:
    """One face over time.

    Args:
        number: from 1, in the order of appearance.
        box: float32[4], xyxy in pixels, where it was seen last or should be by now.
        votes: float64[k], the weighted sum of the probabilities of its frames.
        velocity: float32[4], the mean motion of the box in pixels a frame.
        seen: how many frames it was seen in.
        missed: how many frames in a row it wasn't.
    """

    number: int
    box: NDArray[np.float32]
    votes: NDArray[np.float64]
    velocity: NDArray[np.float32] = field(default_factory=lambda: np.zeros(4, np.float32))
    seen: int = 1
    missed: int = 0

    @property
    def label(self) -> int:
        """The class that most of the recent frames voted for, NOT_JUDGED when none could."""
        return int(self.votes.argmax()) if self.votes.any() else NOT_JUDGED

    def expected(self) -> NDArray[np.float32]:
        """Return the box, float32[4], where the face should be in the next frame."""
        return self.box + self.velocity

    def vote(self, probabilities: NDArray[np.float32], judged: bool) -> None:
        """Add the probabilities of a frame to the votes, which lose a tenth of their weight.

        Args:
            probabilities: float32[k].
            judged: whether the face was judged; if not, they don't count.
        """
        self.votes *= FORGET
        if judged:
            self.votes += probabilities


@dataclass(frozen=True, eq=False)
class Tracked:
    """The faces of a frame with the classes that were voted for, and the numbers of their tracks.

    Args:
        detections: the faces.
        numbers: int64[n], from 1 in the order of appearance.
        unseen: float32[m, 4], the expected boxes of faces that were seen shortly before and aren't
            seen now; what hides faces hides these too.
    """

    detections: Detections
    numbers: NDArray[np.int64]
    unseen: NDArray[np.float32]


class Tracker:
    """Follows faces over the frames of one video, in the order they are given.

    A face is matched with the track that it overlaps most where that should be by now, as in SORT
    (Bewley et al., 2016, arXiv:1602.00763), here greedily and with a velocity that is averaged.
    """

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self.ended: list[Track] = []
        self._next = 1
        self._before: NDArray[np.float32] | None = None

    def update(self, found: Detections, pixels: NDArray[np.uint8] | None = None) -> Tracked:
        """Add the faces of the next frame and return them with the classes voted for so far.

        Args:
            found: the faces detected in the frame.
            pixels: uint8[h, w, 3], the frame; where its scene differs from the last frame's, all
                tracks end. None skips that check.
        """
        if pixels is not None and self._cut(pixels):
            self.ended += [t for t in self.tracks if t.seen >= SURE_AFTER or t.missed == 0]
            self.tracks = []
        numbers = np.zeros(len(found), np.int64)
        labels = found.labels.copy()
        probabilities = found.probabilities.copy()
        matched = self._matched(found)
        present: list[Track] = []
        for i in range(len(found)):
            judged = bool(found.labels[i] != NOT_JUDGED)
            track = matched.get(i)
            if track is None:
                votes = found.probabilities[i].astype(np.float64) * judged
                track = Track(self._next, found.boxes[i], votes)
                self._next += 1
            else:
                moved = found.boxes[i] - track.box
                track.velocity = 0.5 * track.velocity + 0.5 * moved / (track.missed + 1)
                track.box, track.missed, track.seen = found.boxes[i], 0, track.seen + 1
                track.vote(found.probabilities[i], judged)
            present.append(track)
            numbers[i], labels[i] = track.number, track.label
            if track.votes.any():
                probabilities[i] = track.votes / track.votes.sum()
        unseen = self._age({track.number for track in present})
        self.tracks = present + unseen
        boxes = np.array([track.box for track in unseen], np.float32).reshape(-1, 4)
        voted = replace(found, labels=labels, probabilities=probabilities)
        return Tracked(voted, numbers, boxes)

    def faces(self) -> list[Track]:
        """Return every track that was seen often enough to be a face, by number."""
        sure = (track for track in self.ended + self.tracks if track.seen >= SURE_AFTER)
        return sorted(sure, key=lambda track: track.number)

    def _cut(self, pixels: NDArray[np.uint8]) -> bool:
        """Return whether a frame is of another scene than the one before it."""
        rows = np.linspace(0, pixels.shape[0] - 1, 24).astype(int)
        columns = np.linspace(0, pixels.shape[1] - 1, 32).astype(int)
        few = pixels[rows][:, columns].astype(np.float32)
        before, self._before = self._before, few
        return before is not None and float(np.abs(few - before).mean()) > _CUT

    def _matched(self, found: Detections) -> dict[int, Track]:
        if not (self.tracks and len(found)):
            return {}
        expected = np.array([track.expected() for track in self.tracks], np.float32)
        overlaps = iou(found.boxes, expected)
        matched: dict[int, Track] = {}
        for _ in range(min(overlaps.shape)):
            i, j = divmod(int(overlaps.argmax()), overlaps.shape[1])
            if overlaps[i, j] < LEAST_OVERLAP:
                break
            matched[i] = self.tracks[j]
            overlaps[i, :] = overlaps[:, j] = -1
        return matched

    def _age(self, present: set[int]) -> list[Track]:
        """Return the tracks that were not seen now and may come back."""
        waiting = []
        for track in self.tracks:
            if track.number in present:
                continue
            track.missed += 1
            if track.missed > PATIENCE:
                # A camera may run for days: false positives are not kept.
                if track.seen >= SURE_AFTER:
                    self.ended.append(track)
                continue
            track.box = track.expected()
            # The velocity decays, or a face that stays hidden would drift away.
            track.velocity = 0.8 * track.velocity
            waiting.append(track)
        return waiting
