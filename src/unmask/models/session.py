"""ONNX files opened with ONNX Runtime; no PyTorch is imported here."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UserError
from unmask.runtime import open_regular, read_regular, sha256

_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
_CHANNELS = (1, 3, 4)
MAX_CLASSES, MAX_NAME = 100_000, 1000
_METADATA_LIMIT = 1 << 24


# A key and a value of an ONNX file's external data, in the bytes of its protocol buffer.
_EXTERNAL = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")
_FOLDER = "session.model_external_initializers_file_folder_path"


def external_files(content: bytes) -> list[str]:
    """Return the names of the files beside an ONNX file that hold its weights, none for most.

    Args:
        content: the ONNX file's bytes.
    """
    found = {
        content[at.end() : at.end() + at[1][0]].decode(errors="replace")
        for at in _EXTERNAL.finditer(content)
    }
    return sorted(found)


def read_onnx(path: str | Path) -> tuple[bytes, str]:
    """Return the bytes of an ONNX file and the SHA-256 of these and of its weights beside it.

    Args:
        path: of the .onnx file.

    Raises:
        UserError: it can't be read, or a file that holds its weights is missing or elsewhere.
    """
    try:
        content = read_regular(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise UserError(
            f"can't read {path}",
            got="there is no such file" if missing else error.strerror,
            do="give an .onnx file",
        ) from error
    digests = [sha256(content)]
    for name in external_files(content):
        # A path that leads out of the folder could open any file.
        inside = "/" not in name and "\\" not in name and name not in ("", "..")
        beside = Path(path).with_name(name) if inside else None
        if beside is None or not beside.is_file():
            raise UserError(
                f"{path} keeps its weights in another file, which isn't beside it",
                got=name,
                do="copy both into one folder, or export it as one file (external_data=False)",
            )
        with open_regular(beside) as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return content, digests[0] if len(digests) == 1 else sha256("".join(digests).encode())


def open_session(
    content: bytes | str | Path,
    *,
    threads: int = 0,
    name: str = "",
    entries: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Any:
    """Return an ONNX Runtime session of an ONNX file, on the CPU.

    Args:
        content: the file's bytes, or its path.
        threads: how many it uses, 0 for ONNX Runtime's choice.
        name: what messages call it; the path by default.
        entries: further settings of the session, by ONNX Runtime's names.
        folder: where external_files lie, for bytes.

    Raises:
        UserError: onnxruntime isn't installed, there is no such file, or it is no ONNX model.
    """
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as error:
        raise UserError(
            "an ONNX file needs onnxruntime", got=str(error), do="pip install onnxruntime"
        ) from error
    name = name or ("this file" if isinstance(content, bytes) else str(content))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    for key, value in {**(entries or {}), **({_FOLDER: str(folder)} if folder else {})}.items():
        options.add_session_config_entry(key, value)
    try:
        data = content if isinstance(content, bytes) else read_regular(content)
    except OSError as error:
        raise UserError(
            f"can't read {name}", got=error.strerror, do="give an .onnx file"
        ) from error
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions have no common base.
        raise UserError(
            f"{name} is no ONNX model that ONNX Runtime reads",
            got=(str(error).splitlines() or [type(error).__name__])[0][:200],
            do="export it again",
        ) from error


@dataclass(frozen=True, eq=False)
class OnnxClassifier:
    """An ONNX file that takes a batch of images to a row of numbers each, or to the class alone.

    Args:
        session: ONNX Runtime's.
        layout: "NCHW", "NHWC", "NHW" for grey images, or "flat" for the values of an image in
            order.
        dtype: what the graph takes; uint8 stands for 0..255.
        batch: the only batch size that it takes, None for any.
        channels: None where the graph doesn't state them.
        size: height and width, None where they are free.
        class_names: from the metadata, None without.
        output: the name of the output that is read: the one called logits, or the only possible
            one.
    """

    session: Any
    layout: Literal["NCHW", "NHWC", "NHW", "flat"]
    dtype: type[np.generic]
    batch: int | None
    channels: int | None
    size: tuple[int, int] | None
    class_names: tuple[str, ...] | None
    output: str

    @staticmethod
    def of(
        content: bytes | str | Path,
        *,
        threads: int = 0,
        name: str = "",
        folder: Path | None = None,
    ) -> OnnxClassifier:
        """Open an ONNX file.

        Args:
            content: the file's bytes, or its path.
            threads: how many it uses, 0 for ONNX Runtime's choice.
            name: what messages call it; the path by default.
            folder: where external_files lie, for bytes.

        Raises:
            UserError: as open_session does; or the graph doesn't take one batch of images.
        """
        session = open_session(content, threads=threads, name=name, folder=folder)
        told = name or ("the ONNX file" if isinstance(content, bytes) else str(content))
        inputs: list[Any] = session.get_inputs()
        shape = list(inputs[0].shape) if inputs else []
        if len(inputs) != 1 or len(shape) not in (0, 2, 3, 4) or inputs[0].type not in _TYPES:
            do = "export it with the image as its only input"
            if len(inputs) == 1 and inputs[0].type not in _TYPES:
                do = f"export it with an input of {', '.join(t.__name__ for t in _TYPES.values())}"
            raise UserError(
                f"{told} doesn't take one batch of images, [b, c, h, w] or [b, h, w, c]",
                got=", ".join(f"{i.name} {i.type}{i.shape}" for i in inputs) or "no input",
                do=do,
            )
        layout, channels, height, width = _layout(shape)
        fixed = isinstance(height, int) and isinstance(width, int)
        return OnnxClassifier(
            session=session,
            layout=layout,
            dtype=_TYPES[inputs[0].type],
            batch=shape[0] if shape and isinstance(shape[0], int) else None,
            channels=channels if isinstance(channels, int) else None,
            size=(height, width) if fixed else None,
            class_names=class_names_of(session, told),
            output=_output(session, told),
        )

    @property
    def input_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width, None where the graph doesn't state all three."""
        return None if self.size is None or self.channels is None else (self.channels, *self.size)

    def __call__(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return float32[b, classes] for a batch of images.

        Args:
            pixels: float32[b, c, h, w], scaled as the graph takes them.

        Raises:
            UserError: the graph gives the class alone.
        """
        found = self.answer(pixels)
        if found.dtype.kind in "iu":
            raise UserError(
                "the ONNX file gives the class alone, and this needs logits",
                got=f"{found.dtype}{list(found.shape)}",
                do="export it without its last argmax",
            )
        return found.astype(np.float32).reshape(len(found), -1)

    def answer(self, pixels: NDArray[np.float32]) -> NDArray[Any]:
        """Return the graph's output for a batch of images.

        A graph with a fixed batch size gets the images in parts, the last of which is filled up.

        Args:
            pixels: float32[b, c, h, w], scaled as the graph takes them.

        Returns:
            [b, ...], in the graph's type.
        """
        batch: NDArray[Any] = pixels
        if self.layout == "NHWC":
            batch = pixels.transpose(0, 2, 3, 1)
        elif self.layout == "NHW":
            batch = pixels[:, 0]
        elif self.layout == "flat":
            batch = pixels.reshape(len(pixels), -1)
        if self.dtype is np.uint8:
            batch = np.clip(np.rint(batch), 0, 255)
        batch = np.ascontiguousarray(batch.astype(self.dtype))
        name = self.session.get_inputs()[0].name
        each = self.batch or max(len(batch), 1)
        rows = []
        for start in range(0, len(batch), each):
            part = batch[start : start + each]
            filled = np.concatenate([part, np.repeat(part[-1:], each - len(part), 0)])
            rows.append(self.session.run([self.output], {name: filled})[0][: len(part)])
        found: NDArray[Any] = np.concatenate(rows)
        return found


def _layout(shape: list[Any]) -> tuple[Literal["NCHW", "NHWC", "NHW", "flat"], Any, Any, Any]:
    """Return the order of an input's dimensions, and its channels, height and width as stated."""
    if not shape:
        # Nothing is stated of it, not even how many dimensions it has.
        return "NCHW", None, None, None
    if len(shape) == 2:
        return "flat", None, None, None
    if len(shape) == 3:
        return "NHW", 1, shape[1], shape[2]
    if shape[3] in _CHANNELS and shape[1] not in _CHANNELS:
        return "NHWC", shape[3], shape[1], shape[2]
    return "NCHW", shape[1], shape[2], shape[3]


def _output(session: Any, told: str) -> str:
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
        f"it isn't clear which output of {told} is the logits",
        got=", ".join(f"{o.name} {o.type}{o.shape}" for o in outputs),
        do="name one of them logits",
    )


def class_names_of(session: Any, file: str) -> tuple[str, ...] | None:
    """Return the "class_names" in an ONNX file's metadata, None where it has none.

    Args:
        session: of the file.
        file: its name, for the error.

    Raises:
        UserError: they are no JSON list of 1 to MAX_CLASSES different strings, each of at most
            MAX_NAME characters.
    """
    metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
    if "class_names" not in metadata:
        return None
    try:
        return parse_class_names(metadata["class_names"])
    except ValueError as error:
        raise UserError(
            f"the class names in the metadata of {file} can't be read",
            got=error,
            do="export it again, with class_names as a JSON list of texts",
        ) from error


def parse_class_names(text: str) -> tuple[str, ...]:
    """Return the names in a JSON list; see class_names_of.

    Args:
        text: of the JSON.

    Raises:
        ValueError: it is no such list.
    """
    names = parse_metadata(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("no list of texts")
    if not 1 <= len(names) <= MAX_CLASSES or max(map(len, names)) > MAX_NAME:
        raise ValueError(f"{len(names)} names, or longer ones than {MAX_NAME} characters")
    if len(set(names)) != len(names):
        raise ValueError("a name that stands there twice")
    return tuple(names)


def parse_metadata(text: str) -> Any:
    """Return the values of a JSON text in a file's metadata.

    Args:
        text: of the JSON.

    Raises:
        ValueError: it is no JSON, or too long or deep.
    """
    if len(text) > _METADATA_LIMIT:
        raise ValueError(f"more than {_METADATA_LIMIT} characters")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON that is nested too deep") from None
