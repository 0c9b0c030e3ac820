"""The verb mcp: tools for assistants over stdio."""

from __future__ import annotations

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
    serve()
    return 0
