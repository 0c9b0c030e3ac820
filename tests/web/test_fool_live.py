import numpy as np
import pytest
import torch

from unmask.data.mnist import load_mnist
from unmask.errors import UserError
from unmask.models.classifier import Classifier
from unmask.web.fool_live import COMPARED, Frame, spread_frames, watch


@pytest.fixture(scope="module")
def mnist() -> Classifier:
    return Classifier.load("mnist")


@pytest.fixture(scope="module")
def seven() -> np.ndarray:
    return load_mnist()[1].pixels[0].astype(np.float32) / 255


@pytest.mark.parametrize("attack", COMPARED)
def test_what_is_said_of_an_attack_is_true(mnist, seven, attack: str) -> None:
    seen = watch(mnist, seven, 3, attack=attack, eps=0.2)
    levels = seen.found * 255
    np.testing.assert_allclose(levels, levels.round(), atol=1e-3)
    with torch.inference_mode():
        logits = mnist(torch.from_numpy(seen.found)[None])[0].double()
    np.testing.assert_allclose(seen.found_confidence, logits.softmax(0).numpy(), atol=1e-6)
    if seen.outcome.reached_saved[0]:
        assert int(logits.argmax()) == 3
    if seen.threat.eps is not None:
        assert np.abs(seen.found - seven).max() <= 0.2 + 0.5 / 255 + 1e-6
    if seen.threat.eps is None:
        # Those that seek the smallest change find one that survives saving.
        assert seen.outcome.reached_saved[0]
        assert seen.outcome.l2[0] < 4
    assert seen.gradients == 0 if attack == "square" else seen.gradients > 0


def test_the_film_starts_at_the_picture_and_ends_near_what_was_found(mnist, seven) -> None:
    seen = watch(mnist, seven, 5)
    first, last = seen.frames[0], seen.frames[-1]
    np.testing.assert_allclose(first.pixels, seven, atol=1e-5)
    np.testing.assert_allclose(first.confidence, seen.confidence, atol=1e-4)
    assert np.abs(last.pixels - seen.found).max() < np.abs(seen.found - seven).max()
    np.testing.assert_allclose([f.confidence.sum() for f in seen.frames], 1, atol=1e-9)


def test_the_report_way_is_watched_too(mnist, seven) -> None:
    seen = watch(mnist, seven, 3, mode="course-report")
    assert len(seen.frames) > 1
    assert int(seen.found_confidence.argmax()) == 3


def test_its_own_class_is_no_goal(mnist, seven) -> None:
    with pytest.raises(UserError, match="predicted already"):
        watch(mnist, seven, 7)


@pytest.mark.parametrize(("frames", "most"), [(1, 5), (3, 5), (100, 7)])
def test_a_film_is_told_from_its_first_frame_to_its_last(frames: int, most: int) -> None:
    film = tuple(Frame(np.zeros((1, 1, 1), np.float32), np.ones(1)) for _ in range(frames))
    numbers = [number for number, _ in spread_frames(film, most)]
    assert (numbers[0], numbers[-1]) == (1, frames)
    assert len(numbers) == len(set(numbers)) == min(frames, most)
