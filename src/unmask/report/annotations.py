"""Verdicts as workflow commands, which GitHub Actions shows beside the code of a pull request."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path

from unmask.text import printable
from unmask.verdict import Verdict

_COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}


def annotated(verdicts: Iterable[Verdict], path: str) -> list[str]:
    """Return verdicts as GitHub workflow commands, one line for each.

    Args:
        verdicts: on the model.
        path: the model's import path, "my_module:make_model"; a line names the file and the line
            where it is defined, when that lies in the working folder.
    """
    place = _place(path)
    lines = []
    for v in verdicts:
        where = f" in {v.subject}" if v.subject else ""
        properties = {**place, "title": f"{path}: {v.title}{where}"}
        told = ",".join(f"{k}={_property(str(value))}" for k, value in properties.items())
        parts = (v.message, v.cause and f"cause: {v.cause}", f"fix: {v.fix}")
        text = ". ".join(part for part in parts if part)
        lines.append(f"::{_COMMANDS[v.severity]} {told}::{_data(text)}")
    return lines


def _place(path: str) -> dict[str, str | int]:
    module_name, _, name = path.partition(":")
    module = sys.modules.get(module_name)
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).is_relative_to(Path.cwd()):
        return {}
    place: dict[str, str | int] = {"file": Path(file).relative_to(Path.cwd()).as_posix()}
    # A model that was created when the module was imported has no source line.
    with contextlib.suppress(AttributeError, TypeError, OSError):
        place["line"] = inspect.getsourcelines(getattr(module, name.partition(".")[0]))[1]
    return place


def _data(text: str) -> str:
    return printable(text, lines=True).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
