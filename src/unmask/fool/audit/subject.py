"""The model that is audited, wherever it comes from."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.fool.audit.packed import Packed
from unmask.fool.victim import Victim
from unmask.models.checkpoint import TensorFile
from unmask.models.classifier import Classifier
from unmask.models.imported import load_model
from unmask.runtime import sha256

_BATCH = 256


@dataclass(frozen=True, eq=False)
class Subject:
    """A function of pixels in [0, 1] that is audited.

    name: as the user wrote it. kind: "Unmask's", "PyTorch" or "ONNX". function: float32[b, c, h, w]
    to logits [b, classes]. module is None for a black box. class_names and input_shape (c, h, w):
    None where the model doesn't say. identity: the SHA-256 of its weights or file. made_from: the
    import path of its module, the content of its ONNX file, or None. An executor carries it to
    other processes as that and its weights (safetensors).
    """

    name: str
    kind: str
    function: Callable[[Tensor], Tensor]
    module: nn.Module | None
    class_names: tuple[str, ...] | None
    input_shape: tuple[int, int, int] | None
    identity: str
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    made_from: str | bytes | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self.made_from, bytes):
            return _onnx, (self.name, self.made_from, torch.get_num_threads())
        if self.module is None:
            raise UserError("this black box can't travel to another process", got=self.name)
        return _arrived, (self.name, self.kind, Packed.of(self.module, self.made_from))

    def victim(self, classes: int) -> Victim:
        """Return it with its cost counted, and its answers checked for their shape."""

        def checked(pixels: Tensor) -> Tensor:
            return _logits(self.function(pixels), len(pixels), classes)

        return Victim(
            checked,
            classes=classes,
            batch=_BATCH,
            differentiable=self.module is not None,
            device=self.device,
        )

    @staticmethod
    def of(module: nn.Module, name: str = "model", *, kind: str = "PyTorch") -> Subject:
        """Return a network as it stands: its mode isn't touched, nor are its weights."""
        card = module.card if isinstance(module, Classifier) else None
        parameters = next(module.parameters(), None)
        return Subject(
            name=name,
            kind=kind,
            function=module,
            module=module,
            class_names=card.class_names if card else None,
            input_shape=card.input_shape if card else None,
            identity=_identity(module),
            device=parameters.device if parameters is not None else torch.device("cpu"),
        )


def load_subject(source: str, *, weights: Path | None = None) -> Subject:
    """Return the model of a shipped name, a .safetensors or .onnx file, or an import path.

    weights: a safetensors file for the network that "my_module:make_model" makes, which is set to
    eval mode. An ONNX file is a black box that takes float32[b, c, h, w] in [0, 1] to logits.
    Raises UserError when something is missing, damaged, of another format, or would be unpickled.
    """
    suffix = Path(source).suffix.lower()
    imported = ":" in source and suffix not in (".onnx", ".safetensors", ".pt2")
    if weights is not None and not imported:
        raise UserError(
            "--weights are for a network by its import path alone",
            got=source,
            do="write my_module:make_model in the model's place",
        )
    if suffix in (".pt2", ".pt", ".pth", ".ckpt", ".pkl", ".bin"):
        raise UserError(
            f"a {suffix} file can hold pickles, which could run any code when opened",
            got=source,
            do="save the weights as safetensors and name the network (my_module:make_model "
            "--weights FILE), or export it as ONNX",
        )
    if suffix == ".onnx":
        try:
            content = Path(source).read_bytes()
        except OSError as error:
            raise UserError("there is no such file", got=source, do="give an .onnx file") from error
        return _onnx(source, content, torch.get_num_threads())
    if not imported:
        return Subject.of(Classifier.load(source), source, kind="Unmask's")
    module = load_model(source)
    if weights is not None:
        TensorFile(weights).load_into(module)
    return replace(Subject.of(module.eval(), source), made_from=source)


# Every task of a worker is handed the model anew, and a worker serves one audit at a time.
@functools.lru_cache(maxsize=2)
def _arrived(name: str, kind: str, packed: Packed) -> Subject:
    return replace(Subject.of(packed.module(), name, kind=kind), made_from=packed.path)


@functools.lru_cache(maxsize=2)
def _onnx(path: str, content: bytes, threads: int) -> Subject:
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as error:
        raise UserError(
            "an ONNX file needs onnxruntime", got=str(error), do="pip install 'unmask[export]'"
        ) from error
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(
            f"{path} is no ONNX model that ONNX Runtime reads",
            got=str(error).splitlines()[0][:200],
            do="export it again",
        ) from error
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type != "tensor(float)":
        raise UserError(
            f"{path} doesn't take one batch of pictures, float32[b, c, h, w]",
            got=", ".join(f"{i.name} {i.type}{i.shape}" for i in inputs),
            do="export it with pixels in [0, 1] as its only input",
        )
    fixed = isinstance(inputs[0].shape[0], int)
    name, shape = inputs[0].name, inputs[0].shape[1:]
    output = session.get_outputs()[0].name

    def run(pixels: Tensor) -> Tensor:
        batch = pixels.detach().cpu().numpy().astype(np.float32)
        # An export for one picture alone is fed one at a time.
        parts = np.split(batch, len(batch)) if fixed else [batch]
        return torch.from_numpy(
            np.concatenate([session.run([output], {name: part})[0] for part in parts])
        )

    told: dict[str, Any] = session.get_modelmeta().custom_metadata_map
    names = json.loads(told["class_names"]) if "class_names" in told else None
    return Subject(
        name=path,
        kind="ONNX",
        function=run,
        module=None,
        class_names=None if names is None else tuple(names),
        input_shape=tuple(shape) if all(isinstance(v, int) for v in shape) else None,
        identity=sha256(content),
        made_from=content,
    )


def _logits(answer: object, pictures: int, classes: int) -> Tensor:
    if not isinstance(answer, Tensor):
        raise UserError(
            "the model must return one tensor of logits",
            got=f"a {type(answer).__name__}",
            do="wrap it in a module that returns the logits alone",
        )
    if tuple(answer.shape) != (pictures, classes):
        raise UserError(
            f"the model must return {classes} logits a picture, one for each class",
            got=f"a tensor of shape {list(answer.shape)} for {pictures} pictures",
            do="give the pictures that it was trained on",
        )
    return answer


def _identity(module: nn.Module) -> str:
    chunks: list[bytes | memoryview] = []
    for name, tensor in sorted(module.state_dict().items()):
        chunks += [name.encode(), tensor.detach().cpu().contiguous().float().numpy().tobytes()]
    return sha256(*chunks)
