"""Portraits: where their faces lie, and what is drawn and predicted of them."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from made_up_detector import build
from unmask.coursework.portraits import WORN, classified, detected, faces_picture, shown
from unmask.data.samples import PORTRAITS, Portrait, cifar10_sample
from unmask.mask.runtime.detector import MaskDetector
from unmask.models.classifier import Classifier
from unmask.report.reproduction import Figures

CLOTH = (142, 190, 214)


def cloth(portrait: Portrait, worn: str) -> np.ndarray:
    """Where the mask is, bool[h, w]."""
    pixels = np.asarray(shown(portrait, worn)).astype(int)
    changed = np.abs(pixels - np.asarray(portrait.image()).astype(int)).sum(2) > 0
    return changed & (np.abs(pixels - CLOTH).max(2) < 8)


@pytest.mark.parametrize("portrait", PORTRAITS, ids=lambda p: p.name)
def test_a_mask_covers_nose_and_mouth_and_one_worn_improperly_the_mouth_alone(
    portrait: Portrait,
) -> None:
    proper, improper = (cloth(portrait, worn) for worn in WORN[1:])
    x, lip = round(portrait.lip[0]), round(portrait.lip[1])
    nose = round((portrait.bridge[1] + portrait.lip[1]) / 2)
    assert proper[nose + 4, x]
    assert proper[lip + 4, x]
    assert not improper[nose, x]
    assert improper[lip + 6, x]
    x1, y1, x2, y2 = portrait.box
    for mask in (proper, improper):
        rows, columns = np.nonzero(mask)
        assert portrait.bridge[1] <= rows.min() < rows.max() <= y2 + 0.1 * (y2 - y1)
        assert x1 - 12 <= columns.min() < columns.max() <= x2 + 12
    assert np.array_equal(np.asarray(shown(portrait, WORN[0])), np.asarray(portrait.image()))


def test_the_sample_is_twenty_images_of_which_four_are_frogs() -> None:
    sample = cifar10_sample()
    assert sample.pixels.shape == (20, 3, 32, 32)
    assert int((sample.labels == sample.class_names.index("frog")).sum()) == 4
    # The first record of the canonical test batch is a cat, whose first red values are these.
    assert sample.pixels[0, 0, 0, :4].tolist() == [158, 159, 165, 166]


def test_the_classifier_that_ships_judges_portraits() -> None:
    faces = classified(Classifier.load("faces"))
    assert [(f.person, f.worn) for f in faces] == [(p.person, w) for p in PORTRAITS for w in WORN]
    assert all(0.5 <= f.confidence <= 1 for f in faces)
    # That it is right on three in four of them holds for any rounding.
    assert sum(f.right for f in faces) >= 9
    picture = faces_picture(faces, Figures())
    assert Image.open(io.BytesIO(base64.b64decode(picture.png))).width > 600


def test_a_detector_sees_every_portrait_in_every_way(tmp_path: Path) -> None:
    detector = MaskDetector.load(build(tmp_path / "rectangles.onnx"))
    picture, notes = detected(detector)
    assert len(notes) == len(WORN)
    assert all(p.person in note for note in notes for p in PORTRAITS)
    assert Image.open(io.BytesIO(base64.b64decode(picture.png))).height > 3 * 240
