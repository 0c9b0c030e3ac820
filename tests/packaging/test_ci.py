"""What a pipeline runs of ours: the action's own shell steps, hooks, the snippets of docs/ci.md."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from unmask.cli.verbs import app

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS: dict[str, dict[str, Any]] = {s["name"]: s for s in ACTION["runs"]["steps"]}
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SNIPPETS = [
    yaml.safe_load(block)
    for block in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/ci.md").read_text(), re.DOTALL)
]


def run_step(name: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run a shell step as the runner does, with stand-ins for the programs that it calls."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for program in ("unmask", "gh", "python3"):
        stand_in = programs / program
        stand_in.write_text(
            f'#!/bin/sh\nprintf "%s|" {program} "$@" >> "$CALLS"\necho "one verdict"\n'
            "exit ${EXIT:-0}\n"
        )
        stand_in.chmod(0o755)
    told = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "CALLS": str(folder / "calls"),
        "GITHUB_OUTPUT": str(folder / "output"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        "GITHUB_REPOSITORY": "someone/something",
    }
    (folder / "calls").unlink(missing_ok=True)
    ran = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[name]["run"]],
        cwd=folder,
        env=told | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout


INPUTS = {"MODEL": "m:f", "DATA": "my images", "MINUTES": "3", "FAIL_ON": "error", "OUT": "o"}


@pytest.mark.parametrize("status", [0, 1, 2])
def test_the_action_notes_how_the_check_ended_and_ends_so_itself(
    tmp_path: Path, status: int
) -> None:
    code, printed = run_step("Check", tmp_path, INPUTS | {"EXIT": str(status), "BASELINE": ""})
    assert (code, printed) == (0, "one verdict\n")
    assert (tmp_path / "output").read_text().splitlines() == [
        "report=o/report.html",
        f"passed={'true' if status == 0 else 'false'}",
        f"status={status}",
    ]
    summary = (tmp_path / "summary").read_text()
    assert summary == "### Unmask: m:f on my images\n\n    one verdict\n"
    assert (tmp_path / "unmask-summary.md").read_text() == summary
    assert run_step("Pass or fail", tmp_path, {"STATUS": str(status)})[0] == status


def test_the_command_of_the_action_is_understood_with_and_without_a_baseline(
    tmp_path: Path,
) -> None:
    for baseline in ("", "be fore.json"):
        run_step("Check", tmp_path, INPUTS | {"BASELINE": baseline})
        words = (tmp_path / "calls").read_text().split("|")[:-1]
        assert words[:4] == ["unmask", "check", "m:f", "my images"]
        assert ("be fore.json" in words) == bool(baseline)
        verb, _, _ = app().parse_args(words[1:], exit_on_error=False)
        assert callable(verb)


def test_a_comment_that_may_not_be_written_is_a_warning(tmp_path: Path) -> None:
    code, printed = run_step("Comment", tmp_path, {"NUMBER": "7", "EXIT": "1", "GH_TOKEN": ""})
    assert code == 0
    assert "::warning::" in printed
    assert (tmp_path / "calls").read_text().startswith("gh|pr|comment|7|")


def test_every_input_reaches_a_step_through_the_environment_alone() -> None:
    # Text of a stranger that is pasted into a script could be a command.
    assert not [name for name, step in STEPS.items() if "${{" in step.get("run", "")]
    everything = (ROOT / "action.yml").read_text()
    assert not [name for name in ACTION["inputs"] if f"inputs.{name}" not in everything]


@pytest.mark.parametrize("path", [*WORKFLOWS, ROOT / "action.yml"], ids=lambda p: p.name)
def test_what_others_wrote_is_pinned_to_a_commit_and_shell_parses(path: Path) -> None:
    read = yaml.safe_load(path.read_text())
    jobs = read.get("jobs", {"action": read.get("runs", {})})
    for job in jobs.values():
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"])
            else:
                script = re.sub(r"\$\{\{.*?\}\}", "x", step["run"])
                subprocess.run(["bash", "-n", "-c", script], check=True)


def test_hooks_and_snippets_name_commands_that_exist() -> None:
    hooks = {h["id"]: h for h in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
    action, gitlab, pre_commit = SNIPPETS
    commands = [line for line in gitlab["unmask"]["script"] if line.startswith("unmask ")]
    used = pre_commit["repos"][0]["hooks"]
    commands += [" ".join([hooks[hook["id"]]["entry"], *hook["args"]]) for hook in used]
    assert len(commands) == 3
    for command in commands:
        verb, _, _ = app().parse_args(shlex.split(command)[1:], exit_on_error=False)
        assert callable(verb)
    uses = action["jobs"]["check"]["steps"][1]
    assert set(uses["with"]) <= set(ACTION["inputs"])
