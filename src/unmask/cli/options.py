"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from unmask.errors import UserError
from unmask.execution.address import executor_at
from unmask.execution.executor import Executor

# Spellings of earlier versions, and what each is called now: the command line names it in its line.
RENAMED = {
    "--batch": "--batch-size",
    "--rate": "--learning-rate",
    "--threat": "--norm and --eps, such as --norm linf --eps 0.3",
    "--picture": "--image",
    "--pictures": "--images",
    "--training-pictures": "--training-images",
    "--validation-pictures": "--validation-images",
}

# A list is given by spaces: --depths 5 20 40.
MANY = Parameter(consume_multiple=True, negative=())

Annotations = Annotated[
    Path, Parameter(help="a folder or zip with images and their VOC, YOLO or COCO annotations")
]
BatchSize = Annotated[
    int, Parameter(help="images in a batch", validator=Number(gte=1, lte=1_000_000))
]
Cifar10Source = Annotated[
    Path | None, Parameter(help="where cifar10 is: an archive, a folder or a zip")
]
Data = Annotated[
    str, Parameter(help="mnist, cifar10, or a folder or zip of images with a folder for each class")
]
Device = Annotated[str, Parameter(help="auto, cpu or cuda")]
Epochs = Annotated[
    int, Parameter(help="passes over the training images", validator=Number(gte=1, lte=1_000_000))
]
FiguresAsJson = Annotated[bool, Parameter(help="print the figures as JSON")]
Model = Annotated[
    str,
    Parameter(
        help="a model that ships, a .safetensors or .onnx file, a folder of unmask train, "
        "my_module:make_model, or timm:, hf: or torchvision:NAME; unmask models lists them"
    ),
]
ModelSize = Annotated[
    tuple[int, int] | None,
    Parameter(help="height and width of the images, for a model that doesn't say", negative=()),
]
Resume = Annotated[bool, Parameter(help="continue the run in --out where it was stopped")]
LearningRate = Annotated[
    float, Parameter(help="the peak learning rate", validator=Number(gt=0, lte=1e6))
]
Norm = Annotated[Literal["linf", "l2"], Parameter(help="the norm that a change is measured in")]
Seed = Annotated[
    int, Parameter(help="of everything random", validator=Number(gte=0, lte=2**63 - 1))
]
Size = Annotated[
    int | None,
    Parameter(
        help="the side in pixels that your own images are resized to",
        validator=Number(gte=1, lte=16_384),
    ),
]
Threads = Annotated[
    int | None,
    Parameter(help="threads at once; every core by default", validator=Number(gte=1, lte=1024)),
]
Validation = Annotated[
    float | None,
    Parameter(
        help="fraction of the training images held out for validation, 0 for none",
        validator=Number(gte=0, lt=1),
    ),
]
Width = Annotated[int, Parameter(help="hidden width", validator=Number(gte=1, lte=65_536))]
On = Annotated[
    str,
    Parameter(
        help="where the work runs: local, ray (a Ray cluster found or started on this machine), "
        "ray://HOST:PORT or HOST:PORT (another cluster)"
    ),
]


def elsewhere(on: str) -> AbstractContextManager[Executor | None]:
    """Return the executor of an address, or None for local, where a sweep has its own threads.

    Raises UserError, see executor.
    """
    return nullcontext() if on == "local" else executor_at(on)


def sizes(texts: Sequence[str]) -> tuple[float, ...]:
    """Return the sizes of changes in texts such as "0.3" and "8/255".

    Raises:
        UserError: for a text that is no number above 0 and at most 1, the range of a pixel, or for
            several between commas.
    """
    found = []
    for text in texts:
        if "," in text:
            raise UserError(
                "several sizes stand between spaces", got=text, do=text.replace(",", " ")
            )
        above, _, below = text.partition("/")
        try:
            found.append(float(above) / float(below or 1))
        except (ValueError, ZeroDivisionError):
            raise UserError("eps is no number", got=repr(text), do="write 0.3 or 8/255") from None
    return tuple(found)
