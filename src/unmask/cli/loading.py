"""Images read with a bar on the terminal, and a line for each file that is left out."""

from __future__ import annotations

from pathlib import Path

from rich.progress import Progress

from unmask.cli.console import Console
from unmask.data.sources import Source, load_source


def load_shown(
    console: Console, data: str, source: Path | None, shape: tuple[int, int, int] | None
) -> Source:
    """Return load_source's images. Raises UserError as it does."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading images", total=None)
        pictures = load_source(
            data,
            source=source,
            shape=shape,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for warning in pictures.warnings:
        console.print(f"warning: {warning}", markup=False, highlight=False)
    return pictures
