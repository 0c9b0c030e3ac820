"""The same network in other runtimes: half precision, channels last, compiled, ONNX, 8 bits."""

from __future__ import annotations

import contextlib
import copy
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unmask.models.answer import only_tensor
from unmask.shift.target import Target

# Severities of ONNX Runtime's log.
_WARNING, _FATAL = 2, 4


@dataclass(frozen=True)
class RuntimeResult:
    """The agreement of another runtime with PyTorch in fp32 on n images.

    Args:
        name: of the runtime.
        images: n.
        agreement: the fraction whose predicted class is the same; None where it couldn't be run.
        flips: the images whose predicted class differs, by their place, at most 100.
        difference: the largest difference of logits over the largest logit.
        accuracy: of this runtime.
        reason: why it couldn't be run; "" otherwise.
    """

    name: str
    images: int
    agreement: float | None = None
    flips: tuple[int, ...] = ()
    difference: float | None = None
    accuracy: float | None = None
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return asdict(self)


Run = Callable[[Tensor], Tensor]


def _cast(module: nn.Module, dtype: torch.dtype) -> Run:
    network = copy.deepcopy(module).eval().to(dtype)
    return lambda x: only_tensor(network(x.to(dtype)), len(x), None)


def _channels_last(module: nn.Module) -> Run:
    network = copy.deepcopy(module).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return lambda x: only_tensor(
        network(x.contiguous(memory_format=torch.channels_last)), len(x), None
    )


def _compiled(module: nn.Module) -> Run:
    network = torch.compile(copy.deepcopy(module).eval())
    return lambda x: only_tensor(network(x), len(x), None)


class _Logits(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits alone."""
        return only_tensor(self.module(pixels), pixels.shape[0], None)


def _exported(module: nn.Module, pixels: Tensor) -> bytes:
    from unmask.models.onnx_file import check_exporter, exported

    check_exporter()
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    network = _Logits(copy.deepcopy(module).cpu()).eval()
    return exported(network, pixels[:2].cpu(), outputs=["logits"], dynamic={0: batch}, metadata={})


def _session(content: bytes) -> Run:
    from unmask.models.onnx_file import cpu_session

    session = cpu_session(content, threads=torch.get_num_threads())

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"pixels": x.cpu().numpy()})[0])

    return run


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    # The quantiser advises a step before it that changes none of the figures asked for here, and
    # logs what the answer of a runtime that fails says too.
    import onnxruntime  # type: ignore[import-untyped]

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(_FATAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)
        logging.disable(before)


def _int8(content: bytes, pixels: Tensor) -> Run:
    """Quantise an ONNX file statically, calibrated on these images."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(torch.split(pixels, 16))

        def get_next(self) -> dict[str, Any] | None:
            chunk = next(self.rest, None)
            return None if chunk is None else {"pixels": chunk.cpu().numpy()}

    with tempfile.TemporaryDirectory() as folder:
        fp32, int8 = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        fp32.write_bytes(content)
        with _unlogged():
            quantization.quantize_static(
                str(fp32), str(int8), Reader(), quant_format=quantization.QuantFormat.QDQ
            )
        return _session(int8.read_bytes())


def runtimes(
    target: Target,
    pixels: Tensor,
    labels: NDArray[np.int64],
    *,
    compiled: bool = False,
    onnx: bool = True,
) -> list[RuntimeResult]:
    """Return the agreement of other runtimes with the model as it is.

    Args:
        target: the model; a black box has no other runtime.
        pixels: float32[n, c, h, w] in [0, 1].
        labels: int64[n].
        compiled: whether torch.compile is tried, which needs a C++ compiler and about a minute.
        onnx: whether ONNX Runtime is tried, fp32 and int8, which needs the exporter.
    """
    module = target.module
    if module is None:
        return []
    stated = target.logits(pixels)
    makers: dict[str, Callable[[], Run]] = {
        "bfloat16": lambda: _cast(module, torch.bfloat16),
        "float16": lambda: _cast(module, torch.float16),
        "channels_last": lambda: _channels_last(module),
    }
    if compiled:
        makers["torch.compile"] = lambda: _compiled(module)
    if onnx:
        content: list[bytes] = []

        def fp32() -> Run:
            content.append(_exported(module, pixels))
            return _session(content[0])

        def int8() -> Run:
            if not content:
                raise RuntimeError("the export to ONNX failed")
            return _int8(content[0], pixels[:64])

        makers["ONNX Runtime fp32"], makers["ONNX Runtime int8"] = fp32, int8
    return [_tried(name, make, target, pixels, stated, labels) for name, make in makers.items()]


def _tried(
    name: str,
    make: Callable[[], Run],
    target: Target,
    pixels: Tensor,
    stated: Tensor,
    labels: NDArray[np.int64],
) -> RuntimeResult:
    try:
        found = replace(target, function=make(), module=None).logits(pixels)
    except Exception as error:
        line = (str(error).splitlines() or [""])[0][:160]
        return RuntimeResult(name, len(labels), reason=f"{type(error).__name__}: {line}")
    same = found.argmax(1) == stated.argmax(1)
    largest = float(stated.abs().max()) or 1.0
    return RuntimeResult(
        name,
        len(labels),
        agreement=float(same.double().mean()),
        flips=tuple(int(i) for i in (~same).nonzero().flatten()[:100]),
        difference=float((found - stated).abs().max()) / largest,
        accuracy=float((found.argmax(1) == torch.from_numpy(labels)).double().mean()),
    )
