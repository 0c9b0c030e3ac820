"""The verb fool audit: the smallest changes that fool a classifier, and whether to trust them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.table import Table

from unmask.cli.console import Console
from unmask.cli.options import (
    AnyNorm,
    Cifar10Source,
    Data,
    ImageCount,
    Mean,
    Model,
    On,
    Seed,
    Size,
    Std,
    elsewhere,
    sizes,
    whole,
)
from unmask.cli.progress import progress_bar
from unmask.cli.streams import aside, say
from unmask.errors import UserError

if TYPE_CHECKING:
    from unmask.data.images import Images
    from unmask.execution.executor import Executor
    from unmask.fool.audit.plan import AuditPlan
    from unmask.fool.audit.result import Audit
    from unmask.fool.victim import Victim

FAILED = 1


def audit_model(
    model: Model,
    data: Data,
    /,
    *,
    weights: Annotated[
        Path | None, Parameter(help="a safetensors file for my_module:make_model")
    ] = None,
    against: Annotated[
        str | None, Parameter(help="another model, audited alike and shown beside it")
    ] = None,
    source: Cifar10Source = None,
    size: Size = None,
    norm: AnyNorm = "linf",
    eps: Annotated[
        list[str] | None,
        Parameter(
            help="the largest changes, such as 0.3 or 8/255; by default 0.3 (grey) or 8/255 for "
            "linf, 1.5 or 0.5 for l2, 10 or 12 for l1, 20 or 24 values for l0",
            consume_multiple=True,
        ),
    ] = None,
    images: ImageCount = 1000,
    pairs: Annotated[
        int | None,
        whole(
            0,
            100_000,
            "images of each class taken towards every other class, 0 for none; by default one for "
            "each 100 images, 10 at most",
        ),
    ] = None,
    attacks: Annotated[
        list[str] | None,
        Parameter(help="their names; the norm's ensemble by default", consume_multiple=True),
    ] = None,
    steps: Annotated[int, whole(1, 100_000, "gradients an attack takes")] = 100,
    queries: Annotated[
        int, whole(1, 10_000_000, "forward passes an image that a black-box attack takes")
    ] = 5000,
    mean: Mean = None,
    std: Std = None,
    seed: Seed = 0,
    fail_if: Annotated[
        str | None, Parameter(help='exit with 1 when this holds, such as "median_l2<1.0"')
    ] = None,
    on: On = "local",
    out: Annotated[Path, Parameter(help="the folder for report, figures and numbers")] = Path(
        "runs/audit"
    ),
    resume: Annotated[
        bool, Parameter(help="continue the audit in --out where it was stopped")
    ] = False,
    json: Annotated[bool, Parameter(help="print everything as JSON")] = False,
) -> int:
    """Attack a classifier with an ensemble of attacks and report each image's worst case.

    The exit status is 1 when the condition of --fail-if holds.
    """
    # torch and matplotlib take a while to load, and --help needs none of them.
    from unmask.cli.progress import load_shown
    from unmask.data.sources import shape_for
    from unmask.fool.audit.gate import Gate
    from unmask.fool.audit.plan import AuditPlan, default_eps, default_pairs
    from unmask.fool.audit.result import figure_names
    from unmask.fool.source import load_victim, normalisation
    from unmask.report.audit import audits_as_json, write_audit
    from unmask.report.files import require_writable
    from unmask.train.evaluation import matched

    gate = None if fail_if is None else Gate.parse(fail_if)
    foreign = aside()
    subjects = [load_victim(model, weights=weights)]
    if against is not None:
        subjects.append(load_victim(against))
    first = subjects[0]
    shape = shape_for(data, first.input_shape, channels=first.channels, size=size)
    console = Console(stderr=True)
    found = load_shown(console, data, source, shape)
    shown = found.tested
    names = subjects[0].class_names
    if names is not None:
        shown = matched(shown, names)
    wanted = normalisation(mean, std, shown.pixels.shape[1])
    for subject in subjects:
        subject.preprocessing = wanted
    usual = default_eps(norm, shown.pixels.shape[1])
    plan = AuditPlan(
        norm=norm,
        eps=sizes(eps) if eps is not None else (usual,),
        attacks=_names(attacks or []),
        images=images,
        pairs=default_pairs(images) if pairs is None else pairs,
        steps=steps,
        queries=queries,
        seed=seed,
    )
    if gate is not None:
        gate.check(figure_names(plan))
    require_writable(out, data)
    with elsewhere(on) as workers:
        audits = [
            _shown(console, subject, shown, plan, out / f"model-{i + 1}", workers, resume=resume)
            for i, subject in enumerate(subjects)
        ]
    # A gate never passes if an attack was left out.
    missing = len(audits[0].failures)
    failed = gate is not None and (missing > 0 or gate.holds(audits[0].figures()))
    page = write_audit(audits, shown, out)
    foreign.close()
    if json:
        say(audits_as_json(audits, gate=None if gate is None else (str(gate), failed)))
    else:
        _print(Console(), audits)
        if gate is not None:
            figure = audits[0].figures()[gate.name]
            say(
                f"{'failed' if failed else 'passed'}: {gate.name} is {figure:.4g}, not to be "
                f"{gate.sign} {gate.bound:g}"
                + (
                    f", and {missing} part{'s'[: missing - 1]} could not be attacked"
                    if missing
                    else ""
                )
            )
        say(f"report: {page}")
    return FAILED if failed else 0


def _names(texts: list[str]) -> tuple[str, ...]:
    for text in texts:
        if "," in text:
            raise UserError(
                "several attacks stand between spaces", got=text, do=text.replace(",", " ")
            )
    return tuple(texts)


def _shown(
    console: Console,
    subject: Victim,
    images: Images,
    plan: AuditPlan,
    folder: Path,
    workers: Executor | None,
    *,
    resume: bool,
) -> Audit:
    from unmask.fool.audit.run import AuditProgress, run_audit

    with progress_bar(console, subject.name) as bar:

        def show(p: AuditProgress) -> None:
            counts = "".join(
                f", {count} {what}"
                for what, count in (("running", p.running), ("failed", p.failed))
                if count
            )
            bar.show(p.done, p.shards, description=f"{subject.name}: {p.doing}{counts}")

        try:
            return run_audit(
                subject,
                images,
                plan,
                directory=folder,
                resume=resume,
                on=workers,
                progress=show,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt("stopped; the same command with --resume continues") from None


def _print(console: Console, audits: list[Audit]) -> None:
    from unmask.report.audit import QUANTILES, change, percent

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for found in audits:
        table.add_column(found.model)
    first = audits[0]
    table.add_row(
        f"clean accuracy, of all {len(first.worst):,}", *(percent(a.clean) for a in audits)
    )
    for eps in sorted(first.plan.eps):
        name = f"robust accuracy at {first.plan.norm} {change(eps)}, of all"
        table.add_row(name, *(percent(a.robust(eps)) for a in audits))
    for key in QUANTILES:
        values = [a.smallest[key] for a in audits]
        table.add_row(QUANTILES[key], *("none found" if v is None else change(v) for v in values))
    cost = [sum(r.forwards + r.backwards for r in a.records) for a in audits]
    table.add_row("forwards and backwards", *(f"{c:,}" for c in cost))
    console.print(table, highlight=False)
    for found in audits:
        console.print(
            f"{found.model}: {found.meaning}", markup=False, highlight=False, soft_wrap=True
        )
        for warning in found.verdicts:
            console.print(
                f"{warning.severity}: {found.model}: {warning.message}; {warning.fix}",
                style="yellow",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
