"""PyTorch modules as ONNX files: made in memory, and run before they are written."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.models.session import open_session as cpu_session

__all__ = ["TOLERANCE", "check_difference", "check_exporter", "cpu_session", "exported"]

# The largest difference from PyTorch's outputs that counts as rounding.
TOLERANCE = 1e-3


def check_exporter() -> None:
    """Raise UserError when onnx, onnxscript or onnxruntime isn't installed."""
    try:
        import onnxruntime  # type: ignore[import-untyped] # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            "exporting needs onnx, onnxscript and onnxruntime",
            got=str(error),
            do="pip install 'unmask[export]'",
        ) from error


def exported(
    module: nn.Module,
    pixels: Tensor,
    *,
    outputs: list[str],
    dynamic: dict[int, Any],
    metadata: dict[str, Any],
) -> bytes:
    """Return the ONNX file of a module that takes "pixels" to the outputs.

    Call check_exporter first.

    Args:
        module: in eval mode.
        pixels: an example of the input.
        outputs: names of what the module returns, in order.
        dynamic: which dimensions of pixels may differ, as torch.export has them.
        metadata: plain values by name, written as JSON.

    Returns:
        The bytes of the file.
    """
    # The exporter logs and warns about its internals, about which no user can do anything.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("torch.export").setLevel(logging.CRITICAL)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (pixels,),
            input_names=["pixels"],
            output_names=outputs,
            dynamic_shapes=(dynamic,),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        told = {key: json.dumps(value) for key, value in metadata.items()}
        # The exporter records at every node the source lines that it comes from, by full path.
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()
        # Constraints are in the order of a hash, which differs from process to process.
        program.model.graph.metadata_props.clear()
        program.model.metadata_props.update(told)
        file = Path(folder) / "model.onnx"
        program.save(file)
        return file.read_bytes()


def check_difference(difference: float, largest: float = 1.0) -> None:
    """Raise UserError for a difference from PyTorch's outputs that is too large for rounding.

    Args:
        difference: the largest absolute difference, at most TOLERANCE times largest.
        largest: the largest absolute value of an output.
    """
    if not difference <= TOLERANCE * largest:
        raise UserError(
            "ONNX Runtime and PyTorch disagree about this network, so nothing was written",
            got=f"a difference of {difference:.2g} between values up to {largest:.2g}",
            do="try another version of onnxscript",
        )
