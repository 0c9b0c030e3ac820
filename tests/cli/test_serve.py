import re
import socket

import pytest

from unmask.cli.main import main


def mistake(capsys, *arguments: str) -> str:
    assert main(["serve", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_help_names_the_limits(capsys) -> None:
    assert main(["serve", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(f"--{name}\\b", shown) for name in ("size", "seconds", "rate", "token"))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "example.org"])
def test_others_are_let_in_with_a_token_only(capsys, monkeypatch, host: str) -> None:
    monkeypatch.delenv("UNMASK_TOKEN", raising=False)
    assert "needs a token" in mistake(capsys, "--host", host)
    assert "token is too short" in mistake(capsys, "--host", host, "--token", "1234567")
    monkeypatch.setenv("UNMASK_TOKEN", "1234567")
    assert "token is too short" in mistake(capsys, "--host", host)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--port", "70000"), "--port takes a whole number from 0 to 65535"),
        (("--size", "0"), "--size takes a number from 0.001 to 1000"),
        (("--seconds", "nan"), "--seconds takes a number from 0.1 to 3600"),
        (("--rate", "-1"), "--rate takes a whole number from 0 to 1000000"),
        (("--detector", "absent.onnx"), "there is no such detector"),
    ],
)
def test_wrong_settings_are_told_in_one_line(capsys, arguments, line: str) -> None:
    assert line in mistake(capsys, *arguments)


def test_a_port_that_is_taken_is_told(capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} of 127.0.0.1 is unavailable" in mistake(capsys, "--port", str(port))


@pytest.mark.parametrize(("host", "told"), [("0.0.0.0", "localhost"), ("127.0.0.1", "127.0.0.1")])
def test_the_address_told_is_one_that_a_browser_opens(monkeypatch, host: str, told: str) -> None:
    from unmask.web import server

    monkeypatch.setattr(server, "application", lambda settings: None)
    monkeypatch.setattr(server.uvicorn.Server, "run", lambda self, sockets: None)
    addresses: list[str] = []
    server.serve(server.Settings(host=host, port=0, token="a long token"), addresses.append)
    assert re.fullmatch(rf"http://{re.escape(told)}:\d+", addresses[0])
