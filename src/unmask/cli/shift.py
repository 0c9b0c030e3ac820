"""The verb shift: a classifier's accuracy under blur, noise, another camera or runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.table import Table

from unmask.cli.console import Console
from unmask.cli.options import (
    MANY,
    Cifar10Source,
    Data,
    ImageCount,
    Model,
    On,
    Seed,
    Size,
    elsewhere,
    real,
)
from unmask.cli.progress import progress_bar
from unmask.cli.streams import aside, say

if TYPE_CHECKING:
    from unmask.shift.measurement import ShiftProgress
    from unmask.shift.result import Shift

FAILED = 1
COLOURS = {"error": "red", "warning": "yellow", "note": "dim"}


def shift(
    model: Model,
    data: Data,
    /,
    *,
    source: Cifar10Source = None,
    size: Size = None,
    corruptions: Annotated[
        tuple[str, ...], MANY, Parameter(help="names; all that suit the images by default")
    ] = (),
    severities: Annotated[
        tuple[float, ...], MANY, real(0, 5, "growing, whole or in between", above=True)
    ] = (1, 2, 3, 4, 5),
    images: ImageCount = 1000,
    drop: Annotated[
        float,
        real(
            0, 1, "the loss of accuracy whose smallest severity is sought", above=True, below=True
        ),
    ] = 0.1,
    quick: Annotated[
        bool, Parameter(help="corruptions alone: no bisection, geometry, pipeline, runtimes, fixes")
    ] = False,
    compiled: Annotated[bool, Parameter(help="try torch.compile too")] = False,
    seed: Seed = 0,
    fail_if: Annotated[
        str | None,
        Parameter(help='exit with 1 when this holds, such as "accuracy_at_severity_3<0.7"'),
    ] = None,
    out: Annotated[Path, Parameter(help="the folder for report and numbers")] = Path("runs/shift"),
    resume: Annotated[
        bool, Parameter(help="continue the measurement in --out where it was stopped")
    ] = False,
    on: On = "local",
    json: Annotated[bool, Parameter(help="print everything as JSON")] = False,
) -> int:
    """Measure a classifier under 26 corruptions, other framings, pipelines and runtimes.

    The exit status is 1 when the condition of --fail-if holds.
    """
    # torch and matplotlib take a while to load, and --help needs none of them.
    from unmask.cli.progress import load_shown
    from unmask.data.sources import shape_for
    from unmask.fool.audit.gate import Gate
    from unmask.report.files import require_writable, to_json
    from unmask.report.shift import write_shift
    from unmask.shift.measurement import measure_shift
    from unmask.shift.result import ShiftPlan, figure_names
    from unmask.shift.target import as_images, as_target

    gate = None if fail_if is None else Gate.parse(fail_if)
    more = not quick
    plan = ShiftPlan(
        corruptions=corruptions,
        severities=severities,
        images=images,
        drop=drop,
        seed=seed,
        smallest=more,
        geometry=more,
        pipeline=more,
        runtimes=more,
        compiled=compiled,
        fixes=more,
    )
    if gate is not None:
        gate.check(figure_names(plan))
    foreign = aside()
    target = as_target(model)
    console = Console(stderr=True)
    shape = shape_for(data, target.input_shape, channels=target.channels, size=size)
    chosen = as_images(load_shown(console, data, source, shape), target, most=images)
    require_writable(out, data)
    with elsewhere(on) as executor, progress_bar(console, target.name) as bar:

        def show(p: ShiftProgress) -> None:
            bar.show(p.done, p.total, description=f"{target.name}: {p.doing}")

        try:
            found = measure_shift(
                target,
                chosen,
                plan,
                directory=out,
                resume=resume,
                on=executor,
                progress=show,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt("stopped; the same command with --resume continues") from None
    files = write_shift(found, chosen, out)
    failed = gate is not None and gate.holds(found.figures())
    foreign.close()
    if json:
        gated = None if gate is None else {"condition": str(gate), "failed": failed}
        print(to_json({**found.as_dict(), "gate": gated, "files": [str(f) for f in files]}))
    else:
        _print(Console(), found)
        if gate is not None:
            figure = found.figures()[gate.name]
            say(
                f"{'failed' if failed else 'passed'}: {gate.name} is {figure:.4g}, not to be "
                f"{gate.sign} {gate.bound:g}"
            )
        say(f"report: {files[0]}")
    return FAILED if failed else 0


def _print(console: Console, found: Shift) -> None:
    low, high = found.clean.interval
    console.print(
        f"{found.model} on {found.clean.images:,} images of {found.data}: clean accuracy "
        f"{found.clean.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%})",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("accuracy at severity")
    for severity in found.plan.severities:
        table.add_column(f"{severity:g}", justify="right")
    searched = any(value is not None for value in found.smallest.values())
    if searched:
        table.add_column(f"-{found.plan.drop:.0%} at", justify="right")
    for name, row in sorted(found.cells.items(), key=lambda x: sum(c.accuracy for c in x[1])):
        smallest = found.smallest.get(name)
        last = [f"{smallest:.2f}" if smallest else "–"] if searched else []
        table.add_row(name, *(f"{c.accuracy:.1%}" for c in row), *last)
    console.print(table, highlight=False)
    for v in found.verdicts:
        console.print(
            str(v), style=COLOURS[v.severity], markup=False, highlight=False, soft_wrap=True
        )
