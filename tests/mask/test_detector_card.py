"""The card that ships is what its command makes of what ships, and says what isn't among that."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.mask.wild_figures import PLAIN, all_figures, cross_fits
from benchmarks.mask.worst import CLASS, FALSE, MISSED, mistakes, sheet
from benchmarks.release.detector_card import refreshed
from benchmarks.release.detector_card_text import in_words
from benchmarks.release.detector_predictions import (
    PREDICTIONS,
    read_predictions,
    write_predictions,
)

from unmask.data.detection.dataset import FACE_CLASSES, AnnotatedImages, load_faces
from unmask.errors import UserError
from unmask.mask.evaluate.confidence import answers
from unmask.mask.runtime.detections import Detections
from unmask.mask.runtime.detector import WEIGHTS
from unmask.models.card import ModelCard

FACES = Path(os.environ.get("UNMASK_DATA", "../shared/data")) / "faces"
# Sections of which no predictions ship.
KEPT = {"hard_set", "without_a_face", "judged_by_size"}


@pytest.fixture(scope="module")
def shipped() -> ModelCard:
    return ModelCard.read(WEIGHTS.with_suffix(".json"))


def test_the_card_in_words_is_made_of_its_figures_alone(shipped: ModelCard) -> None:
    words = WEIGHTS.with_suffix(".md").read_text()
    assert words == in_words(shipped)
    assert "## Other origins" in words
    for figures in shipped.facts["cross_validation"]["pooled"]["rows"]:
        assert figures["recall_interval_95"][0] <= (figures["recall"] or 0) + 1e-9


def close(found: object, expected: object, where: str = "") -> None:
    """Assert that two trees of plain values agree to within what processors differ by."""
    if isinstance(expected, dict):
        assert isinstance(found, dict), where
        assert set(found) == set(expected), where
        for key, value in expected.items():
            close(found[key], value, f"{where}/{key}")
    elif isinstance(expected, list | tuple):
        assert isinstance(found, list | tuple), where
        assert len(found) == len(expected), where
        for i, value in enumerate(expected):
            close(found[i], value, f"{where}/{i}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=2e-3), where
    else:
        assert found == expected, where


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not FACES.is_dir(), reason="the face mask set is not there")
def test_the_shipped_card_is_made_again_from_what_ships(shipped: ModelCard) -> None:
    original = load_faces(FACES)
    found, fitted = read_predictions(PREDICTIONS, original.corrected())
    facts, stay = refreshed(shipped.facts, all_figures(original, found, fitted))
    assert {name.partition(":")[0] for name in stay} == {*KEPT, "shifts"}
    assert not any(name.endswith(PLAIN) for name in stay)
    plain = json.loads(json.dumps(facts))
    close(plain, json.loads(json.dumps(shipped.facts)))


def one(stem: str, boxes: list[list[float]], labels: list[int]) -> AnnotatedImages:
    return AnnotatedImages(
        (Path(f"{stem}.png"),),
        np.array([[200, 100]]),
        (np.array(boxes, np.float32).reshape(-1, 4),),
        (np.array(labels, np.int64),),
        FACE_CLASSES,
        "one",
    )


def said(boxes: list[list[float]], scores: list[float], rows: list[list[float]]) -> Detections:
    p = np.array(rows, np.float32).reshape(-1, 3)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        p.argmax(1) if len(p) else np.zeros(0, np.int64),
        np.array(scores, np.float32),
        p,
        FACE_CLASSES,
        200,
        100,
    )


BOXES = [[10.0, 10.0, 30.0, 30.0], [50.0, 10.0, 70.0, 30.0], [100.0, 10.0, 140.0, 50.0]]


def test_predictions_come_back_with_their_annotations(tmp_path: Path) -> None:
    annotated = one("a", BOXES, [0, 1, 1])
    detections = said(BOXES[:2], [0.9, 0.3], [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    entry = {"name": "a", "found": detections.as_dict(), "boxes": BOXES, "labels": [0, 1, 1]}
    found = {k: {PLAIN: [entry]} for k in (0, 1)}
    fitted = cross_fits(found)
    write_predictions(tmp_path / "p.xz", {0: found[0]}, {0: fitted[0]})
    again, calibrations = read_predictions(tmp_path / "p.xz", annotated)
    assert calibrations == {0: fitted[0]}
    assert again[0][PLAIN][0]["boxes"] == BOXES
    same = Detections.from_dict(again[0][PLAIN][0]["found"])
    np.testing.assert_allclose(same.probabilities, detections.probabilities, atol=1e-4)
    figures = all_figures(annotated, again, calibrations)
    assert figures["hidden"]["faces"] == 3
    with pytest.raises(UserError, match="1 images of the stored predictions aren't in one"):
        read_predictions(tmp_path / "p.xz", one("b", [], []))
    # What those calibrations answer is what the figures are of.
    assert len(answers(same, fitted[0], scale=1.6, threshold=0.0)) == 2


def test_mistakes_come_worst_first_and_are_drawn(tmp_path: Path) -> None:
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    annotated = one(str(tmp_path / "a"), BOXES, [0, 1, 1])
    wrong = [[150.0, 60.0, 180.0, 90.0]]
    detections = said(
        BOXES[:2] + wrong, [0.9, 0.8, 0.6], [[0.9, 0.1, 0], [0.75, 0.2, 0.05], [0.9, 0.1, 0]]
    )
    found = mistakes(annotated, [detections])
    assert [(m.kind, round(m.cost, 2)) for m in found] == [
        (MISSED, 1.0),
        (CLASS, 0.75),
        (FALSE, 0.6),
    ]
    assert found[1].words == "no mask: mask"
    drawn = np.asarray(sheet(found, annotated, [detections]))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 3
