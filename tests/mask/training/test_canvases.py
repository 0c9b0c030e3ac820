"""What is drawn on canvases: deterministic, inside its window, with the class that is right."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from made_up_squares import squares
from unmask.mask.runtime.views import stretched
from unmask.mask.training.canvases import WILD, Canvases
from unmask.mask.training.light import LightSettings, relit
from unmask.mask.training.loss import IGNORED
from unmask.mask.training.occluders import occluded
from unmask.mask.training.scenes import scene

NAMES = ("with_mask", "without_mask", "mask_weared_incorrect")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_drawn_on_a_face_stays_near_it(name: str) -> None:
    image = np.random.default_rng(0).integers(60, 190, (200, 240, 3), np.uint8)
    box = np.array([100, 80, 148, 140], np.float32)
    changed = 0
    for seed in range(40):
        drawn, named = occluded(image, box, name, np.random.default_rng(seed))
        again, _ = occluded(image, box, name, np.random.default_rng(seed))
        np.testing.assert_array_equal(drawn, again)
        assert named in NAMES
        # A bare face may be given a mask; what wears one keeps its class.
        assert named == name or name == "without_mask"
        changed += (drawn != image).any()
        far = np.ones(image.shape[:2], bool)
        far[80 - 45 : 140 + 46, 100 - 36 : 148 + 37] = False
        np.testing.assert_array_equal(drawn[far], image[far])
    assert changed >= 38


def test_small_faces_and_other_classes_are_left_alone() -> None:
    image = np.zeros((60, 60, 3), np.uint8)
    random = np.random.default_rng(0)
    for box, name in (([5, 5, 16, 30], "without_mask"), ([5, 5, 50, 50], "dog")):
        drawn, named = occluded(image, np.array(box, np.float32), name, random)
        assert (drawn is image, named) == (True, name)


def test_light_keeps_the_shape_and_darkness_is_stretched_back() -> None:
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    for seed in range(20):
        made = relit(image, LightSettings(), np.random.default_rng(seed))
        assert (made.shape, made.dtype) == (image.shape, np.uint8)
    none = LightSettings(0, 0, 0, 0, 0, 0, 0, 0)
    np.testing.assert_array_equal(relit(image, none, np.random.default_rng(0)), image)
    dark = Image.fromarray((image * 0.1).astype(np.uint8))
    back = np.asarray(stretched(dark))
    assert np.abs(back.astype(int) - image).mean() < 20
    bright = Image.fromarray(image)
    assert stretched(bright) is bright


def test_scenes_are_of_any_size_and_their_own() -> None:
    random = np.random.default_rng(0)
    bank = [random.integers(0, 256, (32, 32, 3), np.uint8)]
    for seed in range(30):
        size = (16 + seed * 3, 140 - seed)
        made = scene(size, bank, np.random.default_rng(seed))
        assert made.shape == (*size, 3)
        np.testing.assert_array_equal(made, scene(size, bank, np.random.default_rng(seed)))


def test_regions_that_cannot_be_told_are_not_asked_for(tmp_path: Path) -> None:
    annotated = squares(tmp_path, 3)
    region = np.array([[4, 64, 60, 92]], np.float32)
    marked = replace(annotated, ignored=(region,) * 3)
    plan = replace(WILD, size=128, mosaic=0, paste=0, scenes=0, distractors=0, occluded=0)
    for made, wanted in ((annotated, False), (marked, True)):
        labels = np.concatenate(
            [Canvases(made, plan).make(i % 3, np.random.default_rng(i)).faces[1] for i in range(9)]
        )
        assert (labels == IGNORED).sum() > 0 or not wanted
    assert len(marked[[0, 2]].ignored) == 2
