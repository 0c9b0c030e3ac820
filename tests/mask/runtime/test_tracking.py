import numpy as np

from unmask.mask.runtime.detections import NOT_JUDGED, Detections
from unmask.mask.runtime.tracking import PATIENCE, SURE_AFTER, Tracker

NAMES = ("with_mask", "without_mask")


def frame(*faces: tuple[float, float, float]) -> Detections:
    """Faces of 40 pixels: left, top, and the probability of a mask, -1 for not judged."""
    n = len(faces)
    corners = np.array([face[:2] for face in faces], np.float32).reshape(n, 2)
    p = np.array([face[2] if face[2] >= 0 else 0.5 for face in faces], np.float32)
    labels = np.array([NOT_JUDGED if f[2] < 0 else int(f[2] < 0.5) for f in faces], np.int64)
    return Detections(
        np.hstack([corners, corners + 40]),
        labels,
        np.ones(n, np.float32),
        np.stack([p, 1 - p], 1).reshape(n, 2),
        NAMES,
        640,
        480,
    )


def test_faces_that_move_apart_and_change_order_keep_their_numbers() -> None:
    tracker = Tracker()
    for t in range(20):
        faces = [(10 + 12 * t, 50, 0.9), (400 - 9 * t, 200, 0.1)]
        tracked = tracker.update(frame(*(faces if t % 2 else faces[::-1])))
        numbers = tracked.numbers.tolist() if t % 2 else tracked.numbers.tolist()[::-1]
        assert numbers == [2, 1]
    assert [track.label for track in tracker.faces()] == [1, 0]


def test_one_wrong_frame_is_outvoted_and_a_lasting_change_is_not() -> None:
    tracker = Tracker()
    sequence = [0.9] * 10 + [0.1] + [0.9] * 5 + [0.1] * 20
    labels = [int(tracker.update(frame((50, 50, p))).detections.labels[0]) for p in sequence]
    assert labels[:16] == [0] * 16
    change = labels.index(1)
    assert 17 <= change <= 16 + 25 // 2
    assert labels[change:] == [1] * len(labels[change:])


def test_votes_are_the_mean_with_forgetting() -> None:
    tracker = Tracker()
    for p in (0.9, 0.7, 0.2):
        got = tracker.update(frame((50, 50, p))).detections.probabilities[0]
    expected = (0.81 * 0.9 + 0.9 * 0.7 + 0.2) / (0.81 + 0.9 + 1)
    np.testing.assert_allclose(got, [expected, 1 - expected], rtol=1e-6)


def test_a_face_that_can_not_be_judged_now_keeps_what_was_seen_before() -> None:
    tracker = Tracker()
    assert tracker.update(frame((50, 50, -1))).detections.labels[0] == NOT_JUDGED
    assert tracker.update(frame((50, 50, 0.8))).detections.labels[0] == 0
    assert tracker.update(frame((50, 50, -1))).detections.labels[0] == 0


def test_a_hidden_face_comes_back_as_itself_and_is_told_of_meanwhile() -> None:
    tracker = Tracker()
    tracker.update(frame((50, 50, 0.9)))
    for _ in range(PATIENCE):
        hidden = tracker.update(frame())
        np.testing.assert_array_equal(hidden.unseen, [[50, 50, 90, 90]])
    assert tracker.update(frame((52, 50, 0.9))).numbers.tolist() == [1]
    for _ in range(PATIENCE + 1):
        gone = tracker.update(frame())
    assert not len(gone.unseen)
    assert tracker.update(frame((52, 50, 0.9))).numbers.tolist() == [2]


def test_chance_likenesses_are_no_faces() -> None:
    tracker = Tracker()
    for t in range(60):
        tracker.update(frame((50, 50, 0.9), *([(300, 300, 0.1)] if t in (5, 6) else [])))
    assert SURE_AFTER == 3
    assert [track.number for track in tracker.faces()] == [1]
    assert not tracker.ended


def test_tracks_end_where_a_scene_is_cut_and_not_where_things_move() -> None:
    rng = np.random.default_rng(0)
    scenes = [rng.integers(0, 256, (60, 80, 3)).repeat(8, 0).repeat(8, 1) for _ in range(2)]
    tracker, numbers = Tracker(), []
    for t in range(12):
        pixels = np.roll(scenes[t // 6], t, 1).astype(np.uint8)
        numbers += tracker.update(frame((50, 50, 0.9)), pixels).numbers.tolist()
    assert numbers == [1] * 6 + [2] * 6
    assert [track.number for track in tracker.faces()] == [1, 2]
