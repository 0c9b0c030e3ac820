"""The stamp of a result names the command that made it."""

import pytest

from unmask.runtime import environment_stamp


@pytest.mark.parametrize(
    ("started", "command"),
    [
        ("/usr/bin/unmask", "unmask show m.json"),
        ("/site-packages/unmask/__main__.py", "unmask show m.json"),
        ("benchmarks/cifar.py", "python benchmarks/cifar.py show m.json"),
        ("/home/a/benchmarks/cifar.py", "python cifar.py show m.json"),
    ],
)
def test_the_command_is_how_a_person_would_start_it(
    started: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [started, "show", "m.json"])
    assert environment_stamp(more=1).items() >= {"command": command, "more": 1}.items()
