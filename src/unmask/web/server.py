"""The server: the page and the API behind one guard."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

# Before it is imported: gradio would tell its makers of its use.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import fastapi
import gradio as gr
import uvicorn

from unmask.errors import UserError
from unmask.web.api import routes
from unmask.web.assets import style
from unmask.web.guard import LOOPBACK, Guard
from unmask.web.limits import Limits
from unmask.web.models import Models
from unmask.web.page import page
from unmask.web.reports import report_routes

_SHORTEST_SECRET = 8
_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans"]
_FIXED_FONTS = ["ui-monospace", "Cascadia Code", "Menlo", "DejaVu Sans Mono", "monospace"]


@dataclass(frozen=True)
class Settings:
    """Where the server listens, what it shows, and what it asks of its clients.

    token: what a client must give; needed for any host but this machine's own. detector: an ONNX
    file. Raises UserError when a token is lacking or too short.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    token: str | None = None
    detector: Path | None = None
    reports: tuple[Path, ...] = (Path("runs"),)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.token is None and not self.local:
            raise UserError(
                "a server that others can reach needs a token",
                got=f"--host {self.host} without one",
                do="set UNMASK_TOKEN, for instance to what openssl rand -hex 16 prints",
            )
        if self.token is not None and len(self.token) < _SHORTEST_SECRET:
            raise UserError(
                "the token is too short",
                got=f"{len(self.token)} characters",
                do=f"give {_SHORTEST_SECRET} or more",
            )

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host in LOOPBACK:
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


def application(settings: Settings) -> Guard:
    """Return the page and the API as one ASGI application. Raises UserError as Models does."""
    models = Models(settings.detector, settings.limits)
    inner = fastapi.FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    inner.router.routes += [*routes(models), *report_routes(settings.reports)]
    gr.mount_gradio_app(
        inner,
        page(models, settings.reports),
        path="/",
        ssr_mode=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        show_error=False,
        theme=gr.themes.Base(primary_hue="blue", font=_FONTS, font_mono=_FIXED_FONTS),
        css=style(),
    )
    hosts = LOOPBACK | {settings.host} if settings.local else None
    return Guard(inner, settings.limits, secret=settings.token, hosts=hosts)


def serve(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C. ready is called with the address once the port is taken.

    Raises UserError when the port is in use.
    """
    server = uvicorn.Server(
        uvicorn.Config(
            application(settings),
            host=settings.host,
            port=settings.port,
            # An access log would hold who asked for what.
            access_log=False,
            # Anyone can write X-Forwarded-For, and would have a rate of their own by it.
            proxy_headers=False,
            log_level="warning",
            server_header=False,
            timeout_keep_alive=20,
            timeout_graceful_shutdown=3,
        )
    )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listening = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise UserError(
            f"port {settings.port} of {settings.host} can't be had",
            got=error.strerror,
            do="choose another with --port",
        ) from None
    with listening:
        host, port = listening.getsockname()[:2]
        ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        server.run(sockets=[listening])
