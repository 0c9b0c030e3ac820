"""A model by any of its names, ready to take pixels in [0, 1] to logits."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unmask.data.sources import sides
from unmask.errors import UserError, unknown
from unmask.models.card import ModelCard
from unmask.models.checkpoint import TensorFile
from unmask.models.classifier import Classifier, shipped
from unmask.models.imported import load_model as load_imported
from unmask.models.preprocessing import Preprocessing, Wrapped
from unmask.models.session import OnnxClassifier, read_onnx
from unmask.models.zoo import ZOO, is_transformers_folder, split_source

# Files that can hold pickles, and those of other libraries.
PICKLES = (".pt2", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".joblib", ".t7")
_FOREIGN = {
    **dict.fromkeys((".h5", ".hdf5", ".keras", ".pb", ".tflite"), "TensorFlow or Keras"),
    **dict.fromkeys((".mlmodel", ".mlpackage"), "Core ML"),
    **dict.fromkeys((".pdmodel", ".pdparams"), "PaddlePaddle"),
    **dict.fromkeys((".npz", ".npy"), "NumPy"),
    **dict.fromkeys((".engine", ".trt"), "TensorRT"),
    ".gguf": "llama.cpp",
    ".xml": "OpenVINO",
}


def load_model(
    source: str | Path | nn.Module,
    *,
    weights: str | Path | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    size: int | tuple[int, int] | None = None,
) -> Classifier | Wrapped:
    """Return a model that takes pixels in [0, 1], float[b, c, h, w], to logits, in eval mode.

    Other outputs are unwrapped: tuples, dictionaries, a ModelOutput, one logit for two classes; of
    a softmax the logarithm is taken. Resizing and normalisation are those that the model's own
    config states; describe() tells which.

    Args:
        source: a name that ships, such as "mnist"; a .safetensors file with its card; an .onnx
            file; "my_module:make_model"; "timm:NAME", "torchvision:NAME" or "hf:FOLDER-or-NAME",
            each with "@FILE.safetensors" or "@random" for other weights; a folder that `unmask
            train` or transformers wrote; or an nn.Module.
        weights: a .safetensors file for your own module.
        mean: one number or one a channel that is subtracted from pixels in [0, 1], for your own
            module or an ONNX file.
        std: what they are divided by then.
        size: the height and width that the model takes, where it doesn't state them.

    Raises:
        UserError: there is no such model, it is damaged, holds pickles, needs code of its own to be
            run, or an option doesn't go with it.

    Example:
        >>> model = unmask.load_model(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
        >>> model(torch.rand(3, 1, 2, 2)).shape
        torch.Size([3, 2])
    """
    given = weights is not None, mean is not None or std is not None or size is not None
    if isinstance(source, nn.Module):
        if isinstance(source, (Classifier, Wrapped)):
            _refuse(given, type(source).__name__)
            return source.eval()
        return _wrapped(source, type(source).__name__, "PyTorch", weights, mean, std, size)
    name = str(source)
    refuse_format(name)
    suffix = Path(name).suffix.lower()
    if suffix == ".onnx":
        if weights is not None:
            _refuse(given, name)
        return _onnx(name, mean, std, size)
    prefix, colon, _ = name.partition(":")
    if colon and prefix in ZOO and weights is not None:
        raise UserError("weights are given with @ here", got=name, do=f"{name}@{weights}")
    if not (colon and prefix in ZOO) and not _imported(name):
        _refuse(given, name)
    known = load_known(name)
    if known is not None:
        return known
    network = load_imported(name)
    if isinstance(network, (Classifier, Wrapped)) and not any(given):
        return network.eval()
    return _wrapped(network, name, "PyTorch", weights, mean, std, size)


def refuse_format(name: str) -> None:
    """Raise UserError for a file that would be unpickled, or is of another library.

    Args:
        name: of a model; names that are no files pass.
    """
    suffix = Path(name).suffix.lower()
    network = "save the weights as safetensors and name the network (my_module:make_model)"
    if suffix in PICKLES:
        raise UserError(
            f"a {suffix} file can hold pickles, which could run any code when opened",
            got=name,
            do=f"{network}, or export it as ONNX",
        )
    if suffix == ".py":
        raise UserError(
            "a Python file is no model by itself",
            got=name,
            do=f"name the class or the function in it that makes one: {name}:make_model",
        )
    if suffix in _FOREIGN:
        raise UserError(
            f"a {suffix} file is of {_FOREIGN[suffix]}, which isn't read",
            got=name,
            do=f"export it as ONNX, or {network}",
        )


def load_known(name: str) -> Classifier | Wrapped | None:
    """Return the model that a name, a folder or a .safetensors file stands for, in eval mode.

    Args:
        name: see load_model.

    Returns:
        The model, or None for the import path of your own module.

    Raises:
        UserError: as load_model does.
    """
    prefix, colon, rest = name.partition(":")
    if colon and prefix in ZOO:
        if not split_source(rest)[0].strip():
            raise UserError(
                f"it isn't said which model of {prefix} is meant",
                got=name,
                do=f"write {prefix}:NAME",
            )
        return ZOO[prefix](*split_source(rest))
    if _imported(name):
        _suggest(prefix)
        return None
    path = Path(name)
    if path.is_dir() and name not in shipped():
        if is_transformers_folder(path):
            return ZOO["hf"](name, "")
        if not (path / "model.safetensors").is_file():
            raise UserError(
                f"the folder {name} holds no model", got="no model.safetensors", do=_KNOWN
            )
        return Classifier.load(path / "model.safetensors")
    return Classifier.load(name)


def load_network(name: str) -> nn.Module:
    """Return load_known's model, or the network of an import path as it is.

    Args:
        name: see load_model.

    Raises:
        UserError: as load_model does.
    """
    refuse_format(name)
    known = load_known(name)
    return load_imported(name) if known is None else known


def _suggest(prefix: str) -> None:
    """Raise UserError where a prefix is no module and resembles the name of a library."""
    near = _OTHER_NAMES.get(prefix.lower(), prefix.lower())
    if not difflib.get_close_matches(near, list(ZOO), cutoff=0.7):
        return
    own = (Path(prefix), Path(f"{prefix}.py"))
    if importlib.util.find_spec(prefix) is None and not any(path.exists() for path in own):
        raise unknown("library of models", prefix, ZOO)


_OTHER_NAMES = {"huggingface": "hf", "tv": "torchvision"}


def _imported(name: str) -> bool:
    suffix = Path(name).suffix.lower()
    return ":" in name and suffix != ".safetensors" and not Path(name).exists()


_KNOWN = "give a folder that unmask train wrote, a .safetensors or an .onnx file"


def _wrapped(
    network: nn.Module,
    name: str,
    kind: str,
    weights: str | Path | None,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    size: int | tuple[int, int] | None,
) -> Wrapped:
    if weights is not None:
        TensorFile(Path(weights)).load_into(network)
    steps = _stated(mean, std, size)
    shape = None if steps.size is None else (3, *steps.size)
    return Wrapped(network.eval(), name=name, kind=kind, preprocessing=steps, input_shape=shape)


def _stated(
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    size: int | tuple[int, int] | None,
    scale: float = 1.0,
) -> Preprocessing:
    means = tuple(np.atleast_1d(np.asarray(0.0 if mean is None else mean, float)).tolist())
    stds = tuple(np.atleast_1d(np.asarray(1.0 if std is None else std, float)).tolist())
    longest = max(len(means), len(stds))
    return Preprocessing(
        size=(size, size) if isinstance(size, int) else size,
        scale=scale,
        mean=means * longest if len(means) == 1 else means,
        std=stds * longest if len(stds) == 1 else stds,
    )


def _onnx(
    path: str,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    size: int | tuple[int, int] | None,
) -> Wrapped:
    content, _ = read_onnx(path)
    threads = torch.get_num_threads()
    graph = OnnxClassifier.of(content, threads=threads, name=path, folder=Path(path).parent)
    steps = _stated(mean, std, size or graph.size, 255.0 if graph.dtype is np.uint8 else 1.0)
    shape = None
    if steps.size is not None and graph.channels is not None:
        shape = (graph.channels, *steps.size)
    return Wrapped(
        OnnxNetwork(graph),
        name=path,
        kind="ONNX",
        preprocessing=steps,
        class_names=graph.class_names,
        input_shape=shape,
        differentiable=False,
    ).eval()


class OnnxNetwork(nn.Module):
    """An ONNX file as a module, which has no gradient.

    Args:
        graph: the opened file.
    """

    def __init__(self, graph: OnnxClassifier) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the graph's output, float32[b, classes], for float[b, c, h, w]."""
        rows = self.graph(pixels.detach().float().cpu().numpy())
        return torch.from_numpy(rows).to(pixels.device)


def _refuse(given: tuple[bool, bool], name: str) -> None:
    for had, what in zip(given, ("weights", "preprocessing"), strict=True):
        if had:
            raise UserError(f"this model has its own {what}", got=name, do=f"leave the {what} out")


def card_of(
    model: Classifier | Wrapped,
    *,
    input_shape: tuple[int, int, int] | None = None,
    class_names: Sequence[str] | None = None,
) -> ModelCard:
    """Return a model's card, made of what is known where it has none.

    Args:
        model: as load_model returns it.
        input_shape: channels, height and width of the images, where the model doesn't state them.
        class_names: of the classes, where the model doesn't state them.

    Raises:
        UserError: the images or classes that it takes are not known from either.
    """
    if isinstance(model, Classifier):
        return model.card
    shape, names = model.input_shape or input_shape, model.class_names or class_names
    if shape is None or not names:
        raise UserError(
            f"{model.name} doesn't say what "
            + ("images it takes" if shape is None else "its classes are"),
            do="give --size" if shape is None else "give images with its classes",
        )
    steps = model.preprocessing
    mean, std = (
        tuple(v / steps.scale for v in (values * shape[0] if len(values) == 1 else values))
        for values in (steps.mean, steps.std)
    )
    return ModelCard(
        architecture=model.name,
        settings={},
        input_shape=shape,
        mean=mean,
        std=std,
        class_names=tuple(names),
        facts={"kind": model.kind, "preprocessing": str(steps)},
    )


@torch.no_grad()
def probed_card(model: Classifier | Wrapped, size: Sequence[int] | None = None) -> ModelCard:
    """Return card_of; where nothing names the classes, one black image tells how many there are.

    Args:
        model: as load_model returns it.
        size: of the images, where the model doesn't state it; see sides.

    Raises:
        UserError: the images that it takes are not known from either, or it doesn't take them.
    """
    if isinstance(model, Classifier):
        return model.card
    shape = model.input_shape or (None if size is None else (3, *sides(size)))
    if model.class_names is not None or shape is None:
        return card_of(model, input_shape=shape, class_names=model.class_names or ("", " "))
    try:
        classes = model(torch.zeros(1, *shape)).shape[1]
    except RuntimeError as error:
        raise UserError(
            f"{model.name} doesn't take images of {' x '.join(map(str, shape))}",
            got=str(error).splitlines()[0],
            do="give --size",
        ) from error
    return card_of(model, input_shape=shape, class_names=tuple(map(str, range(classes))))


def known_models() -> list[dict[str, Any]]:
    """Return the models that ship and the ways to name others, as plain rows.

    Returns:
        One dictionary a row: name, what it is, and from its card the accuracy on test images and
        the mean under all corruptions at severity 3, each None where the card has none.
    """
    rows: list[dict[str, Any]] = []
    for name in shipped():
        card = Classifier.load(name).card
        figures = card.facts.get("figures", {})
        rows.append(
            {
                "name": name,
                "what": f"{card.architecture}, {len(card.class_names)} classes, images of "
                f"{' x '.join(map(str, card.input_shape))}",
                "test_accuracy": figures.get("test_accuracy"),
                "shift_accuracy": card.facts.get("shift", {}).get("accuracy_at_severity_3"),
            }
        )
    for name, what in (
        ("FILE.safetensors", "weights with their card beside them, as unmask train writes"),
        ("FILE.onnx", "a black box: float32, float16 or uint8, NCHW or NHWC, any batch"),
        ("my_module:make_model", "a network of your own; pixels in [0, 1] go in"),
        *((f"{prefix}:NAME", f"a classifier of {_LIBRARY.get(prefix, prefix)}") for prefix in ZOO),
    ):
        rows.append({"name": name, "what": what, "test_accuracy": None, "shift_accuracy": None})
    return rows


_LIBRARY = {
    "timm": "timm, @FILE.safetensors or @random behind it",
    "torchvision": "torchvision, with @FILE.safetensors or @random behind it",
    "hf": "transformers, a folder or a name on the hub",
}
