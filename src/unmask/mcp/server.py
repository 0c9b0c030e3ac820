"""The server: Unmask's tools over stdio, for any client of the Model Context Protocol."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

from unmask import __version__
from unmask.errors import UserError
from unmask.mcp.tools import audit, check, detect, explain_verdict
from unmask.text import printable

INSTRUCTIONS = """Unmask finds out what is wrong with an image classifier. Call check first; each
verdict names a cause and a fix. Call explain_verdict for a kind that is unclear, audit for the
accuracy under attack, detect to find faces and masks in a photograph. A model given as an import
path is the user's own code, which is run."""

_READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, open_world_hint=False)
# An import path runs the code of whoever wrote it.
_RUNS = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)


def server() -> MCPServer:
    """Return the server with its four tools."""
    made = MCPServer("unmask", version=__version__, instructions=INSTRUCTIONS, log_level="WARNING")
    for tool, hints in (
        (check, _RUNS),
        (audit, _RUNS),
        (detect, _READS),
        (explain_verdict, _READS),
    ):
        made.tool(annotations=hints, structured_output=True)(_told(tool))
    return made


def _told(tool: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Return the tool with its mistakes told in one line, and stdout kept for the protocol."""

    @functools.wraps(tool)
    def call(*arguments: Any, **named: Any) -> dict[str, Any]:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                return tool(*arguments, **named)
        except (UserError, OSError) as error:
            raise ToolError(printable(" ".join(str(error).split()))) from error

    return call


def serve() -> None:
    """Answer on stdin and stdout until the client goes."""
    server().run("stdio")
