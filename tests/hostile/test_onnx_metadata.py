"""An ONNX file may state anything in its metadata: what can't be meant is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from made_up_detector import NAMES, build
from unmask.errors import UserError
from unmask.fool.source import load_victim
from unmask.mask.runtime.calibration import DetectorFacts
from unmask.mask.runtime.detector import MaskDetector
from unmask.models.load import load_model
from unmask.models.session import MAX_CLASSES, MAX_NAME, parse_class_names
from unmask.shift.target import as_target

DEEP = "[" * 100_000 + "]" * 100_000
NO_NAMES = (
    "", "{", "no JSON", "7", "1e999", "NaN", "null", "true", '"ab"', '{"a": 1}', "[]", "[1, 2]",
    '["a", ["b"]]', '[["a", "b"]]', '["a", null]', '["a", "a"]', DEEP, "[" * 10_000,
    json.dumps(["x" * (MAX_NAME + 1), "y"]), "\x00", "9" * 5000,
)  # fmt: skip


def classifier(path: Path, **metadata: str) -> Path:
    """Write an ONNX file that takes float32[b, 1, 2, 2] to two logits."""
    weights = numpy_helper.from_array(np.eye(4, 2, dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 1, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 2])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


READERS: dict[str, Callable[[str], Any]] = {
    "load_model": load_model,
    "audit": load_victim,
    "shift": as_target,
}


@pytest.mark.parametrize("reader", READERS)
def test_class_names_that_are_none_are_refused(reader: str, tmp_path: Path) -> None:
    for text in NO_NAMES:
        file = str(classifier(tmp_path / "m.onnx", class_names=text))
        with pytest.raises(UserError, match=r"class names in the metadata of .*m\.onnx") as refusal:
            READERS[reader](file)
        assert "\n" not in str(refusal.value)
        assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("reader", READERS)
def test_class_names_may_be_any_texts_or_missing(reader: str, tmp_path: Path) -> None:
    names = ["\x1b[31m[/b]$x^$", "<img onerror=1>\n"]
    file = classifier(tmp_path / "m.onnx", class_names=json.dumps(names))
    assert list(READERS[reader](str(file)).class_names) == names
    assert READERS[reader](str(classifier(tmp_path / "n.onnx"))).class_names is None


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_names_are_a_list_of_different_texts_or_none_at_all(values: Any) -> None:
    good = (
        isinstance(values, list)
        and all(isinstance(v, str) for v in values)
        and 0 < len(set(values)) == len(values) <= MAX_CLASSES
    )
    try:
        assert parse_class_names(json.dumps(values)) == tuple(values)
    except ValueError:
        assert not good
    else:
        assert good


GOOD = {"class_names": json.dumps(NAMES)}
BAD_FACTS = (
    {}, *({"class_names": text} for text in NO_NAMES),
    {"scale": "0"}, {"scale": "-1"}, {"scale": "1e308"}, {"scale": "NaN"}, {"scale": "true"},
    {"scale": '"1"'}, {"scale": DEEP}, {"scale": ""}, {"stretch": "7"}, {"stretch": "null"},
    {"stride": "8"}, {"stride": "0"}, {"stride": '"4"'}, {"stride": "[4]"}, {"stride": "x"},
    {"version": "2"}, {"version": "1.5"}, {"version": "true"}, {"version": DEEP},
    {"thresholds": "[]"}, {"thresholds": '{"face": "x"}'}, {"thresholds": '{"face": 2}'},
    {"thresholds": '{"face": 0}'}, {"thresholds": '{"nms_iou": 7}'}, {"thresholds": "NaN"},
    {"thresholds": '{"certain": -1}'}, {"calibration": '{"slope": 0}'},
    {"calibration": '{"slope": NaN}'}, {"calibration": '{"offset": 1e999}'},
    {"calibration": '{"temperature": [1]}'}, {"calibration": '{"temperature": null}'},
)  # fmt: skip


@pytest.mark.parametrize("facts", BAD_FACTS, ids=lambda facts: str(facts)[:40])
def test_what_a_detector_states_of_itself_is_checked(facts: dict[str, str]) -> None:
    metadata = {**GOOD, **facts} if facts else {}
    with pytest.raises(ValueError, match=r"its |calibration's ") as refusal:
        DetectorFacts.parse(metadata)
    assert len(str(refusal.value)) < 300


def test_detectors_of_before_state_less_and_are_read() -> None:
    facts = DetectorFacts.parse({**GOOD, "stride": "4", "version": "1", "onnx.infer": "x"})
    assert facts == DetectorFacts.parse(GOOD)
    assert facts.class_names == NAMES


def test_a_detector_of_other_maps_than_its_names_is_refused(tmp_path: Path) -> None:
    MaskDetector.load(build(tmp_path / "good.onnx"))
    two = build(tmp_path / "two.onnx", class_names=json.dumps(NAMES[:2]))
    with pytest.raises(UserError, match=r"scores is .*, where 2 channels are needed"):
        MaskDetector.load(two)
    with pytest.raises(UserError, match="its stride is 8, where 4 is known"):
        MaskDetector.load(build(tmp_path / "eight.onnx", stride="8"))
