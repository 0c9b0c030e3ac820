"""The server's connections: slow, many, half closed, without a length, and its end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from made_up_detector import WITH, paint
from made_up_files import encoded
from unmask.cli.main import main
from unmask.errors import UserError
from unmask.web.guard import LOOPBACK, Guard
from unmask.web.limits import Limits
from unmask.web.openapi import document
from unmask.web.server import Settings, configured, protections

SECRET = "a-long-random-text"
LIMITS = Limits(size=1000, seconds=0.6, rate=0)


async def _echo(request: Request) -> PlainTextResponse:
    if request.url.path == "/api/large":
        return PlainTextResponse("x" * (64 << 20))
    return PlainTextResponse(f"{len(await request.body())} bytes")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server with short limits, in a thread of its own."""
    inner = Starlette(routes=[Route("/api/{path:path}", _echo, methods=["GET", "POST"])])
    guard = Guard(inner, LIMITS, secret=SECRET, hosts=LOOPBACK)
    server = uvicorn.Server(configured(guard, Settings(limits=LIMITS, token=SECRET)))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(10)


def head(*lines: str, method: str = "POST", path: str = "/api/x") -> bytes:
    asked = (f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {SECRET}")
    return "\r\n".join([*asked, "Connection: close", *lines, "", ""]).encode()


def answered(port: int, content: bytes, *, half_close: bool = False) -> bytes:
    """Return all that comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(content)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                answer += part
        return answer


def alive(port: int) -> bool:
    return answered(port, head("Content-Length: 2") + b"ab").endswith(b"2 bytes")


@pytest.mark.parametrize(
    "content",
    [b"", b"POST /api/x HT", head()[:-2], head()[:-2] + b"X: "],
    ids=["nothing", "half a line", "no end", "half a header"],
)
def test_a_client_that_sends_no_whole_head_is_let_go(port: int, content: bytes) -> None:
    start = time.monotonic()
    assert answered(port, content) == b""
    assert time.monotonic() - start < 5
    assert alive(port)


def test_a_client_that_sends_half_a_body_is_told(port: int) -> None:
    assert answered(port, head("Content-Length: 9") + b"abc").startswith(b"HTTP/1.1 408")
    assert alive(port)


def test_a_client_that_does_not_read_its_answer_is_let_go(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head(method="GET", path="/api/large"))
        time.sleep(4 * LIMITS.seconds)
        got = 0
        # What the two kernels hold of it comes, then nothing more.
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(1 << 20):
                got += len(part)
    assert got < 64 << 20
    assert alive(port)


def test_a_client_that_reads_slowly_but_reads_has_it_all(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head(method="GET", path="/api/large"))
        got, rests = 0, 8
        while part := connection.recv(8 << 20):
            got += len(part)
            if rests:
                rests -= 1
                time.sleep(LIMITS.seconds / 5)
    assert got > 64 << 20


@pytest.mark.parametrize("content", [head("Content-Length: 9") + b"ab", head()[:-2]])
def test_a_half_closed_connection_ends(port: int, content: bytes) -> None:
    answered(port, content, half_close=True)
    assert alive(port)


def test_chunks_without_a_length_are_counted(port: int) -> None:
    chunked = head("Transfer-Encoding: chunked")
    part = b"64\r\n" + b"x" * 100 + b"\r\n"
    assert answered(port, chunked + part * 9 + b"0\r\n\r\n").endswith(b"900 bytes")
    assert answered(port, chunked + part * 11 + b"0\r\n\r\n").startswith(b"HTTP/1.1 413")
    assert answered(port, chunked + b"fffffffff\r\n").startswith((b"HTTP/1.1 4", b""))
    assert alive(port)


def test_two_hundred_connections_leave_room_for_one_more(port: int) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        assert alive(port)


def test_the_token_is_read_from_its_header_alone(
    port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in (f"/api/x?token={SECRET}", f"/api/x?access_token={SECRET}", f"/api/{SECRET}"):
        asked = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        for more in ("", f"Cookie: token={SECRET}\r\n"):
            assert answered(port, f"{asked}{more}\r\n".encode()).startswith(b"HTTP/1.1 401")
    assert alive(port)
    assert SECRET not in "".join(capfd.readouterr())


def test_every_answer_has_its_headers(port: int) -> None:
    for content in (head("Content-Length: 0"), head(method="GET", path="/nothing")):
        told = answered(port, content).partition(b"\r\n\r\n")[0].lower()
        assert b"x-content-type-options: nosniff" in told
        assert b"cross-origin-resource-policy: same-origin" in told
        assert b"\r\nserver:" not in told
    kept = answered(port, head("Content-Length: 0")).lower()
    assert b"cache-control: no-store" in kept
    assert b"content-security-policy: default-src 'self'" in kept


@pytest.mark.parametrize("token", ["täglich-neu", "eight\x00888", "tab\tbetween", "\udcff" * 8])
def test_a_token_that_no_header_carries_is_refused(token: str) -> None:
    with pytest.raises(UserError, match="ASCII") as refusal:
        Settings(token=token)
    assert token not in str(refusal.value)


def test_what_is_on_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--check", "--host", "0.0.0.0", "--token", SECRET, "--rate", "0"]) == 0
    out = capsys.readouterr().out
    assert "token: required" in out
    assert "rate: no limit" in out
    assert SECRET not in out
    assert dict(protections(Settings()))["token"] == "none is asked for"


def test_the_api_describes_itself(client) -> None:  # type: ignore[no-untyped-def]
    found = client.get("/api/openapi.json").json()
    assert found == json.loads(json.dumps(document(Limits(), token=False)))
    assert found["openapi"] == "3.1.0"
    for path, calls in found["paths"].items():
        for method in calls:
            assert client.request(method, path).status_code in (200, 422)
    assert "security" in document(Limits(), token=True)


@pytest.mark.parametrize("text", ["nan", "inf", "1_0", "٥", "0x1", "1e999", "", "1" * 99, "[/b]"])
def test_settings_of_a_request_are_numbers(client, text: str) -> None:  # type: ignore[no-untyped-def]
    answer = client.post("/api/detect", params={"threshold": text}, content=b"x")
    assert answer.status_code == 422
    assert "error" in answer.json()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_sigterm_ends_the_server_within_seconds() -> None:
    command = [sys.executable, "-m", "unmask", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"http://127.0.0.1:" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) in (0, 143, -signal.SIGTERM)
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


def resident(process: int) -> int:
    """Return the bytes of memory that a process holds."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="there is no /proc here")
def test_fifty_clients_find_the_server_as_small_afterwards(served) -> None:  # type: ignore[no-untyped-def]
    # What leaks by the request shows in seconds; benchmarks/serve.py measures any time.
    seconds = 6.0
    image = encoded(paint((160, 120), [((40, 40, 80, 80), WITH)]))
    statuses: list[int] = []

    def client(until: float) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        while time.monotonic() < until:
            connection.request("POST", "/api/detect", image)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()

    def at_once(seconds: float) -> None:
        until = time.monotonic() + seconds
        clients = [threading.Thread(target=client, args=(until,)) for _ in range(50)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()

    # All that is made once and kept is made by the same number of clients.
    at_once(seconds / 2)
    before = resident(served.process)
    at_once(seconds)
    grown = resident(served.process) - before
    assert set(statuses) == {200}
    assert len(statuses) >= 100
    assert grown < 32 << 20
