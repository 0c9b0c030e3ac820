"""The server: Unmask's tools over stdio, for any client of the Model Context Protocol."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, InputRequiredResult, ToolAnnotations
from pydantic import ValidationError

from unmask import __version__
from unmask.errors import UserError, unknown
from unmask.mcp.tools import audit, check, detect, explain_verdict
from unmask.text import printable

INSTRUCTIONS = """Unmask finds out what is wrong with an image classifier. Call check first; each
verdict names a cause and a fix. Call explain_verdict for a kind that is unclear, audit for the
accuracy under attack, detect to find faces and masks in a photograph. A model given as an import
path is the user's own code, which is run."""

_TOOLS: dict[str, Callable[..., dict[str, Any]]] = {
    tool.__name__: tool for tool in (check, audit, detect, explain_verdict)
}
_READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, open_world_hint=False)
# An import path runs the code of whoever wrote it.
_RUNS = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)


class _Server(MCPServer):
    """A server that refuses arguments which a tool doesn't have, and tells mistakes in one line.

    The SDK passes over them: an audit with `epsilon` would be one at the usual eps.
    """

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Any = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool; see MCPServer.call_tool."""
        known = list(inspect.signature(_TOOLS[name]).parameters) if name in _TOOLS else []
        if known and (spare := [argument for argument in arguments if argument not in known]):
            raise ToolError(printable(str(unknown(f"argument of {name}", spare[0], known))))
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            faults = (
                f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.__cause__.errors()
            )
            raise ToolError(printable(f"wrong arguments of {name}: {'; '.join(faults)}")) from error


def server() -> MCPServer:
    """Return the server with its four tools."""
    made = _Server("unmask", version=__version__, instructions=INSTRUCTIONS, log_level="WARNING")
    for name, tool in _TOOLS.items():
        hints = _RUNS if name in ("check", "audit") else _READS
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
