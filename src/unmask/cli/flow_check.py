"""The verb flow check: will anyone's network train, and if not, why, and what mends it?"""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from unmask.cli.loading import load_shown
from unmask.errors import UserError, unknown

if TYPE_CHECKING:
    from unmask.data.images import Images

Severity = Literal["note", "warning", "error"]
LOSSES = ("cross_entropy", "mse_loss", "binary_cross_entropy_with_logits", "nll_loss")
OPTIMIZERS = ("none", "sgd", "momentum", "adam", "adamw", "rmsprop")
FAILED = 1


def check(
    model: Annotated[str, Parameter(help="import path of the model: my_module:make_model")],
    /,
    *,
    data: Annotated[
        str,
        Parameter(
            help="mnist, cifar10, a folder or zip of pictures, all in [0, 1], or an import path "
            "of a loader that yields (inputs, targets)"
        ),
    ] = "mnist",
    loss: Annotated[
        str, Parameter(help=f"of {', '.join(LOSSES)}, or an import path")
    ] = "cross_entropy",
    optimizer: Annotated[
        str, Parameter(help=f"of {', '.join(OPTIMIZERS)}; none judges the first batch only")
    ] = "adam",
    learning_rate: Annotated[float, Parameter(help="step size of the optimiser")] = 1e-3,
    batch_size: Annotated[int, Parameter(help="pictures a step")] = 64,
    steps: Annotated[int, Parameter(help="training steps, on a copy")] = 10,
    seed: Annotated[int, Parameter(help="of the batches and of dropout")] = 0,
    fail_on: Annotated[Severity, Parameter(help="exit with 1 at this severity or worse")] = "error",
    repair: Annotated[bool, Parameter(help="try the fixes that fit, each by short reruns")] = False,
    out: Annotated[Path | None, Parameter(help="the folder for the report")] = None,
    github: Annotated[bool, Parameter(help="print annotations for GitHub Actions")] = False,
    json: Annotated[bool, Parameter(help="print everything as JSON")] = False,
) -> int:
    """Check whether a PyTorch model trains: from its first batch, and from a few training steps."""
    # torch takes a while to load, and --help needs none of it.
    import torch

    from unmask.flow.check import check_flow
    from unmask.flow.expected import expected_profile
    from unmask.flow.loading import load_model
    from unmask.flow.repair import repair as repair_flow
    from unmask.report.check import (
        PAGE,
        annotate,
        check_as_dict,
        check_lines,
        check_page,
        repair_lines,
    )
    from unmask.runtime import write_atomically

    if batch_size < 2:
        raise UserError("the batch size must be 2 or more", got=batch_size, do="64 is usual")
    torch.manual_seed(seed)
    network = load_model(model)
    loss_fn, make = _loss(loss), _optimizer(optimizer, learning_rate)
    batches = _batches(data, batch_size)
    pairs = list(islice(batches(seed), steps))
    found = check_flow(network, loss_fn, pairs, optimizer=make, steps=steps, seed=seed)
    mended = None
    if repair and found.at_least("warning"):
        if make is None:
            raise UserError("a repair needs an optimiser", got="none", do="choose one")
        mended = repair_flow(network, loss_fn, batches, make, check=found)
    page = None
    if out is not None:
        expected = expected_profile(network, loss_fn, pairs[0], found.history[0])
        page = out / PAGE
        with write_atomically(page) as file:
            file.write(check_page(found, expected, mended).encode())
    if json:
        print(json_module.dumps(check_as_dict(found, mended)))
    elif github:
        print("\n".join(annotate(found, model)), end="\n" if found.verdicts else "")
    else:
        lines = check_lines(found) + (["", *repair_lines(mended)] if mended else [])
        lines += [f"Report: {page}"] if page is not None else []
        console = Console()
        for line in lines:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    return FAILED if found.at_least(fail_on) else 0


def _loss(name: str) -> Any:
    from torch.nn import functional

    from unmask.flow.loading import load_object

    if ":" in name:
        return load_object(name)
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    return getattr(functional, name)


def _optimizer(name: str, learning_rate: float) -> Any:
    from torch import optim

    if name not in OPTIMIZERS:
        raise unknown("optimiser", name, OPTIMIZERS)
    if not 0 < learning_rate < float("inf"):
        raise UserError("the learning rate must be positive", got=learning_rate, do="try 0.001")
    makers: dict[str, Any] = {
        "sgd": optim.SGD,
        "momentum": partial(optim.SGD, momentum=0.9),
        "adam": optim.Adam,
        "adamw": optim.AdamW,
        "rmsprop": optim.RMSprop,
    }
    return None if name == "none" else partial(makers[name], lr=learning_rate)


def _batches(data: str, batch_size: int) -> Callable[[int], Iterable[Any]]:
    """Return what yields batches without end, by seed."""
    from unmask.flow.loading import load_object

    if ":" in data:
        loader = load_object(data)
        loader = loader() if callable(loader) and not hasattr(loader, "__iter__") else loader
        if not isinstance(loader, Iterable):
            raise UserError(
                f"{data} is no loader",
                got=type(loader).__name__,
                do="give something that yields (inputs, targets)",
            )
        return lambda seed: _again_and_again(loader)
    console = Console(stderr=True)
    images = load_shown(console, data, None, None).train
    return lambda seed: _picture_batches(images, batch_size, seed)


def _again_and_again(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        empty = True
        for pair in loader:
            empty = False
            yield pair
        if empty:
            return


def _picture_batches(images: Images, batch_size: int, seed: int) -> Iterator[Any]:
    import torch

    from unmask.runtime import seeded

    generator = seeded(seed)
    while True:
        rows = generator.integers(len(images), size=batch_size)
        x = torch.from_numpy(images.pixels[rows]).float() / 255
        yield x, torch.from_numpy(images.labels[rows])
