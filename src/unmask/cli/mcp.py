"""The verb mcp: tools for assistants over stdio."""

from __future__ import annotations

import sys

from unmask.errors import UserError


def mcp() -> int:
    """Serve the tools check, audit, detect and explain_verdict over stdio until the client goes."""
    try:
        from unmask.mcp.server import serve
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("mcp"):
            raise
        raise UserError(
            "the server of tools needs the package mcp",
            got=str(error),
            do="pip install 'unmask[mcp]'",
        ) from error
    if sys.stdin is not None and sys.stdin.isatty():
        # In a terminal it would wait without a word.
        print("unmask: waiting for an assistant's client on stdin; Ctrl-C ends it", file=sys.stderr)
    serve()
    return 0
