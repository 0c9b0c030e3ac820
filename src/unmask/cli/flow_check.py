"""The verb flow check: whether a network will train, and if not, why, and how to repair it."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.table import Table

from unmask.cli.console import Console
from unmask.cli.options import On, Seed, Size, elsewhere, real, whole
from unmask.errors import UserError, unknown
from unmask.verdict import SEVERITIES

if TYPE_CHECKING:
    from unmask.flow.check import FlowCheck, MakeOptimizer
    from unmask.flow.feed import Loss
    from unmask.flow.repair import Repair, Trial

# Torch's name of each optimiser, its other settings, and the usual learning rate.
OPTIMIZERS: dict[str, tuple[str, dict[str, float], float]] = {
    "sgd": ("SGD", {}, 0.01),
    "momentum": ("SGD", {"momentum": 0.9}, 0.01),
    "adam": ("Adam", {}, 1e-3),
    "adamw": ("AdamW", {}, 1e-3),
}
NONE = "none"
FAILED = 1
_COLOURS = {"error": "red", "warning": "yellow", "note": "dim"}


def check(
    model: Annotated[
        str, Parameter(help="what makes the model: my_module:make_model, or my_file.py:make_model")
    ],
    /,
    *,
    data: Annotated[
        str,
        Parameter(
            help="mnist, cifar10, a folder or zip of images, or my_module:make_loader for "
            "batches (inputs, targets) of your own"
        ),
    ] = "mnist",
    size: Size = None,
    loss: Annotated[
        str, Parameter(help="cross_entropy, or my_module:my_loss of (output, targets)")
    ] = "cross_entropy",
    optimizer: Annotated[
        str, Parameter(help=f"{', '.join(OPTIMIZERS)}, or {NONE}: judge the start only")
    ] = "adam",
    learning_rate: Annotated[
        float | None,
        real(0, 1e6, "step size; 0.001 for adam and adamw, else 0.01 by default", above=True),
    ] = None,
    weight_decay: Annotated[
        float | None, real(0, 1e6, "of the optimiser; its own by default: 0.01 for adamw, else 0")
    ] = None,
    batch_size: Annotated[
        int | None,
        whole(
            1,
            1_000_000,
            "images in a batch; by default 64, down to 16 where a step would take long",
        ),
    ] = None,
    steps: Annotated[int, whole(1, 100_000, "training steps, on a copy of the model")] = 10,
    seed: Seed = 0,
    fail_on: Annotated[
        str, Parameter(help="exit with 1 when there is an error, a warning or a note, or worse")
    ] = "error",
    repair: Annotated[
        bool, Parameter(help="try the fixes that fit, each in short reruns over seeds")
    ] = False,
    on: On = "local",
    out: Annotated[Path, Parameter(help="the folder for report, figure and numbers")] = Path(
        "runs/check"
    ),
    annotations: Annotated[
        bool, Parameter(help="print the verdicts as GitHub Actions shows them beside the code")
    ] = False,
    json: Annotated[bool, Parameter(help="print everything as JSON")] = False,
) -> int:
    """Say whether a PyTorch model will train: its verdicts with cause and fix, from a few steps.

    The exit status is 1 when one is found that --fail-on names.
    """
    if fail_on not in SEVERITIES:
        raise unknown("severity", fail_on, SEVERITIES[::-1])
    if annotations and json:
        raise UserError("--annotations and --json both print to stdout", do="choose one")
    if batch_size == 1:
        raise UserError("a batch needs two images or more", got=batch_size, do="64 is usual")
    rate = _learning_rate(optimizer, learning_rate)
    if repair and rate is None:
        raise UserError("--repair trains, so it needs an optimiser", got=f"--optimizer {NONE}")
    # torch and matplotlib take a while to load, and --help needs none of them.
    import torch

    from unmask.cli.batches import batches_for
    from unmask.flow.check import check_flow
    from unmask.flow.profile import predicted_flow
    from unmask.models.classifier import Classifier
    from unmask.models.load import load_network
    from unmask.models.preprocessing import Wrapped
    from unmask.report.annotations import annotated
    from unmask.report.check import check_as_dict, write_check
    from unmask.report.files import require_writable, to_json

    require_writable(out)
    torch.manual_seed(seed)
    network, loss_fn = load_network(model), _loss(loss)
    if isinstance(network, (Classifier, Wrapped)):
        # A model by name comes ready to predict.
        network.train()
    make = None if rate is None else _maker(optimizer, rate, weight_decay)
    batches = batches_for(network, data, batch_size, size)
    pairs = list(islice(batches.of_seed(seed), max(steps if make else 1, 1)))
    with Console(stderr=True).status("checking") as shown:

        def progress(step: int, of: int) -> None:
            shown.update(f"checking: step {step} of {of}")

        found = check_flow(
            network,
            loss_fn,
            iter(pairs),
            optimizer=make,
            steps=steps,
            seed=seed,
            progress=progress,
        )
    asked = {"model": model, "loss": loss, "optimizer": optimizer, "learning rate": rate}
    told = {k: v for k, v in asked.items() if v is not None}
    found = replace(found, stamp={**found.stamp, **told, **batches.stamp})
    prediction = predicted_flow(network, loss_fn, pairs[0], found.history[0])
    outcome = None
    if repair and make is not None and found.at_least("warning"):
        from unmask.flow.repair import repair as repair_flow

        with Console(stderr=True).status("trying repairs"), elsewhere(on) as workers:
            outcome = repair_flow(network, loss_fn, batches.of_seed, make, check=found, on=workers)
    files = write_check(found, prediction, outcome, batches.title, out)
    if json:
        everything = check_as_dict(found, prediction, outcome)
        print(to_json({**everything, "files": [str(file) for file in files]}))
    elif annotations:
        print("".join(f"{line}\n" for line in annotated(found.verdicts, model)), end="")
    else:
        _print(Console(), found, outcome, batches.title, repair)
        Console().print(f"Report: {files[0]}", highlight=False, markup=False, soft_wrap=True)
    return FAILED if found.at_least(fail_on) else 0


def _learning_rate(optimizer: str, given: float | None) -> float | None:
    """Return the learning rate, None without an optimiser."""
    if optimizer == NONE:
        if given is not None:
            raise UserError("without an optimiser there is no learning rate", got=given)
        return None
    if optimizer not in OPTIMIZERS:
        raise unknown("optimiser", optimizer, [*OPTIMIZERS, NONE])
    rate = OPTIMIZERS[optimizer][2] if given is None else given
    if not (rate > 0 and math.isfinite(rate)):
        raise UserError("the learning rate must be a positive number", got=rate, do="try 0.001")
    return rate


def _maker(optimizer: str, rate: float, decay: float | None) -> MakeOptimizer:
    from torch import optim

    name, settings, _ = OPTIMIZERS[optimizer]
    if decay is not None:
        if not 0 <= decay < math.inf:
            raise UserError("the weight decay must be 0 or more", got=decay, do="try 0.01")
        settings = {**settings, "weight_decay": decay}

    def make(parameters: Any) -> Any:
        trained = [p for p in parameters if p.requires_grad]
        return getattr(optim, name)(trained, lr=rate, **settings)

    return make


def _loss(name: str) -> Loss:
    from torch import nn

    from unmask.models.imported import load_object

    if ":" not in name:
        if name != "cross_entropy":
            raise UserError(
                "unknown loss",
                got=repr(name),
                do="give cross_entropy, or an import path such as torch.nn.functional:mse_loss",
            )
        return nn.functional.cross_entropy
    loss: Any = load_object(name)
    if isinstance(loss, type) and issubclass(loss, nn.Module):
        loss = loss()
    if not callable(loss):
        raise UserError(
            f"{name} is no loss", got=type(loss).__name__, do="give a function of (output, targets)"
        )
    return loss  # type: ignore[no-any-return]


def _print(
    console: Console, found: FlowCheck, outcome: Repair | None, fed: str, asked_repair: bool
) -> None:
    from unmask.report.check import headline, place

    def say(line: str, style: str = "") -> None:
        console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)

    say(f"{headline(found)}; {fed}.")
    for v in found.verdicts:
        say("")
        say(f"{v.severity}: {v.kind}, {place(v)}", _COLOURS[v.severity])
        told = Table.grid(padding=(0, 1))
        for name, text in (("seen", v.message), ("cause", v.cause), ("fix", v.fix)):
            if text:
                told.add_row(f"  {name}", text)
        console.print(told, highlight=False, markup=False)
    if not found.verdicts:
        say("Nothing blocks the gradient.", "green")
    if found.untested:
        say(f"\nNot tested: {'; '.join(found.untested)}.", "dim")
    if asked_repair and outcome is None:
        say("Nothing to repair.")
    if outcome is not None:
        _print_repair(console, outcome)


def _print_repair(console: Console, outcome: Repair) -> None:
    from unmask.report.check import shares, short

    console.print(f"\nTried, each for {outcome.steps} steps:", highlight=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in ("", "what was changed", "set to", "loss by seed", "accuracy by seed"):
        table.add_column(name)

    def row(trial: Trial, mark: str) -> None:
        losses = ", ".join(map(short, trial.losses))
        table.add_row(mark, trial.name, trial.sets, losses, shares(trial.accuracies))

    row(outcome.before, "")
    for trial in outcome.trials:
        row(trial, "✓" if trial == outcome.best else "")
    console.print(table, highlight=False)
    for line in outcome.failures:
        console.print(f"not run: {line}", markup=False, highlight=False, soft_wrap=True)
    if outcome.best is None:
        console.print("None of them worked.")
        return
    console.print(f"What worked is {outcome.best.name}. To paste:\n", markup=False, highlight=False)
    # Wrapped lines would change the program.
    print(outcome.best.code, end="\n\n")
