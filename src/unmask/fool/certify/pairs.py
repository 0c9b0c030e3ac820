"""Operations of two tensors that both depend on the image, in steps whose bounds are known."""

from __future__ import annotations

import math

from torch import Tensor

from unmask.fool.certify.layers import CURVES
from unmask.fool.certify.operations import Elementwise, Operation, Sum
from unmask.fool.certify.relaxation import curved


def _quarter_square(x: Tensor) -> Tensor:
    return x * x / 4


_ADD, _SUBTRACT = Sum((1.0, 1.0)), Sum((1.0, -1.0))
_RELU = Elementwise(CURVES["relu"])
_QUARTER = Elementwise(curved(_quarter_square, -math.inf, math.inf, 0.5))
SQUARE = Elementwise(curved(lambda x: x * x, -math.inf, math.inf, 2.0))
# Each step has the places of what it takes: 0 and 1 are the two tensors, 2 the first step's result.
PAIRS: dict[str, tuple[tuple[Operation, tuple[int, ...]], ...]] = {
    "add": ((_ADD, (0, 1)),),
    "sub": ((_SUBTRACT, (0, 1)),),
    # a b = (a + b)^2 / 4 - (a - b)^2 / 4
    "mul": (
        (_ADD, (0, 1)),
        (_QUARTER, (2,)),
        (_SUBTRACT, (0, 1)),
        (_QUARTER, (4,)),
        (_SUBTRACT, (3, 5)),
    ),
    # max(a, b) = b + relu(a - b), and min(a, b) = a - relu(a - b)
    "max": ((_SUBTRACT, (0, 1)), (_RELU, (2,)), (_ADD, (1, 3))),
    "min": ((_SUBTRACT, (0, 1)), (_RELU, (2,)), (_SUBTRACT, (0, 3))),
}
