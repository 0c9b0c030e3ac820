"""The server as it runs: what hostile clients get, and that it lives."""

import http.client
import json
import socket

import pytest
from PIL import Image

from made_up_detector import WITH, paint
from made_up_files import bomb, encoded

PNG = encoded(Image.new("RGB", (8, 8)))


def healthy(served) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    connection.request("GET", "/api/health")
    answer = connection.getresponse()
    return answer.status == 200 and json.loads(answer.read())["status"] == "ok"


def sent(served, content: bytes, *, end: bool = False, wait: float = 20) -> bytes:
    """Return what the server says to these bytes on a connection of their own."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=wait) as connection:
        try:
            connection.sendall(content)
            if end:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
        return answer


def head(size: int, path: str = "/api/detect") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {size}"]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


@pytest.mark.slow
def test_a_picture_is_answered_and_leaves_nothing_behind(served) -> None:
    picture = encoded(paint((200, 160), [((40, 40, 80, 80), WITH)]))
    answer = sent(served, head(len(picture)) + picture)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"with_mask"' in answer
    assert served.files() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "status"),
    [
        pytest.param(head(100_000_000) + b"\0" * 1_000_000, 413, id="a hundred megabytes told"),
        pytest.param(
            b"POST /api/detect HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"100000\r\n"
            + b"\0" * 0x100000
            + b"\r\n",
            None,
            id="chunks without an end",
        ),
        pytest.param(head(len(bomb(9, 9))) + bomb(60_000, 60_000), 422, id="a bomb"),
        pytest.param(head(3) + b"abc", 422, id="no image"),
        pytest.param(head(1000) + b"abc", None, id="half a body"),
        pytest.param(b"POST /api/detect HTTP/1.1\r\nHost: 127", None, id="half a head"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00" * 9, None, id="TLS"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000, 400, id="an endless header"),
        pytest.param(b"", None, id="nothing at all"),
    ],
)
def test_a_hostile_client_is_refused_and_the_server_lives(served, content, status) -> None:
    # Who has half closed the connection gets no answer; nor does who has not sent all.
    answer = sent(served, content, end=status is None)
    if status is not None:
        assert answer.startswith(f"HTTP/1.1 {status}".encode())
    if status in (413, 422):
        assert "error" in json.loads(answer.partition(b"\r\n\r\n")[2])
    assert healthy(served)


@pytest.mark.slow
def test_a_hundred_megabytes_in_chunks_are_cut_off(served) -> None:
    start = b"POST /api/detect HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    part = b"100000\r\n" + b"\0" * 0x100000 + b"\r\n"
    answer = sent(served, start + part * 100)
    # The server may close before all of it is sent, and the answer be lost on the way.
    assert not answer or answer.startswith(b"HTTP/1.1 413")
    assert healthy(served)


@pytest.mark.slow
def test_a_client_that_sends_no_more_is_told_and_let_go(served) -> None:
    answer = sent(served, head(1000) + b"abc", wait=30)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"not complete within 12 s" in answer
    assert healthy(served)


@pytest.mark.slow
def test_nothing_of_all_this_is_kept_or_logged(served) -> None:
    # Runs last of this file: the clients before have sent what they had.
    picture = encoded(Image.new("RGB", (30, 30), (1, 2, 3)))
    for path in ("/api/detect", "/api/classify"):
        assert sent(served, head(len(picture), path) + picture).startswith(b"HTTP/1.1 200")
    assert sent(served, head(len(PNG), "/gradio_api/upload") + PNG).startswith(b"HTTP/1.1 404")
    assert served.files() == []
    log = served.log.read_text()
    assert "Traceback" not in log
    assert "/api/" not in log
