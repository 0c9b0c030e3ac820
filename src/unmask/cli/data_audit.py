"""The verb data audit: duplicates, leaks, wrong labels, starved classes, shortcuts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from unmask.cli.console import Console
from unmask.cli.options import Cifar10Source, Data, Seed, Size
from unmask.cli.streams import say

FAILED = 1
_COLOURS = {"error": "red", "warning": "yellow", "note": "dim"}


def audit(
    data: Data,
    /,
    *,
    source: Cifar10Source = None,
    size: Size = None,
    quick: Annotated[
        bool, Parameter(help="leave out near duplicates and label errors, which take a while")
    ] = False,
    seed: Seed = 0,
    fail_on: Annotated[
        Literal["error", "warning", "never"],
        Parameter(help="exit with 1 when there is a verdict of this severity or worse"),
    ] = "error",
    out: Annotated[Path, Parameter(help="the folder for report and numbers")] = Path("runs/data"),
    json: Annotated[bool, Parameter(help="print everything as JSON")] = False,
) -> int:
    """Look for duplicates, leaks, conflicting and wrong labels, starved classes and shortcuts.

    The exit status is 1 when a verdict is as severe as --fail-on.
    """
    # torch takes a while to load, and --help doesn't need it.
    from unmask.cli.progress import load_shown
    from unmask.data.audit import audit_data
    from unmask.data.sources import shape_for
    from unmask.report.data_audit import write_data_audit
    from unmask.report.files import require_writable, to_json
    from unmask.verdict import at_least

    console = Console(stderr=True)
    loaded = load_shown(console, data, source, shape_for(data, size=size))
    require_writable(out, data)
    with console.status("duplicates") as status:
        found = audit_data(
            loaded, labels=not quick, near=not quick, seed=seed, progress=status.update
        )
    files = write_data_audit(found, loaded, out)
    failed = fail_on != "never" and bool(at_least(found.verdicts, fail_on))
    if json:
        print(
            to_json({**found.as_dict(), "failed": failed, "files": [str(file) for file in files]})
        )
        return FAILED if failed else 0
    figures = ", ".join(f"{k.replace('_', ' ')} {v:,.0f}" for k, v in found.figures().items())
    shown = Console()
    shown.print(f"{found.name}: {figures}", markup=False, highlight=False, soft_wrap=True)
    for v in found.verdicts:
        shown.print(
            str(v), style=_COLOURS[v.severity], markup=False, highlight=False, soft_wrap=True
        )
    if not found.verdicts:
        shown.print("nothing was found wrong", style="green")
    say(f"report: {files[0]}")
    return FAILED if failed else 0
