"""The verb check: all questions about one model, within a time limit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from unmask.cli.console import Console
from unmask.cli.options import MANY, Cifar10Source, Data, Model, Seed, Size, real, sizes
from unmask.cli.progress import progress_bar
from unmask.cli.shift import COLOURS
from unmask.cli.streams import aside
from unmask.errors import UserError

FAILED = 1


def check(
    model: Model,
    data: Data,
    /,
    *,
    source: Cifar10Source = None,
    size: Size = None,
    minutes: Annotated[
        float, real(0, 1440, "the time allowed; samples are as large as fit", above=True)
    ] = 5,
    questions: Annotated[
        tuple[str, ...],
        MANY,
        Parameter(help="preflight accuracy data flow shift audit certificate; all by default"),
    ] = (),
    eps: Annotated[
        str | None, Parameter(help="the size of the audit's changes, such as 0.3 or 8/255")
    ] = None,
    seed: Seed = 0,
    fail_on: Annotated[
        Literal["error", "warning", "never"],
        Parameter(help="exit with 1 when there is a verdict of this severity or worse"),
    ] = "error",
    baseline: Annotated[
        Path | None,
        Parameter(help="a check.json of before: show what changed, fail only for what got worse"),
    ] = None,
    out: Annotated[
        Path, Parameter(help="the folder for report.html, check.json, check.sarif, check.junit.xml")
    ] = Path("runs/check"),
    annotations: Annotated[
        bool, Parameter(help="print the verdicts as GitHub Actions shows them beside the code")
    ] = False,
    json: Annotated[bool, Parameter(help="print everything as JSON")] = False,
) -> int:
    """Find out what is wrong with a classifier: will it train, can it be fooled, does it hold?

    The exit status is 1 when a verdict is as severe as --fail-on, with --baseline only when it is
    new or has become worse.
    """
    if annotations and json:
        raise UserError("--annotations and --json both print to stdout", do="choose one")
    change = None if eps is None else sizes([eps])[0]
    # torch and matplotlib take a while to load, and --help needs none of them.
    from unmask.check.result import compare, failing, read_baseline
    from unmask.check.run import check_model
    from unmask.cli.progress import load_shown
    from unmask.data.sources import shape_for
    from unmask.report.files import require_writable, to_json
    from unmask.report.model_check import write_model_check
    from unmask.report.verdicts import annotated
    from unmask.shift.target import as_target

    # A mistake in its name must not cost the minutes of the check.
    before = None if baseline is None else read_baseline(baseline)
    foreign = aside()
    target = as_target(model)
    console = Console(stderr=True)
    if target.about:
        console.print(target.about, markup=False, highlight=False, soft_wrap=True)
    shape = shape_for(data, target.input_shape, channels=target.channels, size=size)
    loaded = load_shown(console, data, source, shape)
    require_writable(out, data)
    with progress_bar(console, target.name) as bar:

        def show(question: str, used: float) -> None:
            bar.show(used, 1.0, description=f"{target.name}: {question}")

        found = check_model(
            target,
            loaded,
            minutes=minutes,
            questions=questions,
            eps=change,
            seed=seed,
            progress=show,
        )
    comparison = None if before is None else compare(found, before)
    blamed = found.verdicts if comparison is None else comparison.worse
    failed = failing(blamed, fail_on)
    files = write_model_check(
        found,
        out,
        comparison=comparison,
        fail_on="warning" if fail_on == "warning" else "error",
    )
    foreign.close()
    if json:
        changes = None
        if comparison is not None:
            changes = [{"change": c, **v.as_dict()} for c, v in comparison.changes]
        everything = {**found.as_dict(), "changes": changes, "failed": bool(failed)}
        print(to_json({**everything, "files": [str(file) for file in files]}))
    elif annotations:
        print("".join(f"{line}\n" for line in annotated(found.verdicts, model)), end="")
    else:
        out_console = Console()

        def say(line: str, style: str = "") -> None:
            out_console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

        accuracy = found.figures().get("accuracy.accuracy")
        right = "" if accuracy is None else f": {accuracy:.1%} right"
        say(f"{found.model} on {found.data}{right}, checked in {found.seconds:.0f} s")
        marks = {} if comparison is None else {id(v): c for c, v in comparison.changes}
        for v in found.verdicts:
            mark = f"[{marks[id(v)]}] " if id(v) in marks else ""
            say(f"{mark}{v}", COLOURS[v.severity])
        if comparison is not None:
            for how, v in comparison.changes:
                if how in ("gone", "not asked"):
                    style = "green" if how == "gone" else "dim"
                    say(f"[{how}] {v.severity}: {v.title}: {v.message}", style)
        if not found.verdicts and not found.unanswered:
            say("nothing was found wrong", "green")
        for part in found.parts:
            if part.reason:
                say(f"{part.name}: {part.status}: {part.reason}", "dim")
        say("failed" if failed else "not checked" if found.unanswered else "passed")
        say(f"report: {files[0]}")
    if found.unanswered and not failed:
        # There is no verdict, and a gate must not count that as a pass.
        raise UserError("nothing could be checked", got=found.unanswered)
    return FAILED if failed else 0
