"""The verb serve: the page and the HTTP API on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unmask.cli.console import Console
from unmask.cli.options import real, whole
from unmask.cli.streams import say
from unmask.errors import UserError

TOKEN_VARIABLE = "UNMASK_TOKEN"


def serve(
    *,
    host: Annotated[
        str, Parameter(help="where to listen; any but this machine's own needs a token")
    ] = "127.0.0.1",
    port: Annotated[int, whole(0, 65_535, "0 takes any that is free")] = 7860,
    token: Annotated[
        str | None,
        Parameter(
            help=f"what clients must give, as a password or a bearer token; {TOKEN_VARIABLE} in "
            "the environment is the better place, since arguments can be seen by others"
        ),
    ] = None,
    detector: Annotated[
        Path | None, Parameter(help="an ONNX file of a mask detector; the one that ships if none")
    ] = None,
    reports: Annotated[
        tuple[Path, ...],
        Parameter(help="folders in which to look for reports", consume_multiple=True),
    ] = (Path("runs"),),
    size: Annotated[float, real(0.001, 1000, "megabytes that a request may have")] = 10.0,
    seconds: Annotated[float, real(0.1, 3600, "for an answer, and for a request to arrive")] = 30.0,
    check: Annotated[
        bool, Parameter(help="say which protections would be on, and serve nothing")
    ] = False,
    rate: Annotated[int, whole(0, 1_000_000, "requests a minute and client; 0 is no limit")] = 240,
) -> int:
    """Serve the page and the HTTP API until Ctrl-C or SIGTERM."""
    try:
        from unmask.web.limits import Limits
        from unmask.web.server import Settings, protections
        from unmask.web.server import serve as run
    except ModuleNotFoundError as error:
        if error.name not in ("gradio", "fastapi", "uvicorn", "starlette"):
            raise
        raise UserError(
            "the page needs more packages", got=str(error), do="pip install 'unmask[web]'"
        ) from error
    settings = Settings(
        host=host,
        port=port,
        token=token if token is not None else os.environ.get(TOKEN_VARIABLE) or None,
        detector=detector,
        reports=reports,
        limits=Limits(size=int(size * 1e6), seconds=seconds, rate=rate),
    )
    if check:
        for name, what in protections(settings):
            say(f"{name}: {what}")
        return 0
    run(settings, lambda address: _tell(address, settings.token is not None))
    return 0


def _tell(address: str, asks: bool) -> None:
    asked = "; any name and the token open it" if asks else ""
    line = f"Unmask is at {address}{asked}. Ctrl-C ends it."
    Console().print(line, markup=False, highlight=False, soft_wrap=True)
