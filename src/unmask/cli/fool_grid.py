"""The verb fool grid: images changed until each other class is predicted."""

from __future__ import annotations

import json as json_module
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from unmask.cli.console import Console
from unmask.cli.options import Cifar10Source, Norm, On, Seed, elsewhere, sizes, whole
from unmask.cli.streams import aside
from unmask.errors import UserError, unknown
from unmask.text import told

if TYPE_CHECKING:
    from unmask.fool.grid import Grid
    from unmask.fool.victim import Victim

# The course report's samples: one of each of these digits, and a frog.
DIGITS, ANIMAL = (0, 1, 2, 4, 7), "frog"
MODES = ("best", "course-report")
_RENAMED = {
    "fast": "take --mode best, which finds smaller changes",
    "document": "take --mode course-report",
}


def draw_grid(
    model: Annotated[
        str | None,
        Parameter(
            help="a model that ships, a .safetensors file or my_module:make_model; mnist by "
            "default, and cifar10 where model and images are there"
        ),
    ] = None,
    /,
    *,
    image: Annotated[
        list[Path] | None, Parameter(help="images of your own", consume_multiple=True)
    ] = None,
    label: Annotated[
        str | None, Parameter(help="the true class of --image; the predicted class by default")
    ] = None,
    target: Annotated[
        list[str] | None,
        Parameter(help="classes to pass for; all by default", consume_multiple=True),
    ] = None,
    size: Annotated[
        int | None, whole(1, 16_384, "the side in pixels that my_module:make_model takes")
    ] = None,
    weights: Annotated[
        Path | None, Parameter(help="a safetensors file for my_module:make_model")
    ] = None,
    source: Cifar10Source = None,
    mode: Annotated[
        str,
        Parameter(help="best: the smallest change that our attacks find; course-report: as it did"),
    ] = "best",
    norm: Norm = "l2",
    eps: Annotated[
        str | None, Parameter(help="take any change within it, such as 8/255, not the smallest")
    ] = None,
    seed: Seed = 0,
    on: On = "local",
    out: Annotated[Path, Parameter(help="the folder for report, figures and images")] = Path(
        "runs/grid"
    ),
    json: Annotated[bool, Parameter(help="print everything as JSON")] = False,
) -> int:
    """Change images until each other class is predicted, and show the changes."""
    # torch and matplotlib take a while to load, and --help needs none of them.
    from unmask.coursework.generator.attack import generator_attack
    from unmask.data.cifar10 import cifar10_at_home
    from unmask.fool.grid import fool_grid
    from unmask.fool.norms import Threat
    from unmask.fool.source import load_victim
    from unmask.report.files import require_writable
    from unmask.report.grid import write_grids
    from unmask.runtime import environment_stamp

    aim = Threat.of(norm, None if eps is None else sizes([eps])[0])
    if mode in _RENAMED:
        raise UserError(f"--mode {mode} has another name now", got=mode, do=_RENAMED[mode])
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    attack = None if mode == "best" else partial(generator_attack, mode=mode)
    require_writable(out)
    console = Console(stderr=True)
    names = [model] if model is not None else ["mnist"]
    if model is None and not image:
        if source or cifar10_at_home():
            names.append("cifar10")
        else:
            console.print(
                "the frog is skipped: it needs CIFAR-10's images (--source or UNMASK_DATA)",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
    foreign = aside()
    grids = []
    for name in names:
        subject = load_victim(name, weights=weights)
        chosen = _own(subject, image, label, size) if image else _samples(console, subject, source)
        with console.status(f"fooling {name}"), elsewhere(on) as workers:
            grids.append(
                fool_grid(
                    subject,
                    **chosen,
                    targets=target or (),
                    attack=attack,
                    mode=mode,
                    threat=aim,
                    seed=seed,
                    on=workers,
                    stamp=environment_stamp(model=subject.identity, seed=seed),
                )
            )
    page, *_ = write_grids(grids, out)
    foreign.close()
    if json:
        print(json_module.dumps([grid.as_dict() for grid in grids]))
    else:
        for grid in grids:
            _print(Console(), grid)
        Console().print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _samples(console: Console, subject: Victim, source: Path | None) -> dict[str, Any]:
    """Return the course report's samples for a classifier of digits or of CIFAR-10."""
    import torch

    from unmask.cli.progress import load_shown
    from unmask.data.cifar10 import CLASSES
    from unmask.data.mnist import load_mnist

    digits = tuple("0123456789")
    if subject.class_names == digits and subject.input_shape == (1, 28, 28):
        test = load_mnist()[1]
        chosen = [int((test.labels == digit).argmax()) for digit in DIGITS]
        title = "MNIST"
    elif subject.class_names == CLASSES and subject.input_shape == (3, 32, 32):
        test = load_shown(console, "cifar10", source, None).test  # type: ignore[assignment]
        frogs = (test.labels == CLASSES.index(ANIMAL)).nonzero()[0]
        # The first that is classified correctly: fooling any other shows little.
        logits = subject.fresh(10).logits(torch.from_numpy(test.pixels[frogs]).float() / 255)
        chosen = [int(frogs[int((logits.argmax(1) == CLASSES.index(ANIMAL)).int().argmax())])]
        title = "CIFAR-10"
    else:
        raise UserError(
            "the samples that ship are no images for this model",
            got=f"{len(subject.class_names or ())} classes, input {subject.input_shape}",
            do="give your own images with --image",
        )
    return {
        "pixels": torch.from_numpy(test.pixels[chosen]).float() / 255,
        "labels": torch.from_numpy(test.labels[chosen]),
        "names": [f"test image {i}" for i in chosen],
        "title": title,
    }


def _own(subject: Victim, files: list[Path], label: str | None, size: int | None) -> dict[str, Any]:
    """Return the user's own images, read at the model's size."""
    import numpy as np
    import torch

    from unmask.data.picture import decode_picture
    from unmask.fool.grid import class_index
    from unmask.runtime import read_regular

    pictures = []
    shape = subject.input_shape or _shape(subject, size)
    for file in files:
        try:
            content = read_regular(file)
        except OSError as error:
            raise UserError(f"can't read {file}", got=error.strerror) from error
        try:
            pictures.append(decode_picture(content, size=shape[1:], channels=shape[0]))
        except UserError as error:
            raise UserError(f"{file} is no image to fool with", got=error) from error
    labels = None
    if label is not None:
        names = subject.class_names
        if names is None:
            raise UserError("the model has no names for its classes", got=f"--label {label}")
        labels = torch.full((len(files),), class_index(label, names))
    return {
        "pixels": torch.from_numpy(np.stack(pictures)).float() / 255,
        "labels": labels,
        "names": [file.stem for file in files],
        "title": "Your images",
    }


def _shape(subject: Victim, size: int | None) -> tuple[int, int, int]:
    """Return the shape of a model that doesn't state it, found by trying."""
    import torch

    if size is None or size < 1:
        raise UserError(
            "the model does not state the size of its images",
            got="no --size" if size is None else size,
            do="give the side in pixels, such as --size 32",
        )
    reason = ""
    for channels in (3, 1):
        try:
            with torch.no_grad():
                subject.function(torch.zeros(1, channels, size, size))
        except Exception as error:  # The model is the user's: it may raise anything.
            reason = reason or told(error)
        else:
            return channels, size, size
    raise UserError(
        f"{subject.name} takes no images of {size} x {size}", got=reason, do="give another --size"
    )


def _print(console: Console, grid: Grid) -> None:
    outcome, pairs = grid.outcome, len(grid.rows)
    lines = [
        f"{grid.names[i]} ({grid.title}) is misjudged before any change: it is "
        f"{grid.class_names[grid.labels[i]]}, predicted {grid.class_names[grid.predicted[i]]}"
        for i in grid.misjudged
    ]
    lines += [
        f"{grid.title}: {int(outcome.reached_saved.sum())} of {pairs} images fool it when saved "
        f"with 8 bits ({int(outcome.reached.sum())} before), {grid.mode} mode, {grid.threat}",
        f"mean L2 {outcome.l2.mean():.3f}, Linf {255 * outcome.linf.mean():.1f}/255, SSIM "
        f"{outcome.similarity.mean():.3f}; {outcome.steps.mean():.0f} steps and "
        f"{1000 * grid.seconds / pairs:.0f} ms a pair",
    ]
    lines += [f"not attacked: {line}" for line in grid.failures]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
