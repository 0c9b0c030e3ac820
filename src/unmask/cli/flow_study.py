"""The verb flow study: depth against activation, beside the report's figures."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from unmask.cli.console import Console
from unmask.cli.options import (
    BatchSize,
    Epochs,
    LearningRate,
    On,
    Threads,
    Width,
    elsewhere,
    real,
    whole,
)
from unmask.cli.progress import sweep_progress
from unmask.coursework.study.plan import MAX_SEEDS, StudyPlan
from unmask.errors import UserError
from unmask.models.activations import ACTIVATIONS, activation
from unmask.sweep.spec import INITS, LOSSES, OPTIMIZERS

if TYPE_CHECKING:
    from unmask.coursework.study.outcomes import Outcome
    from unmask.coursework.study.run import Study

_MANY = Parameter(consume_multiple=True, show_default=lambda v: " ".join(map(str, v)))


def study(
    *,
    depths: Annotated[tuple[int, ...], _MANY, whole(1, 1000, "hidden layers")] = StudyPlan.depths,
    activations: Annotated[
        tuple[str, ...], _MANY, Parameter(help=f"of {', '.join(ACTIVATIONS)}")
    ] = StudyPlan.activations,
    seeds: Annotated[
        int, whole(1, MAX_SEEDS, "nets of each depth and activation")
    ] = StudyPlan.seeds,
    width: Width = StudyPlan.width,
    init: Annotated[str, Parameter(help=f"one of {', '.join(INITS)}")] = StudyPlan.init,
    sigma_w2: Annotated[
        float | None, real(0, 1e6, "variance of the weights times fan-in, for mean_field")
    ] = None,
    sigma_b2: Annotated[
        float | None, real(0, 1e6, "variance of the biases, for mean_field")
    ] = None,
    loss: Annotated[str, Parameter(help=f"one of {', '.join(LOSSES)}")] = StudyPlan.loss,
    optimizer: Annotated[
        str, Parameter(help=f"one of {', '.join(OPTIMIZERS)}")
    ] = StudyPlan.optimizer,
    learning_rate: LearningRate = StudyPlan.learning_rate,
    batch_size: BatchSize = StudyPlan.batch_size,
    epochs: Epochs = StudyPlan.epochs,
    probe_epoch: Annotated[
        int | None,
        whole(
            1, 1_000_000, f"epochs before gradients are taken; {StudyPlan.probe_epoch} by default"
        ),
    ] = None,
    training_pictures: Annotated[
        int, whole(1, 60_000, "the first so many train"), Parameter(name="--training-images")
    ] = StudyPlan.training_pictures,
    validation_pictures: Annotated[
        int, whole(1, 60_000, "the last so many validate"), Parameter(name="--validation-images")
    ] = StudyPlan.validation_pictures,
    threads: Threads = None,
    device: Annotated[
        str, Parameter(help="cpu, or cuda to train nets of one shape together on the GPU")
    ] = "cpu",
    on: On = "local",
    out: Annotated[Path, Parameter(help="the folder for report, figures and numbers")] = Path(
        "runs/study"
    ),
    resume: Annotated[bool, Parameter(help="continue the study in --out")] = False,
    json: Annotated[bool, Parameter(help="print the tables as JSON")] = False,
) -> int:
    """Train nets of many depths and activations on MNIST and show where gradients vanish.

    The defaults are the settings of the report, whose figures stand beside ours.
    """
    plan = StudyPlan(
        depths=depths,
        activations=activations,
        seeds=seeds,
        width=width,
        init=init,
        sigma_w2=sigma_w2,
        sigma_b2=sigma_b2,
        loss=loss,
        optimizer=optimizer,
        learning_rate=learning_rate,
        batch_size=batch_size,
        epochs=epochs,
        probe_epoch=min(StudyPlan.probe_epoch, epochs) if probe_epoch is None else probe_epoch,
        training_pictures=training_pictures,
        validation_pictures=validation_pictures,
    )
    # torch and matplotlib take a while to load, and --help needs none of them.
    from unmask.coursework.study.run import HISTORY_FILE
    from unmask.report.files import require_writable, to_json
    from unmask.report.study import summary_as_dict, write_study
    from unmask.train.device import pick_device

    require_writable(out)
    found = _train(plan, out, resume, threads, str(pick_device(device)), on)
    kept = f"every trained net is kept in {out / HISTORY_FILE}, --resume continues from it"
    try:
        files = write_study(found, out)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped before all was written; {kept}") from None
    except UserError as error:
        raise UserError(f"{error}; {kept}") from None
    if json:
        summary = {**summary_as_dict(found), "files": [str(file) for file in files]}
        print(to_json(summary))
    else:
        _print(Console(), found, files)
    return 0


def _train(
    plan: StudyPlan, out: Path, resume: bool, threads: int | None, device: str, on: str
) -> Study:
    import numpy as np

    from unmask.coursework.study.run import run_study
    from unmask.sweep.engine import SweepInterrupted

    with elsewhere(on) as cluster, sweep_progress() as show:
        try:
            return run_study(
                plan,
                folder=out,
                resume=resume,
                threads=threads,
                device=device,
                on=cluster,
                progress=show,
            )
        except SweepInterrupted as interrupt:
            done = int(np.count_nonzero(interrupt.history.status))
            where = f"--device {device} " if device != "cpu" else ""
            where += f"--on {on} " if on != "local" else ""
            raise KeyboardInterrupt(
                f"stopped; {done} of {len(interrupt.history.specs)} nets are kept in {out}, "
                f"continue with: {plan.command()} {where}--out {shlex.quote(str(out))} --resume"
            ) from None


def _print(console: Console, found: Study, files: list[Path]) -> None:
    from unmask.coursework.study.findings import findings

    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name, right in (
        ("layers", True),
        ("", False),
        ("test accuracy", False),
        ("loss", True),
        ("trained", False),
        ("the report", False),
        ("", False),
    ):
        table.add_column(name, justify="right" if right else "left")
    last = None
    for outcome in found.outcomes:
        if last not in (None, outcome.depth):
            table.add_section()
        last = outcome.depth
        table.add_row(*_row(outcome))
    console.print(table)
    told = Table.grid(padding=(0, 1))
    for finding in findings(found):
        told.add_row("-", Text(finding))
    console.print(told)
    if found.plan.departures():
        changed = ", ".join(name.replace("_", " ") for name in found.plan.departures())
        console.print(f"Not the report's settings: {changed}.", markup=False, highlight=False)
    folders = ", ".join(dict.fromkeys(f"{file.parent}/" for file in files[1:]))
    console.print(
        f"Report: {files[0]}; figures and numbers: {folders}", highlight=False, soft_wrap=True
    )


def _row(o: Outcome) -> list[str | Text]:
    from unmask.coursework.study.outcomes import AGREES, DIFFERS, NO_FIGURE, TOSS

    marks = {
        AGREES: Text("agrees", "green"),
        TOSS: Text("toss", "yellow"),
        DIFFERS: Text("differs", "red"),
    }
    accuracy, loss = o.test_accuracy, o.test_loss
    return [
        str(o.depth),
        activation(o.activation).title,
        "diverged"
        if not accuracy.count
        else f"{accuracy.mean:.4f}" + (f" ±{accuracy.std:.4f}" if accuracy.count > 1 else ""),
        f"{loss.mean:.4f}" if loss.count else "",
        f"{o.trained} of {o.seeds}",
        f"{o.document.test_accuracy:.4f} / {o.document.test_loss:.4f}" if o.document else "",
        "" if o.agreement == NO_FIGURE else marks[o.agreement],
    ]
