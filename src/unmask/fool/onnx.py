"""An ONNX file as a victim: whatever its input is called, shaped, typed or ordered."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unmask.errors import UserError
from unmask.fool.victim import Preprocessing, Victim
from unmask.models.session import class_names_of
from unmask.runtime import sha256

_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
_CHANNELS = (1, 3, 4)


# Every task of a worker is handed the model anew, and a worker serves one audit at a time.
@functools.lru_cache(maxsize=2)
def onnx_victim(
    path: str, content: bytes, threads: int, preprocessing: Preprocessing | None
) -> Victim:
    """Return an ONNX file as a black box that takes float32[b, c, h, w] in [0, 1].

    A batch of fixed size is padded, channels last are moved there, values are cast (to 0..255 for
    uint8), and a flat input [b, values] is given the image's values in order. Of several outputs
    the one called logits is read, or the only one that can be logits; int64 [b] is the class
    alone.

    Args:
        path: what it is called in messages.
        content: the file.
        threads: how many work on it.
        preprocessing: what the model wants done to pixels in [0, 1].

    Raises:
        UserError: when ONNX Runtime can't read it, or its input isn't one batch of images.
    """
    session = _session(path, content, threads)
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in _TYPES or len(inputs[0].shape) not in (2, 3, 4):
        raise UserError(
            f"{path} doesn't take one batch of images",
            got=", ".join(f"{i.name} {i.type}{i.shape}" for i in inputs),
            do="export it with the images as its only input, [b, c, h, w]",
        )
    given = inputs[0]
    kind = _TYPES[given.type]
    fixed = given.shape[0] if isinstance(given.shape[0], int) else None
    shape, last = _layout(given.shape[1:])
    outputs = [_output(path, session)]

    def run(pixels: Tensor) -> Any:
        batch = _cast(pixels.detach().cpu().numpy(), kind)
        if last:
            batch = batch.transpose(0, 2, 3, 1)
        if len(given.shape) == 3:
            batch = batch[:, 0]
        if len(given.shape) == 2:
            batch = batch.reshape(len(batch), -1)
        batch = np.ascontiguousarray(batch)
        if not fixed:
            return session.run(outputs, {given.name: batch})[0]
        # An export for a fixed number of images is given its number, the last ones repeated.
        parts = []
        for start in range(0, len(batch), fixed):
            part = batch[start : start + fixed]
            whole = np.concatenate([part, np.repeat(part[-1:], fixed - len(part), axis=0)])
            parts.append(session.run(outputs, {given.name: whole})[0][: len(part)])
        return np.concatenate(parts)

    return Victim(
        run,
        differentiable=False,
        name=path,
        kind="ONNX",
        class_names=class_names_of(session, path),
        input_shape=shape,
        identity=sha256(content),
        made_from=content,
        preprocessing=preprocessing,
    )


def _session(path: str, content: bytes, threads: int) -> Any:
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as error:
        raise UserError(
            "an ONNX file needs onnxruntime", got=str(error), do="pip install onnxruntime"
        ) from error
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(
            f"{path} is no ONNX model that ONNX Runtime reads",
            got=str(error).splitlines()[0][:200],
            do="export it again",
        ) from error


def _layout(shape: list[Any]) -> tuple[tuple[int, int, int] | None, bool]:
    """Return channels, height and width of an input where it says, and if channels come last."""
    known = all(isinstance(v, int) for v in shape)
    if len(shape) == 2 and known:
        return (1, shape[0], shape[1]), False
    if len(shape) != 3:
        return None, False
    last = shape[2] in _CHANNELS and shape[0] not in _CHANNELS
    ordered = (shape[2], shape[0], shape[1]) if last else tuple(shape)
    return (ordered if known else None), last


def _output(path: str, session: Any) -> str:
    """Return the name of the output that holds the logits, or the class alone."""
    outputs = session.get_outputs()
    floats = [o for o in outputs if "float" in o.type or "double" in o.type]
    fitting = [o for o in floats if len(o.shape) == 2] or floats
    for chosen in ([o for o in fitting if "logit" in o.name.lower()], fitting):
        if len(chosen) == 1:
            return str(chosen[0].name)
    if not fitting and len(outputs) == 1:
        return str(outputs[0].name)
    raise UserError(
        f"it isn't clear which output of {path} is the logits",
        got=", ".join(f"{o.name} {o.type}{o.shape}" for o in outputs),
        do="name one of them logits",
    )


def _cast(pixels: NDArray[Any], kind: Any) -> NDArray[Any]:
    if kind is np.uint8:
        kind, pixels = np.uint8, np.rint(pixels * 255).clip(0, 255)
    cast: NDArray[Any] = pixels.astype(kind)
    return cast
