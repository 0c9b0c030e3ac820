"""The verb flow watch: a training script of yours, run unchanged and judged while it trains."""

from __future__ import annotations

import importlib.util
import os
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from unmask.cli.options import whole
from unmask.cli.streams import say
from unmask.errors import UserError
from unmask.runtime import read_regular

if TYPE_CHECKING:
    from unmask.flow.watch import Watch
    from unmask.flow.watched import WatchReport
    from unmask.verdict import Verdict

FAILED, INTERRUPTED = 1, 130
_VALUED = ("--out", "--every", "--stop-on", "--fail-on")
_Severity = Literal["error", "warning", "note"]


def watch(
    script: Annotated[str, Parameter(help="the training script, as Python would run it")],
    /,
    *arguments: Annotated[
        str, Parameter(help="what the script itself takes", allow_leading_hyphen=True)
    ],
    module: Annotated[
        bool, Parameter(alias="-m", help="SCRIPT is a module's name, as python -m takes it")
    ] = False,
    out: Annotated[Path, Parameter(help="the folder for report, figure and numbers")] = Path(
        "runs/watch"
    ),
    every: Annotated[int, whole(1, 10**9, "steps between those that are measured, later on")] = 100,
    stop_on: Annotated[
        _Severity | None, Parameter(help="end the training at the first error, or warning")
    ] = None,
    fail_on: Annotated[
        _Severity | None,
        Parameter(help="exit with 1 when there is an error, or a warning, or a note"),
    ] = None,
    json: Annotated[
        bool, Parameter(help="print everything as JSON when the script has ended")
    ] = False,
) -> int:
    """Run a training script unchanged and report each fault of its training as soon as it shows.

    Options of this command stand before the script, those of the script after it. The exit status
    is the script's own; 1 when --stop-on ended it or --fail-on names what was found.
    """
    (_require_module if module else _require_script)(script)
    from unmask.flow.watch import Stopped
    from unmask.flow.watch import watch as watching
    from unmask.report.files import require_writable

    require_writable(out)
    first = os.environ.get("RANK", "0") == "0"
    said: list[Verdict] = []

    def tell(verdict: Verdict) -> None:
        said.append(verdict)
        _say(verdict)

    session = watching(every=every, stop_on=stop_on, tell=tell if first else None)
    status = 0
    try:
        with session:
            status = _run(script, arguments, module)
    except Stopped:
        status = FAILED
        _line(f"stopped at {_steps(session)}, after {session.report.seconds:.0f} s: no step more")
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Exception as error:
        status = FAILED
        _show(error)
    with _undisturbed():
        report = session.report
        if first:
            _conclude(report, said, out, json)
    found = fail_on is not None and bool(report.at_least(fail_on))
    return status or (FAILED if found else 0)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C: a report takes a moment, and would be lost with all that was watched."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def before_script(tokens: Sequence[str]) -> list[str]:
    """Return the arguments of unmask with "--" inserted before the script and its own options."""
    at = 2
    while at < len(tokens) and tokens[at].startswith("-"):
        if tokens[at] in ("--", "--help", "-h"):
            return list(tokens)
        at += 2 if tokens[at] in _VALUED else 1
    return [*tokens[:at], "--", *tokens[at:]] if at < len(tokens) else list(tokens)


def _require_script(script: str) -> None:
    path = Path(script)
    if not path.exists():
        raise UserError("there is no such script", got=script)
    if path.is_dir():
        raise UserError("a script is a file", got=f"the folder {script}")
    content = read_regular(path)
    try:
        compile(content, script, "exec")
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise UserError("the script isn't Python", got=f"{script}{line}: {error}") from error


def _require_module(name: str) -> None:
    """Require a module, or a package with a __main__, that Python finds from this folder."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.util.find_spec(name)
        if found is not None and found.submodule_search_locations is not None:
            found = importlib.util.find_spec(f"{name}.__main__")
    except (ImportError, ValueError):
        found = None
    finally:
        sys.path.pop(0)
    if found is None:
        do = "python -m must find it from this folder; of a package its __main__"
        raise UserError("there is no such module", got=name, do=do)


def _run(script: str, arguments: Sequence[str], module: bool = False) -> int:
    """Run the script as Python would and return its exit status; its exceptions pass through."""
    before, path = sys.argv, list(sys.path)
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path.cwd() if module else Path(script).resolve().parent))
    try:
        if module:
            runpy.run_module(script, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv, sys.path[:] = before, path
    return 0


def _show(error: Exception) -> None:
    trace = error.__traceback__
    # The frames of this command and of runpy are not the user's.
    while trace is not None and trace.tb_next is not None and _ours(trace.tb_frame):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)


def _ours(frame: Any) -> bool:
    name = frame.f_code.co_filename
    return name == __file__ or "runpy" in name


def _conclude(report: WatchReport, said: list[Verdict], out: Path, json: bool) -> None:
    from unmask.report.check import watch_as_dict, write_watch

    if not report.models:
        _line(
            "no training was seen: no model with parameters was called with gradients (tensors "
            "without a module, a module with a __call__ of its own, and what runs inside "
            "torch.func's vmap and grad aren't watched)"
        )
        if report.verdicts:
            for v in report.verdicts:
                _say(v)
        return
    files = write_watch(report, out)
    if json:
        from unmask.report.files import to_json

        print(to_json({**watch_as_dict(report), "files": [str(file) for file in files]}))
        return
    # What only the end of the training made certain.
    places = {(v.kind, v.subject, v.location) for v in said}
    for v in report.at_least("warning"):
        if (v.kind, v.subject, v.location) not in places:
            _say(v)
    errors, warnings = len(report.at_least("error")), len(report.at_least("warning"))
    steps = max(m.steps for m in report.models)
    if not steps and not errors:
        _line("no step of an optimiser was seen: how weights change otherwise isn't judged")
    _line(
        f"{_count(errors, 'error')}, {_count(warnings - errors, 'warning')} in "
        f"{_count(steps, 'step')} of "
        f"{', '.join(m.model for m in report.models)}. Report: {files[0]}"
    )


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def _steps(session: Watch) -> str:
    return f"step {max((m.steps for m in session.report.models), default=0) + 1:,}"


def _say(verdict: Verdict) -> None:
    from unmask.flow.judge.verdicts import told

    _line(told(verdict))


def _line(text: str) -> None:
    sys.stdout.flush()
    say(f"unmask: {text}", file=sys.stderr, flush=True)
