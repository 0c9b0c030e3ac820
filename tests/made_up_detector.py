"""A detector whose every answer is known: it finds painted rectangles, exactly, by their colours.

A face is a rectangle on black whose red, green and blue are its scores for the three classes.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from unmask.mask.runtime.views import GREY

Box = tuple[int, int, int, int]
Colour = tuple[int, int, int]
NAMES = ("with_mask", "without_mask", "mask_weared_incorrect")
WITH, WITHOUT, IMPROPER = (230, 13, 8), (13, 230, 8), (8, 13, 230)
# A face that could be either.
UNSURE = (100, 100, 5)
SIDES = (("left", 3, True), ("top", 2, True), ("right", 3, False), ("bottom", 2, False))
REACH = 9  # Doublings: rectangles of up to 2 ** REACH pixels.


def paint(size: tuple[int, int], faces: list[tuple[Box, Colour]]) -> Image.Image:
    """A black image, size (width, height), with rectangles (box, colour)."""
    picture = Image.new("RGB", size)
    for box, colour in faces:
        picture.paste(colour, box)
    return picture


def build(path: Path, **metadata: str) -> Path:
    """Write the detector's ONNX file.

    The running maximum of the positions of dark pixels, by doubling, gives how far the rectangle
    goes to each side of every pixel; the centre is where these are equal to within a cell.
    """
    nodes, consts = [], {}

    def const(name: str, value: object, dtype: type = np.float32) -> str:
        consts[name] = np.array(value, dtype)
        return name

    def op(kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    one, axis1 = const("one", 1.0), const("axis1", [1], np.int64)
    bright = op("ReduceMax", ["pixels", axis1], "bright", keepdims=1)
    # What fills up the view beyond the image is as dark as the ground.
    beyond = op("Abs", [op("Sub", [bright, const("grey", GREY / 255)], "from_grey")], "off_grey")
    inside = op("Greater", [beyond, const("near", 0.002)], "inside")
    lit = op("And", [op("Greater", [bright, const("dark", 0.15)], "bright_enough"), inside], "lit")
    op("Add", [op("Mul", [bright, const("zero", 0.0)], "zeros"), one], "ones")
    distance = {}
    for side, axis, before in SIDES:
        ax = const(f"axis_{side}", axis, np.int64)
        # Positions from 1, counted from the side's own edge of the image.
        at = op("CumSum", ["ones", ax], f"at_{side}", reverse=0 if before else 1)
        run = op("Where", [lit, "zeros", at], f"dark_{side}")
        for k in range(REACH):
            step = 2**k
            pads = [0] * 8
            pads[axis if before else axis + 4] = step
            spread = op("Pad", [run, const(f"pads_{side}_{k}", pads, np.int64)], f"pad_{side}_{k}")
            kernel, dilation = [1, 1], [1, 1]
            kernel[axis - 2], dilation[axis - 2] = 2, step
            run = op(
                "MaxPool", [spread], f"run_{side}_{k}", kernel_shape=kernel, dilations=dilation
            )
        # From this pixel's near edge to the rectangle's edge.
        edge = op("Sub", [op("Sub", [at, one], f"edge_{side}"), run], f"extent_{side}")
        if not before:
            edge = op("Add", [edge, one], f"far_{side}")
        distance[side] = edge
    starts, ends = const("starts", [2, 2], np.int64), const("ends", [1 << 30] * 2, np.int64)
    axes, steps = const("axes", [2, 3], np.int64), const("steps", [4, 4], np.int64)

    def at_cells(name: str) -> str:
        return op("Slice", [name, starts, ends, axes, steps], f"{name}_cells")

    cells = {side: at_cells(name) for side, name in distance.items()}
    op("Concat", [cells[s] for s in ("left", "top", "right", "bottom")], "sides", axis=1)
    peak = at_cells(op("Cast", [lit], "lit_float", to=TensorProto.FLOAT))
    for a, b in (("left", "right"), ("top", "bottom")):
        off = op("Sub", [cells[a], cells[b]], f"off_{a}")
        low = op("GreaterOrEqual", [off, const(f"low_{a}", -4.0)], f"at_least_{a}")
        high = op("Less", [off, const(f"high_{a}", 4.0)], f"less_{a}")
        both = op("And", [low, high], f"centred_{a}")
        peak = op(
            "Mul", [peak, op("Cast", [both], f"centre_{a}", to=TensorProto.FLOAT)], f"peak_{a}"
        )
    op("Mul", [at_cells("pixels"), peak], "scores")
    graph = helper.make_graph(
        nodes,
        "rectangles",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["b", 3, "h", "w"])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["b", 3, "y", "x"]),
            helper.make_tensor_value_info("sides", TensorProto.FLOAT, ["b", 4, "y", "x"]),
        ],
        [onnx.numpy_helper.from_array(v, k) for k, v in consts.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    facts = {
        "class_names": json.dumps(NAMES),
        "thresholds": '{"face": 0.3, "certain": 0.6}',
        "stretch": "false",
    }
    helper.set_model_props(model, {**facts, **metadata})
    onnx.save(model, path)
    return path
