"""The reports on this machine, each served in a sandbox."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import anyio
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from unmask.errors import UserError
from unmask.runtime import read_regular

PAGE = "report.html"
_DEEPEST, _MOST, _LARGEST = 4, 500, 64 << 20
# A report is text and images: it must not run, fetch or open anything.
_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    "frame-ancestors 'self'"
)


def find_reports(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the reports below folders.

    Args:
        folders: searched at most four folders deep; links are not followed.

    Returns:
        The paths by a name to show, the newest first, 500 at most.
    """
    found: list[tuple[float, str, Path]] = []
    for folder in folders:
        root = folder.resolve()
        for place, below, files in os.walk(root):
            depth = len(Path(place).relative_to(root).parts)
            below[:] = sorted(b for b in below if depth < _DEEPEST and not b.startswith("."))
            page = Path(place) / PAGE
            if PAGE in files and (when := _written(page)) is not None:
                stamped = datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M UTC")
                inside = page.parent.relative_to(root).as_posix()
                name = folder.name if inside == "." else f"{folder.name}/{inside}"
                found.append((when, f"{name} · {stamped}", page))
    found.sort(key=lambda entry: (-entry[0], entry[1]))
    return {name: page for _, name, page in found[:_MOST]}


def report_routes(folders: Sequence[Path]) -> list[Route]:
    """Return GET /reports/page?name=..., which serves what find_reports lists and nothing else."""

    async def page(request: Request) -> Response:
        name = request.query_params.get("name", "")
        content = await anyio.to_thread.run_sync(_read, folders, name)
        if content is None:
            return JSONResponse({"error": "there is no such report"}, 404)
        return HTMLResponse(content, headers={"content-security-policy": _POLICY})

    return [Route("/reports/page", page, methods=["GET"])]


def _written(page: Path) -> float | None:
    """Return when a report was written; None for a link, a pipe, and one that has just gone."""
    try:
        found = page.lstat()
    except OSError:
        return None
    return found.st_mtime if stat.S_ISREG(found.st_mode) else None


def _read(folders: Sequence[Path], name: str) -> bytes | None:
    path = find_reports(folders).get(name)
    try:
        return None if path is None else read_regular(path, _LARGEST)
    except (OSError, UserError):
        return None
