"""ONNX files as they come: fixed batches, other layouts and types, more outputs than one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from unmask.errors import UserError
from unmask.fool.source import load_victim

C, H, W, CLASSES = 3, 6, 5, 7
WEIGHTS = np.random.default_rng(0).normal(size=(C * H * W, CLASSES)).astype(np.float32)


def written(
    path: Path,
    shape: list[Any],
    *,
    kind: int = TensorProto.FLOAT,
    last: bool = False,
    scale: float = 1.0,
    outputs: tuple[str, ...] = ("scores",),
) -> Path:
    """Write a linear model of images in [0, 1], whatever it is given them as."""
    nodes, at = [], "x"
    if kind != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [at], ["float"], to=TensorProto.FLOAT))
        at = "float"
    if last:
        nodes.append(helper.make_node("Transpose", [at], ["first"], perm=[0, 3, 1, 2]))
        at = "first"
    nodes += [
        helper.make_node("Flatten", [at], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["raw"]),
        helper.make_node("Identity", ["raw"], ["scores"]),
        helper.make_node("Identity", ["raw"], ["logits"]),
        helper.make_node("Relu", ["raw"], ["other"]),
        helper.make_node("ArgMax", ["raw"], ["label"], axis=1, keepdims=0),
    ]
    kinds = {"label": (TensorProto.INT64, [shape[0]])}
    told = [
        helper.make_tensor_value_info(n, *kinds.get(n, (TensorProto.FLOAT, [shape[0], CLASSES])))
        for n in outputs
    ]
    weights = numpy_helper.from_array(WEIGHTS * np.float32(scale), "w")
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, shape)], told, [weights]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


PIXELS = (torch.randint(0, 256, (5, C, H, W), generator=torch.Generator().manual_seed(1))).float()
PIXELS = PIXELS / 255
EXPECTED = PIXELS.flatten(1) @ torch.from_numpy(WEIGHTS)


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        (["b", C, H, W], {}),
        ([8, C, H, W], {}),
        ([2, C, H, W], {}),
        (["b", H, W, C], {"last": True}),
        (["b", C * H * W], {}),
        (["b", C, H, W], {"kind": TensorProto.FLOAT16}),
        (["b", C, H, W], {"kind": TensorProto.DOUBLE}),
        (["b", C, H, W], {"kind": TensorProto.UINT8, "scale": 1 / 255}),
        (["b", C, H, W], {"outputs": ("other", "logits")}),
        (["b", C, H, W], {"outputs": ("label", "scores")}),
    ],
)
def test_the_logits_are_those_of_the_images(
    shape: list[Any], settings: dict[str, Any], tmp_path: Path
) -> None:
    victim = load_victim(str(written(tmp_path / "m.onnx", shape, **settings)))
    tolerance = 2e-2 if settings.get("kind") == TensorProto.FLOAT16 else 1e-4
    torch.testing.assert_close(victim.logits(PIXELS), EXPECTED, rtol=tolerance, atol=tolerance)
    assert not victim.labels_only


def test_the_class_alone_is_a_label_only_victim(tmp_path: Path) -> None:
    path = written(tmp_path / "m.onnx", ["b", C, H, W], outputs=("label",))
    victim = load_victim(str(path)).fresh(CLASSES)
    assert (victim.logits(PIXELS).argmax(1) == EXPECTED.argmax(1)).all()
    assert victim.labels_only


def test_what_is_not_clear_is_named(tmp_path: Path) -> None:
    both = written(tmp_path / "m.onnx", ["b", C, H, W], outputs=("scores", "other"))
    with pytest.raises(UserError, match=r"isn.t clear which output of .*m\.onnx"):
        load_victim(str(both))
