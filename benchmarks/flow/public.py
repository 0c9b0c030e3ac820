"""False alarms on public training programs, as their authors wrote them.

Every program of public_programs.py is watched for some seconds, in a clone of its repository, and
ended as by Ctrl-C. An error is false unless it is listed there with what the program really does.
The programs fetch MNIST and CIFAR-10 by themselves and need what they import, such as torchvision;
what doesn't run, or calls no model with gradients in its time, isn't counted. A table first, then
one line of JSON.

    python benchmarks/flow/public.py CLONES [--seconds 40] [--only TEXT] [--out FOLDER]

CLONES holds a folder for each repository, named as the repository is without its owner.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from public_programs import PROGRAMS, Program
from rich.console import Console
from rich.table import Table

from unmask.runtime import environment_stamp
from unmask.stats import wilson

PATIENCE = 60


def script_of(folder: Path, program: Program) -> list[str]:
    """Return a program's command; the code of a notebook becomes a script beside it."""
    script, *arguments = program.command.split()
    if script.endswith(".ipynb"):
        cells = json.loads((folder / script).read_text())["cells"]
        code = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        plain = re.sub(r"^[!%][A-Za-z].*$", "pass", code, flags=re.MULTILINE)
        script = script.removesuffix(".ipynb") + "_code.py"
        (folder / script).write_text(plain)
    return [script, *arguments]


def watched(clones: Path, program: Program, seconds: float, out: Path) -> list[str] | None:
    """Return the kinds of the errors of a program, or None where no training was seen."""
    root = clones / program.repository.rpartition("/")[2]
    folder = root / program.folder
    if not folder.is_dir():
        return None
    path = os.pathsep.join([str(folder), str(root), os.environ.get("PYTHONPATH", "")])
    there = out / re.sub(r"\W+", "-", f"{program.repository} {program.folder} {program.command}")
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "unmask", "flow", "watch", "--out", str(there)),
            *script_of(folder, program),
        ],
        cwd=folder,
        env={**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # A shell's background processes ignore Ctrl-C, and hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
    report = there / "data" / "watch.json"
    if not report.exists():
        return None
    found = json.loads(report.read_text())
    return sorted({v["kind"] for v in found["verdicts"] if v["severity"] == "error"})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("clones", type=Path, help="the folder of the clones")
    parser.add_argument("--seconds", type=float, default=40.0, help="that each program is watched")
    parser.add_argument("--only", default="", help="programs whose line holds this text")
    parser.add_argument("--out", type=Path, default=Path("runs/public"), help="for the reports")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    table = Table("repository", "program", "errors", "of which false")
    seen, false = 0, []
    for program in PROGRAMS:
        line = f"{program.repository} {program.folder}/{program.command}"
        if arguments.only not in line:
            continue
        found = watched(arguments.clones.absolute(), program, arguments.seconds, out)
        if found is None:
            table.add_row(program.repository, program.command, "not seen", "")
            continue
        wrong = [k for k in found if k not in program.right]
        seen += 1
        false += [line] if wrong else []
        table.add_row(program.repository, program.command, ", ".join(found), ", ".join(wrong))
    Console(width=140).print(table)
    low, high = wilson(len(false), seen) if seen else (0.0, 1.0)
    result = {"programs": seen, "false": false, "interval": [low, high]}
    print(json.dumps({**result, "stamp": environment_stamp()}))


if __name__ == "__main__":
    main()
