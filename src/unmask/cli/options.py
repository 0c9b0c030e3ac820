"""Options that several verbs share."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Annotated

from cyclopts import Parameter

from unmask.execution.executor import Executor, executor

On = Annotated[
    str,
    Parameter(
        help="who does the work: local, ray (a Ray found or started on this machine), "
        "ray://HOST:PORT or HOST:PORT (a cluster)"
    ),
]


def elsewhere(on: str) -> AbstractContextManager[Executor | None]:
    """Return the executor of an address, or None for local, where a sweep has its own threads.

    Raises UserError, see executor.
    """
    return nullcontext() if on == "local" else executor(on)
