from __future__ import annotations

import errno
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import get_type_hints

import pytest

from unmask import __version__
from unmask.cli import verbs
from unmask.cli.main import main
from unmask.cli.mask_train import train as train_detector
from unmask.cli.train import train
from unmask.cli.verbs import UNMASK, Verb, app
from unmask.errors import UserError
from unmask.mask.training.trainer import DetectorSettings
from unmask.train.config import OPTIMIZERS

HEAVY = (
    "torch",
    "scipy",
    "matplotlib",
    "onnxruntime",
    "jinja2",
    "pandas",
    "PIL",
    "unmask.sweep.engine",
)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """The command line with a verb that raises what the test puts into the list."""
    raised: list[BaseException] = []

    def fails(*args: object, **kwargs: object) -> None:
        raise raised[0]

    monkeypatch.setattr(verbs, "app", lambda: fails)
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
    assert main(["doctor"]) == status
    assert capsys.readouterr() == ("", f"unmask: {line}\n")


def test_a_fault_of_ours_is_not_hidden(failing: list[BaseException]) -> None:
    failing.append(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


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
        (["check", "mnist", "--minutes", "1"], "unmask: DATA is missing."),
        (["fool", "audit"], "unmask: MODEL is missing."),
        # What other tools call an option, where this verb has it, and where it hasn't.
        (["flow", "check", "m:f", "--lr", "0.1"], "Unknown option: --lr. It is --learning-rate"),
        (["mask", "detect", "a.jpg", "--conf=0.5"], "Unknown option: --conf. It is --threshold"),
        (["check", "mnist", "mnist", "--fail-if", "a<1"], "It is --fail-on here."),
        (["show", "mnist", "--lr", "0.1"], "Unknown option: --lr."),
        (["flow", "study", "bogus"], "'bogus' is an argument too many"),
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


def leaves(verbs: Mapping[str, Verb], *above: str) -> Iterator[tuple[str, ...]]:
    for name, verb in verbs.items():
        yield from leaves(verb.verbs, *above, name) if verb.verbs else [(*above, name)]


EVERY_VERB = [*leaves(UNMASK.verbs), ("data", "audit")]


@pytest.mark.parametrize(
    "command",
    [[], ["--help"], ["flow", "-h"], ["mask"], ["--version"], ["flw"], ["flow", "stdy"], ["--no"]],
)
def test_lists_of_verbs_and_mistyped_ones_need_no_library(command: list[str]) -> None:
    code = (
        "import sys; from unmask.cli.main import main; "
        f"main({command}); print(*{{m.partition('.')[0] for m in sys.modules}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"cyclopts", "rich", "numpy", *HEAVY} & set(done.stdout.splitlines()[-1].split())


def test_the_help_of_no_verb_loads_what_computes() -> None:
    code = (
        "import sys; from unmask.cli.main import main; "
        f"loaded = {{}}\nfor verb in {EVERY_VERB}:\n"
        "    assert main([*verb, '--help']) == 0\n"
        f"    loaded[verb] = [m for m in {HEAVY} if m in sys.modules]\n"
        "    if loaded[verb]: break\n"
        "print({k: v for k, v in loaded.items() if v})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "{}"


@pytest.mark.parametrize("group", [(), ("flow",), ("fool",), ("mask",)])
@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_a_list_names_the_verbs_that_the_parser_knows(
    group: tuple[str, ...],
    columns: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main([*group, "--help"]) == 0
    out = capsys.readouterr().out
    parser, table = app(), UNMASK
    for name in group:
        parser, table = parser[name], table.verbs[name]
    known = [name for name in parser if not name.startswith("-")]
    assert [line.split()[0] for line in out.splitlines() if re.match("  [a-z]", line)] == known
    # Every sentence is there whole, however it was wrapped, and the parser has the same.
    words = " ".join(out.split())
    for name in known:
        assert table.verbs[name].help in words
        assert parser[name].help == table.verbs[name].help
    assert all(len(line) <= int(columns) for line in out.splitlines())


def test_help_before_the_verb_is_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help", "mask", "detect"]) == 0
    assert "--require-masks" in capsys.readouterr().out


def test_defaults_written_in_options_are_those_of_the_training() -> None:
    # Their modules load torch, and help should not.
    fit = DetectorSettings().fit
    options = inspect.signature(train_detector).parameters
    assert [options[n].default for n in ("epochs", "batch_size", "learning_rate")] == [
        fit.epochs,
        fit.batch_size,
        fit.rate,
    ]
    optimizer = get_type_hints(train, include_extras=True)["optimizer"]
    assert ", ".join(OPTIMIZERS) in optimizer.__metadata__[0].help


def test_the_module_runs_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unmask", "completion", "--no-such"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("unmask: Unknown option: --no-such")


@pytest.mark.parametrize("command", [["--help"], ["mask", "detect", "--help"], ["long"]])
def test_a_reader_that_left_is_no_mistake(command: list[str]) -> None:
    code = (
        "import sys; from unmask.cli import main, verbs; "
        f"command = {command}; "
        "verb = lambda *a, **k: print('x' * 100_000); "
        "long = command == ['long']; "
        "verbs.app = (lambda: verb) if long else verbs.app; "
        "sys.exit(main.main(['doctor'] if long else command))"
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
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == f"unmask: the code that was loaded called exit({code!r})\n"


def test_loaded_code_that_raises_beyond_exceptions_is_one_line(
    failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    class Odd(BaseException):
        pass

    failing.append(Odd("x"))
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == "unmask: the code that was loaded raised Odd: x\n"


def test_loaded_code_that_takes_the_streams_does_not_keep_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def takes(*args: object, **kwargs: object) -> int:
        sys.stdout = sys.stderr = None  # type: ignore[assignment]
        return 1

    monkeypatch.setattr(verbs, "app", lambda: takes)
    before = sys.stdout, sys.stderr
    assert main(["doctor"]) == 1
    assert (sys.stdout, sys.stderr) == before


def test_a_name_that_drives_a_terminal_is_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "\x1b[31mno/model.safetensors", "mnist"]) == 2
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "\\x1b[31mno/model" in err
