"""Options that several verbs share."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unmask.execution.executor import Executor, executor

Annotations = Annotated[
    Path, Parameter(help="a folder or zip with VOC, YOLO or COCO annotations and the pictures")
]
BatchSize = Annotated[int, Parameter(help="pictures a step")]
Cifar10Source = Annotated[
    Path | None, Parameter(help="where cifar10 lies: an archive, a folder or a zip")
]
Data = Annotated[str, Parameter(help="mnist, cifar10, or a folder or zip of pictures")]
Device = Annotated[str, Parameter(help="auto, cpu or cuda")]
Epochs = Annotated[int, Parameter(help="passes over the pictures")]
FiguresAsJson = Annotated[bool, Parameter(help="print the figures as JSON")]
Model = Annotated[str, Parameter(help="a model that ships, or a .safetensors file")]
Resume = Annotated[bool, Parameter(help="go on where the run in --out was stopped")]
Size = Annotated[
    int | None, Parameter(help="the side in pixels that your own pictures are read at")
]
Width = Annotated[int, Parameter(help="units a hidden layer")]
On = Annotated[
    str,
    Parameter(
        help="who does the work: local, ray (a Ray found or started on this machine), "
        "ray://HOST:PORT or HOST:PORT (a cluster)"
    ),
]


def elsewhere(on: str) -> AbstractContextManager[Executor | None]:
    """Return the executor of an address, or None for local, where a sweep has its own threads.

    Raises UserError, see executor.
    """
    return nullcontext() if on == "local" else executor(on)
