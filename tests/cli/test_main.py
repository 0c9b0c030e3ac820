from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from unmask import __version__
from unmask.cli import main as command
from unmask.cli.main import main
from unmask.errors import UserError

HEAVY = ("torch", "matplotlib", "onnxruntime", "jinja2", "unmask.sweep")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """The command line with a verb that raises what the test puts into the list."""
    raised: list[BaseException] = []

    def app(*args: object, **kwargs: object) -> None:
        raise raised[0]

    monkeypatch.setattr(command, "app", app)
    return raised


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("no such thing", got="x", do="try y"), 2, "no such thing: got x; try y"),
        (KeyboardInterrupt(), 130, "stopped"),
        (KeyboardInterrupt("stopped; 3 nets are kept"), 130, "stopped; 3 nets are kept"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/report.html"),
            2,
            "can't read or write out/report.html: No space left on device",
        ),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_status(
    failing: list[BaseException],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    line: str,
) -> None:
    failing.append(error)
    assert main([]) == status
    assert capsys.readouterr() == ("", f"unmask: {line}\n")


def test_a_fault_of_ours_is_not_hidden(failing: list[BaseException]) -> None:
    failing.append(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main([])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["flw"], "unknown command: got 'flw'; did you mean 'flow'?"),
        (["flow", "stdy"], "unknown command: got 'stdy'; did you mean 'study'?"),
        (["--no-such"], "unknown option: --no-such. See unmask --help."),
        (["flow", "--no-such"], "unknown option: --no-such. See unmask flow --help."),
        (["flow", "study", "--depth", "3"], "Unknown option: --depth. Did you mean --depths?"),
        (
            ["flow", "study", "--depths", "x"],
            "--depths takes a whole number from 1 to 1000: got 'x'",
        ),
        (["flow", "study", "--width"], "--width requires an argument"),
        (["flow", "study", "bogus"], "bogus"),
        (["flow", "study", "--width", "3", "--width", "4"], "--width specified multiple times"),
    ],
)
def test_a_wrong_command_is_one_line_that_names_the_help(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("unmask: ")
    assert err.count("\n") == 1
    assert said in err
    assert "See unmask" in err
    assert err.endswith("--help.\n")


def test_help_and_version_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    assert "flow" in overview
    assert main(["flow", "study", "--help"]) == 0
    assert "--depths" in capsys.readouterr().out


def test_help_and_a_mistyped_verb_load_nothing_heavy() -> None:
    verbs = ("", "flow", "check", "shift", "evaluate", "show", "models", "export", "fool audit")
    tried = [
        *([*verb.split(), "--help"] for verb in verbs),
        ["--version"],
        *(["flw"], ["flow", "stdy"], ["--no"]),
    ]
    code = (
        "import sys; from unmask.cli.main import main; "
        f"statuses = [main(arguments) for arguments in {tried}]; "
        f"print(statuses, [m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{[0] * (len(verbs) + 1) + [2] * 3} []"


def test_every_verb_of_the_overview_can_be_loaded() -> None:
    for name in command.app:
        assert command.app[name].name


def test_the_module_runs_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unmask", "completion", "--no-such"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("unmask: Unknown option: --no-such")


def test_a_reader_that_left_is_no_mistake() -> None:
    code = (
        "import sys; from unmask.cli import main; "
        "main.app = lambda *a, **k: print('x' * 100_000); sys.exit(main.main([]))"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("old", ["--pictures", "--pictures=4"])
def test_a_spelling_of_an_earlier_version_names_the_new_one(
    old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", "mnist", old]) == 2
    assert capsys.readouterr().err == "unmask: --pictures is now --images\n"


@pytest.mark.parametrize("code", [0, 1, None, "bye"])
def test_loaded_code_that_exits_is_no_pass(
    failing: list[BaseException], capsys: pytest.CaptureFixture[str], code: object
) -> None:
    failing.append(SystemExit(code))
    assert main([]) == 2
    assert capsys.readouterr().err == f"unmask: the code that was loaded called exit({code!r})\n"


def test_loaded_code_that_raises_beyond_exceptions_is_one_line(
    failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    class Odd(BaseException):
        pass

    failing.append(Odd("x"))
    assert main([]) == 2
    assert capsys.readouterr().err == "unmask: the code that was loaded raised Odd: x\n"


def test_loaded_code_that_takes_the_streams_does_not_keep_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def app(*args: object, **kwargs: object) -> int:
        sys.stdout = sys.stderr = None  # type: ignore[assignment]
        return 1

    monkeypatch.setattr(command, "app", app)
    before = sys.stdout, sys.stderr
    assert main([]) == 1
    assert (sys.stdout, sys.stderr) == before


def test_a_name_that_drives_a_terminal_is_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "\x1b[31mno/model.safetensors", "mnist"]) == 2
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "\\x1b[31mno/model" in err
