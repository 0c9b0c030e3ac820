"""The progress bar of sweeps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta

from rich.progress import BarColumn, Progress, TextColumn

from unmask.cli.console import Console
from unmask.sweep.engine import SweepProgress


@contextlib.contextmanager
def sweep_progress() -> Iterator[Callable[[SweepProgress], None]]:
    """Show a bar on stderr while the block runs, and give the function that moves it."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[nets]}"),
        TextColumn("{task.fields[left]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("training", total=None, nets="", left="")

        def show(p: SweepProgress) -> None:
            running = "" if p.running is None else f", {p.running} tasks running"
            failed = f", {p.failed} failed" if p.failed else ""
            diverged = f", {p.diverged} diverged" if p.diverged else ""
            bar.update(
                task,
                completed=p.net_epochs_done,
                total=p.net_epochs_total,
                nets=f"{p.nets_done} of {p.nets_total} nets{running}{failed}{diverged}",
                left="" if p.seconds_left is None else f"{_clock(p.seconds_left)} left",
            )

        yield show


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
