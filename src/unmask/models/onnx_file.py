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

# The largest difference from PyTorch's answers that is taken for rounding.
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

    pixels: an example. dynamic: of its dimensions, those that may differ, as torch.export has them.
    metadata: plain values, written as JSON. check_exporter comes first.
    """
    # The exporter logs and warns about its own workings, which no user can act on.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
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
        # The exporter notes at every node the lines of the files that it comes from, by full path.
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()
        # Constraints stand in the order of a hash, which differs from process to process.
        program.model.graph.metadata_props.clear()
        program.model.metadata_props.update(told)
        file = Path(folder) / "model.onnx"
        program.save(file)
        return file.read_bytes()


def check_difference(difference: float, largest: float = 1.0) -> None:
    """Raise UserError unless a difference from PyTorch's answers is TOLERANCE of the largest."""
    if not difference <= TOLERANCE * largest:
        raise UserError(
            "ONNX Runtime and PyTorch disagree about this network, so nothing was written",
            got=f"a difference of {difference:.2g} between values up to {largest:.2g}",
            do="try another version of onnxscript",
        )
