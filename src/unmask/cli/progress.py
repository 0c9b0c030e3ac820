"""The progress bar of every long verb."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from unmask.cli.console import Console

if TYPE_CHECKING:
    from unmask.data.sources import Source
    from unmask.sweep.meter import SweepProgress

_WARNINGS_SHOWN = 10


class Bar:
    """A bar on a terminal; elsewhere nothing is shown.

    Args:
        progress: rich's display.
        task: the bar in it.
    """

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def show(
        self,
        done: float,
        total: float | None,
        *,
        description: str | None = None,
        figures: str = "",
    ) -> None:
        """Move the bar.

        Args:
            done: how much of total.
            total: None where it is unknown.
            description: what is being done; None leaves it as it was.
            figures: the results so far, in a few words.
        """
        self._progress.update(
            self._task, completed=done, total=total, description=description, figures=figures
        )

    def restart(self, total: float | None) -> None:
        """Estimate the time left afresh, for work of another pace."""
        self._progress.reset(self._task, total=total)


@contextlib.contextmanager
def progress_bar(console: Console, description: str, *, estimate: bool = True) -> Iterator[Bar]:
    """Show a bar while the block runs, and remove it at the end.

    Args:
        console: where; nothing is shown unless it is a terminal.
        description: what is being done.
        estimate: whether to show the time left, estimated from the bar's pace.
    """
    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
    ]
    with Progress(
        *columns,
        *([TimeRemainingColumn(compact=True)] if estimate else []),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        yield Bar(progress, progress.add_task(description, total=None, figures=""))


@contextlib.contextmanager
def sweep_progress() -> Iterator[Callable[[SweepProgress], None]]:
    """Show the progress of a sweep while the block runs; yield the function that moves the bar."""
    with progress_bar(Console(stderr=True), "training", estimate=False) as bar:

        def show(p: SweepProgress) -> None:
            running = "" if p.running is None else f", {p.running} tasks running"
            failed = f", {p.failed} failed" if p.failed else ""
            diverged = f", {p.diverged} diverged" if p.diverged else ""
            left = "" if p.seconds_left is None else f", {_clock(p.seconds_left)} left"
            share = 100 * p.net_epochs_done / max(p.net_epochs_total, 1)
            bar.show(
                p.net_epochs_done,
                p.net_epochs_total,
                figures=f"{share:.0f} %, {p.nets_done} of {p.nets_total} nets"
                f"{running}{failed}{diverged}{left}",
            )

        yield show


class EpochProgress(Protocol):
    """The progress of a training: epochs and steps counted from 1."""

    @property
    def epoch(self) -> int:
        """The epoch under way."""

    @property
    def epochs(self) -> int:
        """How many epochs there will be."""

    @property
    def step(self) -> int:
        """The last step done in the epoch."""

    @property
    def steps(self) -> int:
        """How many steps an epoch has."""


P = TypeVar("P", bound=EpochProgress)


@contextlib.contextmanager
def epoch_progress(console: Console, figures: Callable[[P], str]) -> Iterator[Callable[[P], None]]:
    """Show the progress of a training while the block runs; yield the function that moves the bar.

    Args:
        console: a terminal gets a bar; a log, where no bar can move, gets a line for each epoch.
        figures: returns the results so far, in a few words.
    """
    if not console.is_terminal:

        def log(p: P) -> None:
            if p.step == p.steps:
                console.print(f"epoch {p.epoch} of {p.epochs}: {figures(p)}", highlight=False)

        yield log
        return
    with progress_bar(console, "starting") as bar:

        def show(p: P) -> None:
            bar.show(
                (p.epoch - 1) * p.steps + p.step,
                p.epochs * p.steps,
                description=f"epoch {p.epoch} of {p.epochs}",
                figures=figures(p),
            )

        yield show


def load_shown(
    console: Console, data: str, source: Path | None, shape: tuple[int, int, int] | None
) -> Source:
    """Return load_source's images, read with a bar, and print a line for the first files left out.

    Args:
        console: where the bar and the lines go.
        data: mnist, cifar10, or the path of a folder or zip archive.
        source: where CIFAR-10 lies, None to search for it.
        shape: channels, height and width at which to read your own images, None for natural_shape.

    Raises:
        UserError: as load_source does.
    """
    from unmask.data.sources import load_source

    with progress_bar(console, "reading images") as bar:
        images = load_source(data, source=source, shape=shape, progress=bar.show)
    for warning in images.warnings[:_WARNINGS_SHOWN]:
        console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    if (more := len(images.warnings) - _WARNINGS_SHOWN) > 0:
        console.print(f"warning: and {more:,} more, which unmask data audit lists", highlight=False)
    return images


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
