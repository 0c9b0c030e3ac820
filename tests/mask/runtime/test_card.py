"""The shipped detector's card, and that the detector is checked against it."""

import json
from pathlib import Path

import pytest

from made_up_detector import NAMES, build
from unmask.errors import UserError
from unmask.mask.runtime import detector
from unmask.mask.runtime.card import ShippedCard
from unmask.mask.runtime.detector import WEIGHTS, MaskDetector
from unmask.runtime import sha256


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = build(tmp_path / "detector.onnx")
    monkeypatch.setattr(detector, "WEIGHTS", file)
    card = ShippedCard(NAMES, sha256(file.read_bytes()), "0" * 64, {"data": {"pictures": 3}})
    card.write(tmp_path / "detector.json")
    return file


def test_a_card_comes_back_as_it_was(tmp_path: Path) -> None:
    card = ShippedCard(NAMES, "a" * 64, "b" * 64, {"figures": [1, 0.5, None]})
    card.write(tmp_path / "card.json")
    assert ShippedCard.read(tmp_path / "card.json") == card


def test_what_ships_is_loaded_without_a_path(shipped: Path) -> None:
    assert MaskDetector.load().class_names == NAMES


def test_another_file_than_the_cards_is_refused(shipped: Path) -> None:
    build(shipped, scale=json.dumps(2.0))
    with pytest.raises(UserError, match="not the file that its card describes: got SHA-256"):
        MaskDetector.load()
    # By its path it is a detector like any other.
    assert MaskDetector.load(shipped).facts.scale == 2.0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "has no card beside it"),
        (b"{", "no readable card"),
        (b"[]", "no readable card"),
        (b'{"class_names": ["a"]}', "no readable card"),
        (b'{"class_names": ["a"], "onnx_sha256": "", "weights_sha256": "", "format": "x"}', "'?x"),
        (b" " * (1 << 20) + b"{}", "is too large"),
    ],
)
def test_a_missing_or_damaged_card_is_one_line(
    shipped: Path, content: bytes | None, said: str
) -> None:
    card = shipped.with_suffix(".json")
    card.unlink()
    if content is not None:
        card.write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        MaskDetector.load()
    assert "\n" not in str(caught.value)


def test_the_detector_that_ships_is_small_and_has_three_classes() -> None:
    assert MaskDetector.load().class_names == NAMES
    files = [WEIGHTS, WEIGHTS.with_suffix(".safetensors")]
    assert sum(file.stat().st_size for file in files) < 8_000_000
    card = ShippedCard.read(WEIGHTS.with_suffix(".json"))
    assert card.weights_sha256 == sha256(files[1].read_bytes())
    assert card.facts["data"]["pictures"] == 725
    quantized = card.facts["quantized"]
    assert 100 < 0.95 * quantized["faces"] <= quantized["again"] <= quantized["faces"]
