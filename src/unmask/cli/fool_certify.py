"""The verb fool certify: the images that no change within eps can move to another class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.table import Table

from unmask.cli.console import Console
from unmask.cli.options import (
    Cifar10Source,
    Data,
    ImageCount,
    Mean,
    Norm,
    Seed,
    Size,
    Std,
    real,
    sizes,
)
from unmask.cli.progress import progress_bar
from unmask.cli.streams import aside, say

if TYPE_CHECKING:
    from unmask.fool.certify.result import Certification
    from unmask.fool.certify.run import CertifyProgress

FAILED = 1


def certify_model(
    model: Annotated[
        str, Parameter(help="a model that ships, a .safetensors file, or my_module:make_model")
    ],
    data: Data,
    /,
    *,
    weights: Annotated[
        Path | None, Parameter(help="a safetensors file for my_module:make_model")
    ] = None,
    source: Cifar10Source = None,
    size: Size = None,
    norm: Norm = "linf",
    eps: Annotated[str, Parameter(help="the largest change, such as 0.3 or 8/255")] = "0.1",
    minutes: Annotated[float, real(0, 1e6, "the time allowed", above=True)] = 10.0,
    images: ImageCount = 1000,
    mean: Mean = None,
    std: Std = None,
    seed: Seed = 0,
    fail_if: Annotated[
        str | None, Parameter(help='exit with 1 when this holds, such as "proved<0.9"')
    ] = None,
    out: Annotated[Path, Parameter(help="the folder for report, figures and numbers")] = Path(
        "runs/certify"
    ),
    resume: Annotated[
        bool, Parameter(help="continue the run in --out where it was stopped")
    ] = False,
    json: Annotated[bool, Parameter(help="print everything as JSON")] = False,
) -> int:
    """Prove for each image that its class stays, or attack it; what is neither is left open.

    The exit status is 1 when the condition of --fail-if holds.
    """
    # torch and matplotlib take a while to load, and --help needs none of them.
    from unmask.cli.progress import load_shown
    from unmask.data.sources import shape_for
    from unmask.fool.audit.gate import Gate
    from unmask.fool.certify.result import FIGURES, CertifyPlan
    from unmask.fool.certify.run import certify_victim
    from unmask.fool.source import load_victim, normalisation
    from unmask.report.certify import write_certification
    from unmask.report.files import require_writable, to_json

    plan = CertifyPlan(eps=sizes([eps])[0], norm=norm, minutes=minutes, images=images, seed=seed)
    gate = None if fail_if is None else Gate.parse(fail_if)
    if gate is not None:
        gate.check(FIGURES)
    foreign = aside()
    victim = load_victim(model, weights=weights)
    console = Console(stderr=True)
    shape = shape_for(data, victim.input_shape, channels=victim.channels, size=size)
    loaded = load_shown(console, data, source, shape)
    pixels = loaded.tested
    victim.preprocessing = normalisation(mean, std, pixels.pixels.shape[1])
    require_writable(out, data)
    with progress_bar(console, victim.name) as bar:

        def show(p: CertifyProgress) -> None:
            figures = f"{p.proved:,} proved, {p.attacked:,} attacked, {p.open:,} open"
            bar.show(p.done, p.total, description=p.doing, figures=figures)

        try:
            found = certify_victim(victim, pixels, plan, out=out, resume=resume, progress=show)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("stopped; the same command with --resume continues") from None
    page = write_certification(found, out)
    failed = gate is not None and gate.holds(found.figures())
    foreign.close()
    if json:
        told = found.as_dict()
        if gate is not None:
            told["gate"] = {"fail_if": str(gate), "failed": failed}
        print(to_json(told))
        return FAILED if failed else 0
    _print(Console(), found)
    if gate is not None:
        say(
            f"{'failed' if failed else 'passed'}: {gate.name} is "
            f"{found.figures()[gate.name]:.4g}, not to be {gate.sign} {gate.bound:g}"
        )
    say(f"report: {page}")
    return FAILED if failed else 0


def _print(console: Console, found: Certification) -> None:
    from unmask.report.certify import bracket, rows

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"{found.model}, {found.plan.norm} {found.plan.eps:.4g}")
    table.add_column("images", justify="right")
    table.add_column("of all (95 % interval)")
    for name, count, fraction in rows(found):
        table.add_row(name, f"{count:,}", fraction)
    console.print(table, highlight=False)
    say(bracket(found))
    for verdict in found.verdicts():
        console.print(str(verdict), markup=False, highlight=False, soft_wrap=True)
