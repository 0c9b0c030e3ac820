"""The verb doctor: the state of this installation, for bug reports."""

from __future__ import annotations

import contextlib
import json as json_module
import os
import re
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from unmask.cli.console import Console
from unmask.data.cards import CARDS
from unmask.data.fetch import cache_folder
from unmask.data.kaggle import CARD, NAMES
from unmask.runtime import cpu_threads, environment_stamp

FAILED = 1


def doctor(
    *,
    json: Annotated[bool, Parameter(help="print the findings as JSON")] = False,
) -> int:
    """Show versions, processor, GPU, data and models found, and whether each of them works.

    The exit status is 1 when something that ships does not work.
    """
    found = {
        "environment": _environment(),
        "libraries": _libraries(),
        "kernel": _tried(_kernel),
        "torch": _tried(_torch),
        "data": _data(),
        "models": _models(),
    }
    broken = list(_broken(found))
    if json:
        print(json_module.dumps({**found, "broken": broken}))
    else:
        _print(Console(), found, broken)
    return FAILED if broken else 0


def _environment() -> dict[str, Any]:
    stamp = environment_stamp()
    return {
        "unmask": stamp["unmask"],
        "python": stamp["python"],
        "platform": stamp["platform"],
        "processor": stamp["processor"],
        "cores": cpu_threads(),
        "memory": _memory(),
    }


def _memory() -> str:
    with contextlib.suppress(AttributeError, ValueError, OSError):
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return f"{size / 2**30:.1f} GiB"
    return "unknown"


def _libraries() -> dict[str, str]:
    found = {}
    for needed in metadata.requires("unmask") or ():
        name = re.split(r"[^\w.-]", needed, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"](\w+)", needed)
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = f"not installed (extra {extra[1]})" if extra else "missing"
    return found


def _kernel() -> dict[str, Any]:
    from unmask.sweep.native_net import chosen_instruction_set, has_kernel, instruction_sets

    if not has_kernel():
        return {"used": "PyTorch: built without a C++ compiler, so sweeps are slower"}
    from unmask.sweep import _kernel

    chosen = chosen_instruction_set()
    peak = _kernel.peak_flops(chosen) / 1e9
    return {
        "instruction sets": ", ".join(instruction_sets()),
        "used": chosen,
        "one core": f"{peak:.0f} GFLOP/s in float32",
    }


def _torch() -> dict[str, Any]:
    import torch

    from unmask.train.device import has_bf16

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "threads": torch.get_num_threads(),
        "bfloat16": "in hardware" if has_bf16(torch.device("cpu")) else "not in hardware",
        "GPU": ", ".join(gpus) or "none",
    }


def _data() -> dict[str, str]:
    found = {"MNIST": "ships with Unmask"}
    home = os.environ.get("UNMASK_DATA")
    found["UNMASK_DATA"] = home or "not set"
    folders = [cache_folder(), *([Path(home), *Path(home).glob("*/")] if home else [])]
    for card in CARDS.values():
        if card.name == "mnist" or not card.files:
            continue
        at = [folder / file.name for folder in folders for file in card.files]
        there = next((path for path in at if path.is_file()), None)
        found[card.title] = str(there) if there else "not here; downloaded when it is needed"
    places = [Path(home) / name for name in NAMES] if home else []
    faces = next((path for path in places if path.exists()), None)
    found[CARD.title] = str(faces or "not here; unmask data faces fetches it")
    return found


def _models() -> dict[str, str]:
    from unmask.models.classifier import Classifier, shipped

    found = {}
    for name in shipped():

        def described(name: str = name) -> dict[str, Any]:
            card = Classifier.load(name).card
            return {"": f"{card.architecture}, {_checked(card.weights_sha256)}"}

        result = _tried(described)
        found[name] = result.get("") or f"broken: {result['broken']}"
    result = _tried(_detector)
    found["mask detector"] = result.get("") or f"broken: {result['broken']}"
    return found


def _detector() -> dict[str, Any]:
    from unmask.mask.runtime.detector import WEIGHTS, MaskDetector
    from unmask.models.card import ModelCard

    classes = len(MaskDetector.load().class_names)
    card = ModelCard.read(WEIGHTS.with_suffix(".json"))
    return {"": f"{classes} classes, {_checked(card.onnx_sha256)}"}


def _checked(sha256: object) -> str:
    return f"SHA-256 {str(sha256)[:12]} as stated"


def _tried(examine: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    # A doctor that crashes on what it finds is useless.
    try:
        return examine()
    except Exception as error:
        return {"broken": " ".join(f"{type(error).__name__}: {error}".split())}


def _broken(found: dict[str, dict[str, Any]]) -> Iterable[str]:
    for part, entries in found.items():
        for name, value in entries.items():
            if name == "broken" or value == "missing" or str(value).startswith("broken: "):
                yield f"{part}: {name}" if name != "broken" else part


def _print(console: Console, found: dict[str, dict[str, Any]], broken: list[str]) -> None:
    for part, entries in found.items():
        console.print(part, style="bold")
        for name, value in entries.items():
            line = f"  {name:<26} {value}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    said = f"broken: {'; '.join(broken)}" if broken else "everything that ships works"
    console.print(said, markup=False, highlight=False)
