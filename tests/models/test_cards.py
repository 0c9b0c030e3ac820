"""What the cards of the models that ship say of their training is still what the check says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from unmask.models.classifier import Classifier

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks/release"))

from flow_cards import flow_facts


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "mnist-hardened"])
def test_the_flow_check_on_a_card_can_be_repeated(name: str) -> None:
    card = Classifier.load(name).card
    found = flow_facts(card, "mnist")
    assert found == card.facts["flow"]
    assert found["healthy"]


def test_no_card_that_ships_names_a_path_of_the_machine_that_made_it() -> None:
    cards = sorted((Path(__file__).parents[2] / "src" / "unmask").rglob("weights/*.json"))
    assert len(cards) >= 7
    for card in cards:
        found = re.findall(
            r"(?<![\w./<])/(?:tmp|home|root|work|Users|var|mnt)/\S*", card.read_text()
        )
        assert not found, card.name
