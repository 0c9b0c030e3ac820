"""What the cards of the classifiers that ship hold of corruptions: complete, and still true."""

from __future__ import annotations

import pytest

from unmask.data.sources import load_source
from unmask.models.classifier import Classifier
from unmask.models.load import known_models
from unmask.shift.corruptions import corruptions
from unmask.shift.measurement import measure_shift
from unmask.shift.result import ShiftPlan

CARDS = ("mnist", "mnist-hardened", "cifar10")
FIELDS = {
    "images": int,
    "clean": float,
    "clean_interval_95": list,
    "severities": list,
    "accuracy": dict,
    "accuracy_at_severity_3": float,
    "calibration_error": float,
    "calibration_error_at_severity_3": float,
    "seed": int,
    "version": str,
    "command": str,
}


@pytest.mark.parametrize("name", CARDS)
def test_a_card_has_every_field_and_every_corruption(name: str) -> None:
    model = Classifier.load(name).card
    card = model.facts["shift"]
    assert {k: type(v) for k, v in card.items()} == FIELDS
    colour = model.input_shape[0] == 3
    assert set(card["accuracy"]) == {
        n for n, found in corruptions().items() if colour or not found.colour
    }
    low, high = card["clean_interval_95"]
    assert 0 <= low <= card["clean"] <= high <= 1
    middle = card["severities"].index(3)
    rows = card["accuracy"].values()
    assert all(len(row) == len(card["severities"]) for row in rows)
    assert all(0 <= value <= 1 for row in rows for value in row)
    mean = sum(row[middle] for row in rows) / len(rows)
    assert card["accuracy_at_severity_3"] == pytest.approx(mean, abs=1e-3)
    assert f"shift_cards.py {name} " in card["command"]
    listed = {row["name"]: row["shift_accuracy"] for row in known_models()}
    assert listed[name] == card["accuracy_at_severity_3"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "mnist-hardened"])
def test_a_card_can_be_measured_again(name: str) -> None:
    card = Classifier.load(name).card.facts["shift"]
    names = ("contrast", "rotate", "zoom_blur")
    off = dict.fromkeys(("smallest", "geometry", "pipeline", "runtimes", "fixes"), False)
    plan = ShiftPlan(
        corruptions=names, severities=(3,), images=card["images"], seed=card["seed"], **off
    )
    found = measure_shift(name, load_source("mnist"), plan)
    middle = card["severities"].index(3)
    for corruption in names:
        # Rounding may move an image or two across a boundary.
        assert found.cells[corruption][0].accuracy == pytest.approx(
            card["accuracy"][corruption][middle], abs=0.01
        )
