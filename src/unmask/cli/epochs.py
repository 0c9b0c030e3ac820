"""The progress bar of training by epochs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from unmask.cli.console import Console


class EpochProgress(Protocol):
    """Where a training stands: epochs and steps counted from 1."""

    @property
    def epoch(self) -> int:
        """The epoch under way."""

    @property
    def epochs(self) -> int:
        """How many there will be."""

    @property
    def step(self) -> int:
        """The step done last in it."""

    @property
    def steps(self) -> int:
        """How many an epoch has."""


P = TypeVar("P", bound=EpochProgress)


@contextlib.contextmanager
def epoch_progress(console: Console, figures: Callable[[P], str]) -> Iterator[Callable[[P], None]]:
    """Show a bar while the block runs, and give the function that moves it.

    figures says in a few words what a training's progress comes to. Where no one can see a bar
    move, in a log, there is a line an epoch.
    """
    if not console.is_terminal:

        def tell(p: P) -> None:
            if p.step == p.steps:
                console.print(f"epoch {p.epoch} of {p.epochs}: {figures(p)}", highlight=False)

        yield tell
        return
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("starting", total=None, figures="")

        def show(p: P) -> None:
            bar.update(
                task,
                description=f"epoch {p.epoch} of {p.epochs}",
                completed=(p.epoch - 1) * p.steps + p.step,
                total=p.epochs * p.steps,
                figures=figures(p),
            )

        yield show
