"""The shipped detector's card, and that the detector is checked against it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from made_up_detector import NAMES, build
from unmask.errors import UserError
from unmask.mask.runtime import detector
from unmask.mask.runtime.detector import WEIGHTS, MaskDetector
from unmask.models.card import DETECTOR, ModelCard
from unmask.runtime import sha256


def card(onnx_sha256: str) -> ModelCard:
    return ModelCard(
        "face_network",
        {},
        (3, 32, 32),
        (0.45,) * 3,
        (0.27,) * 3,
        NAMES,
        {"figures": [1, 0.5, None]},
        "b" * 64,
        onnx_sha256,
        DETECTOR,
    )


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = build(tmp_path / "detector.onnx")
    monkeypatch.setattr(detector, "WEIGHTS", file)
    card(sha256(file.read_bytes())).write(tmp_path / "detector.json")
    return file


def test_what_ships_is_loaded_without_a_path(shipped: Path) -> None:
    assert MaskDetector.load().class_names == NAMES


def test_another_file_than_the_cards_is_refused(shipped: Path) -> None:
    build(shipped, scale=json.dumps(2.0))
    with pytest.raises(UserError, match="not the file that its card describes: got SHA-256"):
        MaskDetector.load()
    # By its path it is a detector like any other.
    assert MaskDetector.load(shipped).facts.scale == 2.0


OLD = {"class_names": list(NAMES), "facts": {"figures": [1, 0.5, None]}}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (
            {
                "format": "unmask-mask-detector/1",
                "onnx_sha256": "a" * 64,
                "weights_sha256": "b" * 64,
            },
            card("a" * 64),
        ),
        (
            {"format": "unmask-detector/1", "shape": {"stem": 8, "widths": [1, 2, 3, 4]}},
            replace(card(""), weights_sha256="", settings={"stem": 8, "widths": [1, 2, 3, 4]}),
        ),
    ],
)
def test_cards_of_older_formats_are_read(
    tmp_path: Path, entries: dict[str, object], expected: ModelCard
) -> None:
    path = tmp_path / "card.json"
    path.write_text(json.dumps(OLD | entries))
    assert ModelCard.read(path) == expected
    expected.write(path)
    assert ModelCard.read(path) == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "has no card beside it"),
        (b"{", "no readable model card"),
        (b"[]", "no readable model card"),
        (b'{"class_names": ["a"]}', "no readable model card"),
        (b'{"class_names": ["a"], "onnx_sha256": "", "weights_sha256": "", "format": "x"}', "'?x"),
        (b" " * (1 << 20) + b"{}", "is too large"),
    ],
)
def test_a_missing_or_damaged_card_is_one_line(
    shipped: Path, content: bytes | None, said: str
) -> None:
    stored = shipped.with_suffix(".json")
    stored.unlink()
    if content is not None:
        stored.write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        MaskDetector.load()
    assert "\n" not in str(caught.value)


def test_the_detector_that_ships_is_small_and_has_three_classes() -> None:
    assert MaskDetector.load().class_names == NAMES
    files = [WEIGHTS, WEIGHTS.with_suffix(".safetensors")]
    assert sum(file.stat().st_size for file in files) < 8_000_000
    stated = ModelCard.read(WEIGHTS.with_suffix(".json"))
    assert stated.weights_sha256 == sha256(files[1].read_bytes())
    assert stated.facts["data"]["pictures"] == 725
    quantized = stated.facts["quantized"]
    assert 100 < 0.95 * quantized["faces"] <= quantized["again"] <= quantized["faces"]
