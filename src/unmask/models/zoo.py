"""Image classifiers of other libraries by name, with the preprocessing that their configs state."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unmask.errors import UserError, unknown
from unmask.models.checkpoint import TensorFile
from unmask.models.preprocessing import Preprocessing, Wrapped
from unmask.registry import Registry
from unmask.runtime import read_regular
from unmask.text import told

Loader = Callable[[str, str], Wrapped]
RANDOM = "random"
# Pillow's numbers for filters, which transformers' configs hold.
_MOST_BYTES = 10 * 2**20
_RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}

ZOO: Registry[Loader] = Registry("zoo")


def split_source(source: str) -> tuple[str, str]:
    """Return a name and what follows its last @: weights, "random" or ""."""
    name, at, weights = source.rpartition("@")
    return (name, weights) if at else (source, "")


@ZOO.register("timm")
def load_timm(name: str, weights: str) -> Wrapped:
    """Return timm's network of that name.

    Args:
        name: as timm.create_model takes it.
        weights: a safetensors file, "random", or "" for the weights that timm fetches.

    Raises:
        UserError: timm isn't installed, knows no such network, or has no weights for it.
    """
    timm = _imported("timm", "zoo")
    if not timm.is_model(name.partition(".")[0]):
        raise unknown("timm model", name, timm.list_models())
    pretrained = weights == ""
    with _seeded(), _explained(f"timm made no {name}", pretrained):
        network = timm.create_model(name, pretrained=pretrained)
        if (classes := _other_classes(network, weights)) is not None:
            network = timm.create_model(name, pretrained=False, num_classes=classes)
    if getattr(network, "num_classes", None) == 0:
        raise UserError(
            f"timm's {name} gives features and no classes",
            got="a network without a head",
            do=f"fine-tune it, save the weights as safetensors and give timm:{name}@FILE",
        )
    _fill(network, weights)
    config = timm.data.resolve_model_data_config(network)
    channels, height, width = config["input_size"]
    return Wrapped(
        network.eval(),
        name=name,
        kind="timm",
        preprocessing=Preprocessing(
            size=(int(height), int(width)),
            crop=float(config.get("crop_pct") or 1.0),
            interpolation=_interpolation(config.get("interpolation")),
            mean=tuple(map(float, config["mean"])),
            std=tuple(map(float, config["std"])),
        ),
        class_names=_timm_names(timm, network),
        input_shape=(int(channels), int(height), int(width)),
    )


@ZOO.register("torchvision")
def load_torchvision(name: str, weights: str) -> Wrapped:
    """Return torchvision's classifier of that name, with the preprocessing of its own weights.

    Args:
        name: as torchvision.models.get_model takes it.
        weights: a safetensors file or "random"; torchvision's own files are pickles.

    Raises:
        UserError: torchvision isn't installed, knows no such network, or weights is "".
    """
    models = _imported("torchvision", "zoo", "torchvision.models")
    names = models.list_models(module=models)
    if name not in names:
        raise unknown("torchvision model", name, names)
    if weights == "":
        raise UserError(
            "torchvision's weights are pickles, which could run any code when opened",
            got=name,
            do=f"save them as safetensors, and write torchvision:{name}@FILE.safetensors (or "
            f"torchvision:{name}@random)",
        )
    with _seeded(), _explained(f"torchvision made no {name}", pretrained=False):
        network = models.get_model(name, weights=None)
        if (classes := _other_classes(network, weights)) is not None:
            network = models.get_model(name, weights=None, num_classes=classes)
    _fill(network, weights)
    stated = models.get_model_weights(name).DEFAULT
    steps = stated.transforms()
    side, resized = int(steps.crop_size[0]), int(steps.resize_size[0])
    return Wrapped(
        network.eval(),
        name=name,
        kind="torchvision",
        preprocessing=Preprocessing(
            size=(side, side),
            crop=min(side / resized, 1.0),
            interpolation=_interpolation(getattr(steps.interpolation, "value", None)),
            mean=tuple(map(float, steps.mean)),
            std=tuple(map(float, steps.std)),
        ),
        class_names=tuple(stated.meta["categories"]) if classes is None else None,
        input_shape=(3, side, side),
    )


@ZOO.register("hf")
def load_transformers(name: str, weights: str) -> Wrapped:
    """Return an image classifier of transformers, from a folder or by its name on the hub.

    Only safetensors are read, and no code of a repository is run.

    Args:
        name: a folder with config.json, or a name on the hub.
        weights: a safetensors file, "random", or "" for the model's own.

    Raises:
        UserError: transformers isn't installed, there is no such model, it is no image classifier,
            needs code of its own to be run, or comes without safetensors.
    """
    transformers = _imported("transformers", "zoo")
    folder = Path(name)
    local = folder.is_dir()
    if not local and (not name or name.startswith((".", "/", "~"))):
        raise UserError("there is no such folder", got=name, do="give a folder with config.json")
    pretrained = weights == ""
    if local and not (folder / "config.json").is_file():
        raise UserError(f"{name} holds no transformers model", got="no config.json")
    if local and pretrained and not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{name} holds no safetensors, and pickles could run any code when opened",
            got=", ".join(sorted(p.name for p in folder.iterdir()))[:200],
            do="save it with save_pretrained(FOLDER), which writes safetensors",
        )
    where = {"local_files_only": local, "trust_remote_code": False}
    if local and (code := _code_of(folder)):
        raise _needs_code(name, code)
    with _quiet(transformers), _seeded(), _explained(f"transformers made no {name}", not local):
        config = transformers.AutoConfig.from_pretrained(name, **where)
        if getattr(config, "auto_map", None):
            raise _needs_code(name, ", ".join(config.auto_map))
        classifier = transformers.AutoModelForImageClassification
        if pretrained:
            network = classifier.from_pretrained(name, config=config, use_safetensors=True, **where)
        else:
            network = classifier.from_config(config, trust_remote_code=False)
    _fill(network, weights)
    preprocessing, stated = _transformers_preprocessing(name, config, where)
    size = preprocessing.size
    names = config.id2label or {}
    return Wrapped(
        network.float().eval(),
        name=name,
        kind="transformers",
        preprocessing=preprocessing,
        class_names=tuple(str(names[k]) for k in sorted(names)) or None,
        input_shape=None if size is None else (getattr(config, "num_channels", 3), *size),
        stated=stated,
    )


def _code_of(folder: Path) -> str:
    """Return what of a folder's config is made by code of its own, "" for nothing."""
    try:
        found = json.loads((folder / "config.json").read_bytes()).get("auto_map") or {}
    except (OSError, ValueError, RecursionError, AttributeError):
        return ""
    return ", ".join(map(str, found))


def _needs_code(name: str, what: str) -> UserError:
    return UserError(
        f"{name} wants code from its repository to be run, which Unmask doesn't",
        got=what,
        do="copy that code into a module of your own and give my_module:make_model",
    )


def _transformers_preprocessing(
    name: str, config: Any, where: dict[str, Any]
) -> tuple[Preprocessing, bool]:
    """Return the preprocessing in preprocessor_config.json, and True.

    Without that file, return the sizes of the network's config, and False.
    """
    from transformers.image_processing_base import ImageProcessingMixin

    channels = int(getattr(config, "num_channels", 3))
    side = getattr(config, "image_size", None)
    fixed = None if side is None else _pair(side)
    try:
        stated, _ = ImageProcessingMixin.get_image_processor_dict(name, **where)
    except (OSError, ValueError) as error:
        if where["local_files_only"] and (Path(name) / _PROCESSOR).is_file():
            raise _unusable(name, error) from error
        return Preprocessing(size=fixed, mean=(0.0,) * channels, std=(1.0,) * channels), False
    try:
        return _read_processor(stated, fixed, channels), True
    except UserError as error:
        raise UserError(f"{name}: {_PROCESSOR}: {error}") from error
    except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise _unusable(name, error) from error


_PROCESSOR = "preprocessor_config.json"


def _unusable(name: str, error: Exception) -> UserError:
    return UserError(
        f"{name}: what {_PROCESSOR} says of the images can't be used",
        got=told(error, 200),
        do="save it again with the processor's save_pretrained",
    )


def _read_processor(
    stated: dict[str, Any], fixed: tuple[int, int] | None, channels: int
) -> Preprocessing:
    """Return the preprocessing of a processor's config; fixed is the network's own size."""
    size, crop = _pair(stated.get("size")) or fixed, 1.0
    if stated.get("do_center_crop") and (kept := _pair(stated.get("crop_size"))):
        crop = min(kept[0] / size[0], 1.0) if size else 1.0
        size = kept
    elif (fraction := stated.get("crop_pct")) and size and not _uncropped(stated, size):
        crop = float(fraction)
    # A rescale by 1/255 maps bytes to [0, 1]; without it the network takes bytes.
    factor = float(stated.get("rescale_factor") or 1 / 255) if stated.get("do_rescale", True) else 1
    normalised = stated.get("do_normalize", True)
    mean = _by_channel(stated.get("image_mean") if normalised else None, 0.0, channels)
    std = _by_channel(stated.get("image_std") if normalised else None, 1.0, channels)
    return Preprocessing(
        size=size if stated.get("do_resize", True) else fixed,
        crop=crop,
        interpolation=_interpolation(_RESAMPLE.get(stated.get("resample", 2))),
        scale=round(255 * factor, 6),
        mean=mean,
        std=std,
        order="BGR" if stated.get("do_flip_channel_order") else "RGB",
    )


def _uncropped(stated: dict[str, Any], size: tuple[int, int]) -> bool:
    """Return whether a processor leaves its crop_pct out, as ConvNeXT's does from 384 pixels on."""
    kind = f"{stated.get('image_processor_type')} {stated.get('feature_extractor_type')}"
    return "ConvNext" in kind and min(size) >= 384


def _by_channel(values: Any, usual: float, channels: int) -> tuple[float, ...]:
    """Return a number for each channel, from one for all, one for each, or None."""
    given = (
        [usual if values is None else values] if not isinstance(values, (list, tuple)) else values
    )
    numbers = tuple(map(float, given))
    if len(numbers) not in (1, channels):
        raise ValueError(f"{len(numbers)} numbers for {channels} channels")
    return numbers if len(numbers) == channels else numbers * channels


def _pair(size: Any) -> tuple[int, int] | None:
    if isinstance(size, dict):
        side = size.get("shortest_edge")
        height, width = size.get("height", side), size.get("width", side)
        return (int(height), int(width)) if height and width else None
    if isinstance(size, (tuple, list)) and len(size) == 2:
        return int(size[0]), int(size[1])
    return (int(size), int(size)) if isinstance(size, (int, float)) and size else None


def _interpolation(name: Any) -> Any:
    return name if name in ("nearest", "bilinear", "bicubic") else "bilinear"


def _timm_names(timm: Any, network: nn.Module) -> tuple[str, ...] | None:
    """Return the names of a network's classes: ImageNet's are WordNet's, as its folders have."""
    names = (getattr(network, "pretrained_cfg", None) or {}).get("label_names")
    if not names and (subset := timm.data.infer_imagenet_subset(network)) is not None:
        names = timm.data.ImageNetInfo(subset).label_names()
    return tuple(map(str, names)) if names else None


def _other_classes(network: nn.Module, weights: str) -> int | None:
    """Return how many classes weights in a file are of, None where as many as the network's.

    Where a network was fine-tuned, the last layer alone has another length, that of its bias.
    """
    if weights in ("", RANDOM):
        return None
    shapes = TensorFile(Path(weights)).shapes
    lengths = set()
    for name, value in network.state_dict().items():
        own, theirs = tuple(value.shape), shapes.get(name)
        if own and theirs and theirs != own and theirs[1:] == own[1:]:
            lengths.add((own[0], theirs[0]))
    return lengths.pop()[1] if len(lengths) == 1 else None


def _fill(network: nn.Module, weights: str) -> None:
    if weights not in ("", RANDOM):
        TensorFile(Path(weights)).load_into(network)


def _imported(package: str, extra: str, module: str | None = None) -> Any:
    try:
        return importlib.import_module(module or package)
    except Exception as error:  # A broken installation can raise anything.
        raise UserError(
            f"this model needs {package}",
            got=(str(error).splitlines() or [type(error).__name__])[0],
            do=f"pip install 'unmask[{extra}]'",
        ) from error


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Make random weights the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    level = transformers.logging.get_verbosity()
    # Each try of a hub that can't be reached would be a line.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        transformers.logging.enable_progress_bar()


@contextlib.contextmanager
def _explained(wrong: str, pretrained: bool) -> Iterator[None]:
    """Turn a library's exception about a model into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise _needs_code(wrong.rpartition(" ")[2], "a model of another library") from error
        text = (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")
        if found := re.search(r"Unrecognized configuration class .*?(\w+)Config'", text):
            raise UserError(
                f"{wrong.rpartition(' ')[2]} is no image classifier",
                got=f"a {found[1]} model",
                do="give a model of transformers' AutoModelForImageClassification",
            ) from error
        do = "check the name, or give weights with @FILE.safetensors or @random"
        raise UserError(wrong, got=text, do=do if pretrained else "check the name") from error


def is_transformers_folder(path: Path) -> bool:
    """Return whether a folder holds the config of a transformers model."""
    try:
        found = json.loads(read_regular(path / "config.json", _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "model_type" in found
