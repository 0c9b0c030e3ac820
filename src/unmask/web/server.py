"""The server: the page and the API behind one guard."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

# Set before gradio is imported, which would report its use to its makers.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import fastapi
import gradio as gr
import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from unmask.errors import UserError
from unmask.web.api import routes
from unmask.web.assets import style
from unmask.web.guard import LOOPBACK, Guard
from unmask.web.limits import Limits
from unmask.web.models import Models
from unmask.web.page import page
from unmask.web.reports import report_routes

_SHORTEST_SECRET = 8
# The most connections at once, of all clients together; more are answered with 503.
CONNECTIONS = 1000
# Seconds until an idle connection is closed.
IDLE = 20
_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans"]
_FIXED_FONTS = ["ui-monospace", "Cascadia Code", "Menlo", "DejaVu Sans Mono", "monospace"]


@dataclass(frozen=True)
class Settings:
    """Where the server listens, what it shows, and what it requires of its clients.

    Args:
        host: the address on which it listens.
        port: 0 takes any that is free.
        token: what a client must give, 8 characters or more; required for any host but this
            machine's own.
        detector: an ONNX file; None for the one that ships.
        reports: folders whose reports are shown.
        limits: of requests.

    Raises:
        UserError: when a token is missing or too short.
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
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            # Headers hold bytes, and clients encode other characters in different ways.
            raise UserError(
                "the token must be of ASCII characters that can be printed",
                do="take what openssl rand -hex 16 prints",
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


def protections(settings: Settings) -> list[tuple[str, str]]:
    """Return the server's protections and their settings, by name.

    Args:
        settings: of the server that would run.
    """
    limits = settings.limits
    reach = "this machine alone" if settings.local else "every machine that can reach it"
    token = "none is asked for"
    if settings.token is not None:
        token = "required, in the header Authorization only, compared in constant time"
    names = ", ".join(sorted(LOOPBACK | {settings.host})) if settings.local else "any"
    return [
        ("reached by", f"{reach} (--host {settings.host})"),
        ("token", token),
        ("host names answered to", names),
        ("other sites' pages", "may not post (Origin is checked)"),
        ("transport", "HTTP; across a network put a proxy with TLS before it"),
        ("request", f"{limits.size:,} bytes at most, whole within {limits.seconds:g} s"),
        ("image", f"{limits.pixels:,} pixels at most, counted before it is decoded"),
        ("answer", f"within {limits.seconds:g} s"),
        (
            "rate",
            f"{limits.rate:,} requests a minute and client" if limits.rate else "no limit",
        ),
        ("X-Forwarded-For", "not believed"),
        ("connections", f"{CONNECTIONS} at most, closed when idle for {IDLE} s"),
        ("headers", "content security policy, nosniff, no referrer, no framing"),
        ("images", "in memory only: not on disk, in no cache, in no log"),
        ("reports", f"below {', '.join(map(str, settings.reports)) or 'no folder'}, in a sandbox"),
        ("access log", "off"),
    ]


def application(settings: Settings) -> Guard:
    """Return the page and the API as one ASGI application.

    Args:
        settings: of the server.

    Raises:
        UserError: as Models does.
    """
    models = Models(settings.detector, settings.limits)
    inner = fastapi.FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    asks = settings.token is not None
    inner.router.routes += [*routes(models, token=asks), *report_routes(settings.reports)]
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


class Impatient(AutoHTTPProtocol):  # type: ignore[valid-type, misc]
    """A connection that is closed when a request's head, or reading its answer, takes too long.

    uvicorn itself waits for both for ever, so that idle clients could take all connections.
    """

    patience = 30.0
    _closing: asyncio.TimerHandle | None = None
    _giving_up: asyncio.TimerHandle | None = None
    _unread = 0

    def connection_made(self, transport: Any) -> None:
        """Wait for the first bytes."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Process the data, and keep waiting if the head isn't complete yet."""
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        super().connection_lost(exc)
        for timer in (self._closing, self._giving_up):
            if timer is not None:
                timer.cancel()

    def pause_writing(self) -> None:
        """Wait for the client to read what it was sent."""
        super().pause_writing()
        if self._giving_up is None:
            self._unread = self.transport.get_write_buffer_size()
            self._giving_up = self.loop.call_later(self.patience, self._give_up)

    def resume_writing(self) -> None:
        """Stop waiting: the client has read on."""
        super().resume_writing()
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _give_up(self) -> None:
        """Close the connection if the client has read nothing since the last call."""
        left = self.transport.get_write_buffer_size()
        if left >= self._unread:
            self.transport.abort()
            return
        self._unread = left
        self._giving_up = self.loop.call_later(self.patience, self._give_up)

    def _wait(self) -> None:
        asked = self.cycle is not None and not self.cycle.response_complete
        if asked and self._closing is not None:
            self._closing.cancel()
            self._closing = None
        elif not asked and self._closing is None:
            self._closing = self.loop.call_later(self.patience, self._close)

    def _close(self) -> None:
        self._closing = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def configured(application: Guard, settings: Settings) -> uvicorn.Config:
    """Return uvicorn's configuration for an application.

    Args:
        application: behind its guard.
        settings: where it listens, and how long a client may take.
    """
    patient = type("Patient", (Impatient,), {"patience": settings.limits.seconds})
    return uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        http=patient,
        # An access log would record who requested what.
        access_log=False,
        # Anyone can write X-Forwarded-For, and would get a separate rate limit by it.
        proxy_headers=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=IDLE,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=3,
    )


def serve(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        settings: of the server.
        ready: called with the address once the port is open.

    Raises:
        UserError: when the port is in use.
    """
    server = uvicorn.Server(configured(application(settings), settings))
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listening = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise UserError(
            f"port {settings.port} of {settings.host} is unavailable",
            got=error.strerror,
            do="choose another with --port",
        ) from None
    with listening:
        host, port = listening.getsockname()[:2]
        if ip_address(host.partition("%")[0]).is_unspecified:
            # No browser opens 0.0.0.0; this machine is one of those that it stands for.
            host = "localhost"
        ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        server.run(sockets=[listening])
