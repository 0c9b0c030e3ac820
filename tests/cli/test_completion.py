"""The scripts that complete unmask's commands are well formed and know its verbs and options."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from unmask.cli.main import main

CHECKS = {"bash": ["bash", "-n"], "zsh": ["zsh", "-n"], "fish": ["fish", "--no-execute"]}


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> str:
    assert main(["completion", request.param]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("printed", CHECKS, indirect=True)
def test_every_verb_and_its_options_are_completed(printed: str) -> None:
    for word in ("flow", "fool", "mask", "train", "evaluate", "doctor", "completion"):
        assert word in printed
    for option in ("activations", "fail-if", "require-masks"):
        assert option in printed


@pytest.mark.parametrize(("printed", "shell"), [(s, s) for s in CHECKS], indirect=["printed"])
def test_the_shell_itself_finds_the_script_well_formed(
    printed: str, shell: str, tmp_path: Path
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} on this machine")
    script = tmp_path / "script"
    script.write_text(printed)
    checked = subprocess.run([*CHECKS[shell], str(script)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("unmask fl", "flow"), ("unmask flow st", "study"), ("unmask fool audit --ag", "--against")],
)
def test_bash_completes_what_was_typed(
    typed: str, offered: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The script asks for nothing but what stands in it, so unmask itself needn't be found.
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    words = typed.split()
    ask = (
        f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        f"COMP_LINE='{typed}'; COMP_POINT={len(typed)}; "
        "$(complete -p unmask | sed 's/.*-F \\([^ ]*\\).*/\\1/') unmask; echo ${COMPREPLY[@]}"
    )
    answer = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert offered in answer.stdout.split()


def test_another_shell_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "cmd"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
