"""The guard before every request: which clients, pages, sizes and rates are admitted."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import re
import secrets
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlsplit

from unmask.web.limits import Limits, RateLimiter, RefusedError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_LOG = logging.getLogger("uvicorn.error")

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# Only those of gradio's routes that the page needs: none receives or sends files, none fetches.
_SERVED = re.compile(
    r"/|/(config|theme\.css|manifest\.json|favicon\.ico|robots\.txt)|/(assets|static|reports|api)/.+"
    r"|/gradio_api/(info|app_id|startup-events|theme\.css|queue/(join|data)|run/predict|cancel|reset"
    r"|heartbeat/\w+)/?"
)
_PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "font-src 'self' data:; connect-src 'self'; frame-src 'self'; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
)


class Guard:
    """An ASGI application in front of another one, which gets complete and small requests only.

    Args:
        application: the one behind it.
        limits: of requests.
        secret: what Authorization must hold, as a bearer token or as the password of basic
            authentication with any name; None requires nothing.
        hosts: the names that the server answers to, so that no foreign site can reach it under
            another name; None for any.
    """

    def __init__(
        self,
        application: Application,
        limits: Limits,
        *,
        secret: str | None,
        hosts: frozenset[str] | None,
    ) -> None:
        self._application, self._limits = application, limits
        self._secret, self._hosts = secret, hosts
        self._rate = RateLimiter(limits.rate)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it in one line of JSON."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._application(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        try:
            self._admit(scope, headers)
            body = await self._body(scope, headers, receive)
        except RefusedError as refused:
            await refuse(send, refused)
            return

        async def replayed() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            message = {"type": "http.request", "body": body, "more_body": False}
            body = None
            return message

        begun = broken = False

        async def dressed(message: Message) -> None:
            nonlocal begun, broken
            # The frameworks' own words for a fault are no JSON.
            broken |= message.get("status") == 500
            if broken:
                return
            if message["type"] == "http.response.start":
                begun = True
                given = {name.lower() for name, _ in message["headers"]}
                added = [*_HEADERS, (b"content-security-policy", _PAGE_POLICY.encode())]
                if not scope["path"].startswith(("/assets/", "/static/")):
                    # An answer may be about an image that somebody sent: no cache may keep it.
                    added.append((b"cache-control", b"no-store"))
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in added if name not in given),
                ]
            await send(message)

        try:
            await self._application(scope, replayed, dressed)
        except Exception as error:
            # Where it happened and nothing of what was sent: no image and no name goes into a log.
            where = traceback.extract_tb(error.__traceback__)[-1]
            _LOG.error("%s in %s, line %s", type(error).__name__, where.filename, where.lineno)
            broken = True
        if broken and not begun:
            await refuse(send, RefusedError(500, "this request can't be answered"))

    def _admit(self, scope: MutableMapping[str, Any], headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            raise RefusedError(403, "this server answers to its own address only")
        client = network(str((scope.get("client") or ("",))[0]))
        known = self._known(headers.get("authorization", ""))
        # Among GET requests only those for reports cost work: each searches their folders.
        works = scope["method"] == "POST" or scope["path"].startswith("/reports/")
        if not known or works:
            wait = self._rate.admit(client)
            if wait:
                raise RefusedError(429, f"too many requests; try again in {wait:.0f} s")
        if not known:
            raise RefusedError(401, "a token is required, as a bearer token or a password")
        if not _SERVED.fullmatch(scope["path"]):
            raise RefusedError(404, "there is no such page")
        if scope["method"] not in ("GET", "HEAD", "POST"):
            raise RefusedError(405, f"{scope['method']} is not served; use GET or POST")
        origin = headers.get("origin")
        if scope["method"] == "POST" and origin and _place(origin) != host:
            raise RefusedError(403, "another site may not send images here")

    def _known(self, authorization: str) -> bool:
        if self._secret is None:
            return True
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() == "basic":
            try:
                value = base64.b64decode(value, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return False
        elif scheme.lower() != "bearer":
            return False
        return secrets.compare_digest(value.encode(), self._secret.encode())

    async def _body(
        self, scope: MutableMapping[str, Any], headers: dict[str, str], receive: Receive
    ) -> bytes | None:
        """Return the body of a POST, or None."""
        if scope["method"] != "POST":
            return None
        size, limit = headers.get("content-length", "0"), self._limits.size
        too_large = RefusedError(413, f"the request is too large; the limit is {limit:,} bytes")
        if not size.isdecimal() or int(size) > limit:
            raise too_large
        parts, total = [], 0
        try:
            async with asyncio.timeout(self._limits.seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RefusedError(400, "the request ended before it was complete")
                    parts.append(message.get("body", b""))
                    total += len(parts[-1])
                    if total > limit:
                        raise too_large
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            wait = self._limits.seconds
            raise RefusedError(408, f"the request was not complete within {wait:g} s") from None
        body = b"".join(parts)
        if scope["path"].startswith("/gradio_api/") and body and not _is_json(body):
            raise RefusedError(422, "the page's own calls are JSON")
        return body


async def refuse(send: Send, refused: RefusedError) -> None:
    """Send the refusal as JSON and close the connection, whatever remains of the request."""
    content = json.dumps({"error": str(refused)}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
        *_HEADERS,
    ]
    if refused.status == 401:
        headers.append((b"www-authenticate", b'Basic realm="Unmask", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def network(client: str) -> str:
    """Return the key of a client's rate limit: its address, or the /64 network of an IPv6 address.

    Whoever has one IPv6 address has a whole /64 network, and would have 2^64 rate limits otherwise.

    Args:
        client: the address, with or without a zone.
    """
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return client
    if isinstance(address, IPv4Address):
        return client
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((address, 64), strict=False))


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _place(origin: str) -> str:
    """Return the host and port of an Origin header, nothing for one that can't be read."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _name(host: str) -> str:
    """Return the host of a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
