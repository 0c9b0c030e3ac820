"""A gate is red for anyone seen without a mask, and says where and when."""

import numpy as np
import pytest

from unmask.errors import UserError
from unmask.mask.runtime.classes import renamed
from unmask.mask.runtime.detections import Detections
from unmask.mask.runtime.gate import Summary, Watch

NAMES = ("with_mask", "without_mask", "mask_weared_incorrect")
WITH, BARE, IMPROPER, UNTOLD = 0, 1, 2, -1


def frame(*labels: int) -> Detections:
    n = len(labels)
    boxes = np.tile(np.array([0, 0, 9, 9], np.float32), (n, 1))
    scores, rows = np.full(n, 0.9, np.float32), np.full((n, 3), 1 / 3, np.float32)
    return Detections(boxes, np.array(labels, np.int64), scores, rows, NAMES, 20, 20)


def watched(labels: list[tuple[int, ...]], step: float) -> Watch:
    watch = Watch("v.mp4")
    for i, own in enumerate(labels):
        watch.see(frame(*own), np.arange(1, len(own) + 1), i, i * step)
    return watch


def test_two_seconds_bare_and_then_masked_are_seen() -> None:
    watch = watched([(BARE,)] * 50 + [(WITH,)] * 200, 0.04)
    (sighting,) = watch.end()
    assert (sighting.frame, sighting.seconds) == (0, 0.0)
    assert sighting.lasted == pytest.approx(49 * 0.04)
    assert sighting.line() == "v.mp4, frame 0 at 0.00 s for 1.96 s: without mask (90%)"
    summary = Summary(NAMES, frames=250, sightings=watch.sightings)
    assert summary.unmasked()
    assert summary.unmasked(1.0)
    assert not summary.unmasked(3.0)


def test_one_frame_of_many_is_a_mistake_and_two_are_a_sighting() -> None:
    assert watched([(WITH,)] * 9 + [(BARE,)] + [(WITH,)] * 9, 0.04).end() == []
    (found,) = watched([(WITH,)] * 9 + [(IMPROPER,)] * 2 + [(WITH,)] * 9, 0.04).end()
    assert (found.name, found.frame) == ("mask_weared_incorrect", 9)


def test_each_frame_of_a_time_lapse_counts() -> None:
    for at in (0, 3, 5):
        labels = [(BARE,) if i == at else (WITH,) for i in range(6)]
        (found,) = watched(labels, 60.0).end()
        assert (found.frame, found.seconds) == (at, 60.0 * at)
    assert len(watched([(BARE,)], 0.04).end()) == 1


def test_a_face_that_cannot_be_judged_for_a_while_is_still_the_same_sighting() -> None:
    labels = [(BARE,)] * 3 + [(UNTOLD,)] * 5 + [(BARE,)] * 3
    (found,) = watched(labels, 0.1).end()
    assert found.lasted == pytest.approx(1.0)
    assert watched([(UNTOLD,)] * 9, 0.1).end() == []


def test_people_are_told_apart() -> None:
    found = watched([(WITH, BARE)] * 4 + [(BARE, WITH)] * 4, 0.1).end()
    assert [(s.frame, round(s.lasted, 1)) for s in found] == [(0, 0.3), (4, 0.3)]


def test_images_count_at_once() -> None:
    summary = Summary(NAMES)
    assert not summary.seen
    summary.add_image("a.png", frame(WITH, UNTOLD))
    assert summary.seen
    assert summary.unmasked() == []
    summary.add_image("b.png", frame(WITH, IMPROPER))
    assert [s.file for s in summary.unmasked(9.0)] == ["b.png"]
    assert summary.complete
    summary.failures.append("c.png skipped")
    assert not summary.complete


def test_a_face_that_is_surely_not_masked_shuts_the_gate_whichever_of_the_others_it_is() -> None:
    rows = np.array([[0.01, 0.6, 0.39], [0.3, 0.5, 0.2]], np.float32)
    torn = frame(UNTOLD, UNTOLD)
    torn = Detections(torn.boxes, torn.labels, torn.scores, rows, NAMES, 20, 20)
    summary = Summary(NAMES)
    summary.add_image("a.png", torn)
    assert [s.name for s in summary.unmasked()] == ["without_mask"]
    assert summary.faces == {"not_judged": 2}
    watch = Watch("v.mp4")
    for i in range(3):
        watch.see(torn, np.array([1, 2]), i, 0.1 * i)
    assert [s.name for s in watch.end()] == ["without_mask"]


def test_classes_are_renamed_by_name() -> None:
    names = ("Mask", "No Mask", "dog")
    assert renamed(names, ["with=Mask", "without=No Mask"]) == ("with_mask", "without_mask", "dog")
    for wrong in (["with=mask"], ["other=Mask"], ["Mask"], ["with=Mask", "with=dog"]):
        with pytest.raises(UserError, match="--classes"):
            renamed(names, wrong)
