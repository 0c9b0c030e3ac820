from __future__ import annotations

import socket
import sys
import time

import pytest

from unmask.cli.main import main
from unmask.errors import UserError
from unmask.execution.address import executor_at


def refusal(address: str) -> str:
    begun = time.monotonic()
    with pytest.raises(UserError) as caught:
        executor_at(address)
    assert time.monotonic() - begun < 10
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "address", ["", "lokal", "ray:", "ray://", "ray://host", "host:", ":1", "host:0", "host:65536"]
)
def test_what_is_no_address_is_named(address: str) -> None:
    assert f"no such place to work on: got {address!r}" in refusal(address)


def test_without_ray_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "unmask.execution.ray_executor", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'unmask[cluster]'" in refusal("ray")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_listens_or_nothing_of_rays(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{other.getsockname()[1]}"
        assert f"no Ray cluster answers at {address}" in refusal(address)
        # The whole of its patience was tried above.
        monkeypatch.setattr("unmask.execution.ray_connection._SECONDS_TO_ANSWER", 1.0)
        other.listen()
        assert f"no Ray cluster answers at {address}" in refusal(address)


def test_the_command_line_tells_it_in_one_line(
    tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["flow", "map", "--on", "nowhere", "--out", f"{tmp_path}/map"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
