"""The table of all verbs, the lists that --help shows of them, and the parser made from it.

The lists and the message for a mistyped verb come from the table alone: to import the parser takes
several times as long as the whole of the rest.
"""

from __future__ import annotations

import functools
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from unmask import __version__
from unmask.errors import UserError, unknown

if TYPE_CHECKING:
    from cyclopts import App


class Verb(NamedTuple):
    """A verb, or a group of verbs.

    Args:
        help: one sentence.
        home: "module:function" of a verb, imported when it is called.
        verbs: of a group, by name.
    """

    help: str
    home: str = ""
    verbs: Mapping[str, Verb] = {}


VERBS = {
    "check": Verb(
        "All questions at once, within a time: one list of verdicts, one exit status.",
        "unmask.cli.check:check",
    ),
    "flow": Verb(
        "Will it train? Gradients by layer, depth and activation.",
        verbs={
            "check": Verb(
                "Check whether your own PyTorch model trains: verdicts, causes, fixes, repair.",
                "unmask.cli.flow_check:check",
            ),
            "watch": Verb(
                "Run your own training script unchanged and report faults while it trains.",
                "unmask.cli.flow_watch:watch",
            ),
            "map": Verb(
                "Train nets over sigma_w2 and depth and draw the theory's trainable "
                "depth on the outcome.",
                "unmask.cli.flow_map:draw_map",
            ),
            "study": Verb(
                "Train nets of many depths and activations on MNIST and show where "
                "gradients vanish.",
                "unmask.cli.flow_study:study",
            ),
            "bounds": Verb(
                "Show the exact range of f' and of dE/dw, for the last layer and any other.",
                "unmask.cli.flow_bounds:bounds",
            ),
        },
    ),
    "fool": Verb(
        "Can it be fooled? The smallest change after which another class is predicted.",
        verbs={
            "audit": Verb(
                "Attack a classifier with an ensemble, and judge how far to trust its figures.",
                "unmask.cli.fool_audit:audit_model",
            ),
            "grid": Verb(
                "Draw images changed a little so that each is predicted as every other class.",
                "unmask.cli.fool_grid:draw_grid",
            ),
            "certify": Verb(
                "Prove for each image that no change within eps moves it to another class.",
                "unmask.cli.fool_certify:certify_model",
            ),
            "harden": Verb(
                "Train a classifier that withstands changes up to a given size.",
                "unmask.cli.fool_harden:harden",
            ),
        },
    ),
    "shift": Verb(
        "Does it hold in the wild? Blur, noise, weather, another camera, another runtime.",
        "unmask.cli.shift:shift",
    ),
    "mask": Verb(
        "Does it hold in the wild? Faces with and without masks.",
        verbs={
            "detect": Verb(
                "Find faces in images, video or a camera, and who wears a mask.",
                "unmask.cli.mask_detect:detect",
            ),
            "train": Verb(
                "Train a detector on your own annotated images.",
                "unmask.cli.mask_train:train",
            ),
            "evaluate": Verb(
                "Measure a detector on annotated images.",
                "unmask.cli.mask_evaluate:evaluate",
            ),
            "export": Verb(
                "Write a trained detector as ONNX, checked against PyTorch.",
                "unmask.cli.mask_export:export",
            ),
            "train-classifier": Verb(
                "Train the course report's classifier on faces cut out of annotated images.",
                "unmask.cli.mask_train_classifier:train_classifier",
            ),
        },
    ),
    "data": Verb(
        "Fetch the face mask set, MNIST or CIFAR-10; audit any set for leaks and wrong labels.",
        "unmask.cli.data:app",
    ),
    "train": Verb(
        "Train a classifier on MNIST, CIFAR-10 or your own images.",
        "unmask.cli.train:train",
    ),
    "evaluate": Verb(
        "Measure a classifier: accuracy, confusion, calibration, worst mistakes.",
        "unmask.cli.evaluate:evaluate_model",
    ),
    "show": Verb(
        "Show a network's structure: layers, shapes, parameters and multiply-adds.",
        "unmask.cli.show:show",
    ),
    "models": Verb("List the models known by name.", "unmask.cli.models:models"),
    "export": Verb(
        "Write a classifier as ONNX, checked against PyTorch.",
        "unmask.cli.export:export",
    ),
    "serve": Verb("Serve the page and the HTTP API on this machine.", "unmask.cli.serve:serve"),
    "mcp": Verb(
        "Serve check, audit, detect and explain to an assistant over stdio (MCP).",
        "unmask.cli.mcp:mcp",
    ),
    "reproduce": Verb(
        "Run the whole course report and show its figures beside ours.",
        "unmask.cli.reproduce:reproduce_document",
    ),
    "doctor": Verb(
        "Show versions, processor, GPU, data and models found, for bug reports.",
        "unmask.cli.doctor:doctor",
    ),
    "completion": Verb(
        "Print what makes bash, zsh or fish complete these commands.",
        "unmask.cli.completion:completion",
    ),
}
UNMASK = Verb("Find out what is wrong with an image classifier before its users do.", verbs=VERBS)


def answer(tokens: Sequence[str]) -> str | None:
    """Return what is printed for a command line that ends in a group, None where a verb runs.

    Args:
        tokens: of the command line.

    Returns:
        The group's verbs, or the version.

    Raises:
        UserError: there is no such verb, or a group doesn't take such an option.
    """
    group, command = UNMASK, "unmask"
    for token in tokens:
        if token in ("--help", "-h"):
            continue
        if token == "--version" and group is UNMASK:
            return __version__
        if token.startswith("-"):
            raise UserError(f"unknown option: {token}. See {command} --help.")
        if token not in group.verbs:
            raise UserError(f"{unknown('command', token, group.verbs)}. See {command} --help.")
        group, command = group.verbs[token], f"{command} {token}"
        if not group.verbs:
            return None
    return _listed(group, command)


def _listed(group: Verb, command: str) -> str:
    """Return the help of a group: its verbs, each with its sentence."""
    rows = {name: verb.help for name, verb in group.verbs.items()}
    rows["--help, -h"] = "Show this list, or what a verb takes."
    if group is UNMASK:
        rows["--version"] = "Show the version."
    first, width = max(map(len, rows)) + 4, _terminal_width()
    lines = [
        f"Usage: {command} COMMAND",
        "",
        *textwrap.wrap(group.help, width, break_on_hyphens=False),
        "",
        "Commands:",
    ]
    for name, text in rows.items():
        lines += textwrap.wrap(
            text,
            max(width, first + 20),
            initial_indent=f"  {name}".ljust(first),
            subsequent_indent=" " * first,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def _terminal_width() -> int:
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (AttributeError, OSError, ValueError):
        return 80


@functools.cache
def app() -> App:
    """Return the parser of all verbs, each of which is imported when it is called."""
    from cyclopts import App, Parameter

    def filled(name: str, group: Verb, **options: Any) -> App:
        made = App(name=name, help=group.help, **options)
        for each, verb in group.verbs.items():
            if verb.verbs:
                made.command(filled(each, verb))
            else:
                made.command(verb.home, name=each, help=verb.help)
        return made

    return filled(
        "unmask",
        UNMASK,
        version=__version__,
        version_flags=["--version"],
        help_format="plaintext",
        default_parameter=Parameter(negative=()),
        suppress_keyboard_interrupt=False,
    )
