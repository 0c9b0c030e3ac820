"""The verb reproduce: the whole course report run again, its figures beside ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.table import Table

from unmask.cli.console import Console
from unmask.cli.progress import progress_bar
from unmask.errors import UserError

if TYPE_CHECKING:
    from unmask.coursework.run import Progress as Tell
    from unmask.coursework.sections import Reproduction


def reproduce_document(
    *,
    quick: Annotated[
        bool, Parameter(help="with the weights that ship and few seeds, in minutes")
    ] = False,
    as_document: Annotated[
        bool, Parameter(help="by the report's own recipes throughout, for hours")
    ] = False,
    cifar10: Annotated[
        Path | None, Parameter(help="where CIFAR-10 is: an archive, a folder or a zip")
    ] = None,
    faces: Annotated[
        Path | None, Parameter(help="where the face mask set is: a folder or a zip")
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="where everything goes; runs/reproduce-LENGTH by default")
    ] = None,
    resume: Annotated[bool, Parameter(help="continue the reproduction in --out")] = False,
    json: Annotated[bool, Parameter(help="print every figure as JSON")] = False,
) -> int:
    """Run every exercise of the course report and show its figures beside ours.

    Without --quick and --as-document everything is trained from nothing by fast recipes.
    """
    if quick and as_document:
        raise UserError("one length at a time", got="--quick and --as-document")
    # matplotlib and torch take a while to load, and --help needs none of them.
    from unmask.coursework.exercise import length
    from unmask.coursework.run import ReproductionInterrupted, reproduce
    from unmask.report.files import require_writable
    from unmask.report.reproduction import Figures, write_reproduction

    chosen = length("quick" if quick else "as-document" if as_document else "default")
    out = out or Path("runs") / f"reproduce-{chosen.name}"
    for name, path in (("--cifar10", cifar10), ("--faces", faces)):
        if path is not None and not path.exists():
            raise UserError(f"{name} names nothing that is there", got=path)
    require_writable(out)
    stopped = False
    with _shown(Console(stderr=True)) as tell:
        try:
            found = reproduce(
                chosen,
                out,
                cifar10=cifar10,
                faces=faces,
                draw=Figures(),
                resume=resume,
                progress=tell,
            )
        except ReproductionInterrupted as interrupt:
            found, stopped = interrupt.reproduction, True
    files = write_reproduction(found, out)
    if json:
        import json as json_module

        print(json_module.dumps(found.as_dict(), allow_nan=False))
    else:
        _print(Console(), found, files[0])
    if stopped:
        raise KeyboardInterrupt(
            f"stopped; what is done is kept in {out}, --resume continues from it"
        )
    return 0


@contextlib.contextmanager
def _shown(console: Console) -> Iterator[Tell]:
    """Show what is being done while the block runs: a bar, or a log line for each exercise."""
    if not console.is_terminal:
        seen: set[str] = set()

        def note(exercise: str, doing: str, part: float | None) -> None:
            if exercise not in seen:
                seen.add(exercise)
                console.print(exercise, markup=False, highlight=False, soft_wrap=True)

        yield note
        return
    with progress_bar(console, "starting") as bar:
        last = ""

        def show(exercise: str, doing: str, part: float | None) -> None:
            nonlocal last
            total = None if part is None else 1.0
            if doing.partition(",")[0] != last:
                # Another kind of work has another pace.
                bar.restart(total)
                last = doing.partition(",")[0]
            name = exercise.partition(":")[0]
            bar.show(part or 0.0, total, description=f"{name}: {doing}")

        yield show


def _print(console: Console, found: Reproduction, page: Path) -> None:
    from unmask.coursework.sections import VERDICTS
    from unmask.report.reproduction import clock

    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    shown = [verdict for verdict in VERDICTS if found.counts[verdict]]
    table.add_column("")
    for verdict in shown:
        table.add_column(verdict, justify="right")
    table.add_column("took", justify="right")
    for section in found.sections:
        counts = [sum(c.verdict == verdict for _, c in section.named()) for verdict in shown]
        took = "" if section.seconds is None else clock(section.seconds)
        table.add_row(section.name, *(str(n) if n else "" for n in counts), took)
    table.add_section()
    total = (str(found.counts[verdict]) for verdict in shown)
    table.add_row("all", *total, clock(found.seconds))
    console.print(table)
    for reason in dict.fromkeys(s.reason for s in found.sections if s.reason):
        names = ", ".join(s.name for s in found.sections if s.reason == reason)
        console.print(f"- {names}: {reason}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)
