"""Options that several verbs share, and the two validators of numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from cyclopts import Parameter, Token

from unmask.errors import MAX_SEED, UserError
from unmask.execution.address import executor_at
from unmask.execution.executor import Executor

# Spellings of earlier versions, and the present one, which the error message names.
RENAMED = {
    "--batch": "--batch-size",
    "--rate": "--learning-rate",
    "--threat": "--norm and --eps, such as --norm linf --eps 0.3",
    "--picture": "--image",
    "--pictures": "--images",
    "--training-pictures": "--training-images",
    "--validation-pictures": "--validation-images",
}

# What other tools call these options; the first of a verb's own that stands for it is named.
ELSEWHERE = {
    "--lr": ("--learning-rate",),
    "--wd": ("--weight-decay",),
    "--bs": ("--batch-size",),
    "--epsilon": ("--eps",),
    "--output": ("--out",),
    "--output-dir": ("--out",),
    "--save-dir": ("--out",),
    "-o": ("--out",),
    "--img-size": ("--size",),
    "--image-size": ("--size",),
    "--imgsz": ("--size", "--smallest"),
    "--conf": ("--threshold",),
    "--confidence": ("--threshold",),
    "--dataset": ("--data",),
    "--loss-fn": ("--loss",),
    "--criterion": ("--loss",),
    "--time": ("--minutes",),
    "--timeout": ("--minutes",),
    "--fail-if": ("--fail-on",),
    "--fail-on": ("--fail-if",),
    "--val": ("--validation",),
    "--workers": ("--on",),
}

# A list is separated by spaces: --depths 5 20 40.
MANY = Parameter(consume_multiple=True, negative=())
_SIDES = "side in pixels, or height and width,"

_WHOLE = re.compile(r"[+-]?[0-9]{1,30}")
_REAL = re.compile(r"[+-]?(?:[0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,4})?")


def whole(least: int, most: int, text: str) -> Parameter:
    """Return the parameter of whole numbers in ASCII digits, from least to most.

    Args:
        least: the smallest number that is accepted.
        most: the largest.
        text: the help, to which the bounds are added.
    """
    bounds = f"{least} to {_bound(most)}"

    def parse(given: str) -> int:
        if _WHOLE.fullmatch(given) and least <= int(given) <= most:
            return int(given)
        raise UserError(f"takes a whole number from {bounds}", got=repr(given[:60]))

    return Parameter(help=f"{text} ({bounds})", converter=_Converter(parse, bounds))


def real(
    least: float,
    most: float,
    text: str,
    *,
    above: bool = False,
    below: bool = False,
    do: str = "",
) -> Parameter:
    """Return the parameter of finite decimal numbers in ASCII digits, from least to most.

    Args:
        least: the smallest number that is accepted.
        most: the largest.
        text: the help, to which the bounds are added.
        above: whether least itself is refused.
        below: whether most itself is refused.
        do: the advice when a number is refused.
    """
    bounds = f"{'above ' * above}{least:g} to {'below ' * below}{most:g}"

    def parse(given: str) -> float:
        value = float(given) if _REAL.fullmatch(given) else math.nan
        # Written so that NaN is refused.
        if least <= value <= most and not ((above and value == least) or (below and value == most)):
            return value
        raise UserError(f"takes a number from {bounds}", got=repr(given[:60]), do=do)

    return Parameter(help=f"{text} ({bounds})", converter=_Converter(parse, bounds))


@dataclass(frozen=True)
class _Converter:
    """Turns each text of an option into a number, and reports which one is wrong and why."""

    parse: Callable[[str], Any]
    bounds: str

    def __call__(self, hint: Any, tokens: Sequence[Token]) -> Any:
        found = []
        for token in tokens:
            try:
                found.append(self.parse(token.value))
            except UserError as error:
                raise UserError(f"{token.keyword or 'this'} {error}") from None
        kind = get_origin(hint) or hint
        return kind(found) if kind in (tuple, list) else found[0]


def _bound(value: int) -> str:
    return "2^63 - 1" if value == MAX_SEED else str(value)


Annotations = Annotated[
    Path,
    Parameter(help="a folder or zip of images with VOC, YOLO, COCO, CVAT or Label Studio files"),
]
BatchSize = Annotated[int, whole(1, 1_000_000, "images in a batch")]
Cifar10Source = Annotated[
    Path | None, Parameter(help="where cifar10 is: an archive, a folder or a zip")
]
Data = Annotated[
    str, Parameter(help="mnist, cifar10, or a folder or zip of images with a folder for each class")
]
Mean = Annotated[
    list[float] | None,
    MANY,
    real(-1e6, 1e6, "what the model wants taken away from pixels, one a channel or one"),
]
Std = Annotated[
    list[float] | None, MANY, real(0, 1e6, "what it wants them divided by then", above=True)
]
Device = Annotated[str, Parameter(help="auto, cpu or cuda")]
Epochs = Annotated[int, whole(1, 1_000_000, "passes over the training images")]
FiguresAsJson = Annotated[bool, Parameter(help="print the figures as JSON")]
Model = Annotated[
    str,
    Parameter(
        help="a model that ships, a .safetensors or .onnx file, a folder of unmask train, "
        "my_module:make_model, or timm:, hf: or torchvision:NAME; unmask models lists them"
    ),
]
ModelSize = Annotated[
    tuple[int, ...] | None,
    whole(1, 16_384, f"{_SIDES} of the images, for a model that doesn't state them"),
    MANY,
]
Resume = Annotated[bool, Parameter(help="continue the run in --out where it was stopped")]
LearningRate = Annotated[float, real(0, 1e6, "the peak learning rate", above=True)]
AnyNorm = Annotated[
    Literal["linf", "l2", "l1", "l0"], Parameter(help="the norm that a change is measured in")
]
Norm = Annotated[Literal["linf", "l2"], Parameter(help="the norm that a change is measured in")]
ImageCount = Annotated[int, whole(1, 10_000_000, "how many, spread over those there are")]
Scale = Annotated[
    float, real(0.1, 8, "pixels that the network sees for one of an image, up to 640 in all")
]
Seed = Annotated[int, whole(0, MAX_SEED, "of everything random")]
Size = Annotated[
    tuple[int, ...] | None,
    whole(1, 16_384, f"{_SIDES} that your own images are resized to"),
    MANY,
]
Threads = Annotated[int | None, whole(1, 1024, "nets at once; every core by default")]
Threshold = Annotated[
    float | None,
    real(0, 1, "the confidence from which a box counts as a face; the model's if none", above=True),
]
Validation = Annotated[
    float | None,
    real(0, 1, "fraction of the training images held out for validation, 0 for none", below=True),
]
# The widest that the kernel trains.
Width = Annotated[int, whole(1, 1024, "hidden width")]
On = Annotated[
    str,
    Parameter(
        help="where the work runs: local, ray (a Ray cluster found or started on this machine), "
        "ray://HOST:PORT or HOST:PORT (another cluster)"
    ),
]


def elsewhere(on: str) -> AbstractContextManager[Executor | None]:
    """Return the executor at an address, or None for local, where a sweep uses its own threads.

    Args:
        on: "local", or an address as executor_at takes it.

    Raises:
        UserError: as executor_at does.
    """
    return nullcontext() if on == "local" else executor_at(on)


def sizes(texts: Sequence[str]) -> tuple[float, ...]:
    """Return the sizes of changes in texts such as "0.3" and "8/255".

    Args:
        texts: one number or fraction in each.

    Returns:
        The sizes, above 0 and below 1e6, in units of pixels in [0, 1].

    Raises:
        UserError: for a text that is no number above 0, or for several between commas.
    """
    found = []
    for text in texts:
        if re.fullmatch(r"\d*,\d+", text):
            raise UserError(
                "eps takes a point before its decimals, and spaces between several",
                got=text,
                do=f"write {text.replace(',', '.')}, or {text.replace(',', ' ')}",
            )
        if "," in text:
            raise UserError(
                "several sizes stand between spaces", got=text, do=text.replace(",", " ")
            )
        above, slash, below = text.partition("/")
        if not (_REAL.fullmatch(above) and (_REAL.fullmatch(below) or not slash)):
            raise UserError("eps is no number", got=repr(text), do="write 0.3 or 8/255")
        divisor = float(below) if slash else 1.0
        if not (math.isfinite(divisor) and divisor > 0 and 0 < float(above) / divisor < 1e6):
            raise UserError("eps is no size of a change", got=text, do="write 0.3 or 8/255")
        found.append(float(above) / divisor)
    return tuple(found)
