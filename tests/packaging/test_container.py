"""The container: its files fit the project, and linters have nothing to say of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from unmask.cli.verbs import app

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)


def test_what_is_copied_exists_and_is_let_in() -> None:
    let_in = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = [c.split()[:-1] for c in instructions("COPY") if not c.startswith("--from")]
    assert sorted(path for paths in copied for path in paths) == sorted(let_in)
    assert all((ROOT / path).exists() for path in let_in)


def test_the_last_stage_runs_without_rights_and_without_a_compiler() -> None:
    last = DOCKERFILE.split("\nFROM ")[-1]
    assert "apt-get" not in last
    (user,) = instructions("USER")
    assert user.partition(":")[0] != "0"
    assert user.partition(":")[0].isdigit()


def test_the_command_is_understood_and_the_check_of_health_is_python() -> None:
    words = json.loads(instructions("ENTRYPOINT")[0]) + json.loads(instructions("CMD")[-1])
    verb, _, _ = app().parse_args(words[1:], exit_on_error=False)
    assert callable(verb)
    (health,) = instructions("HEALTHCHECK")
    compile(json.loads(health.partition(" CMD ")[2])[2], "health", "exec")


def test_compose_publishes_on_this_machine_alone_and_asks_for_a_token() -> None:
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["unmask"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["environment"]["UNMASK_TOKEN"].startswith("${UNMASK_TOKEN:?")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize(
    ("linter", "arguments"),
    [("hadolint", ["Dockerfile"]), ("zizmor", ["--offline", "--quiet", "."])],
)
def test_a_linter_has_nothing_to_say(linter: str, arguments: list[str]) -> None:
    program = shutil.which(linter, path=str(Path(sys.executable).parent)) or shutil.which(linter)
    if program is None:
        pytest.skip(f"{linter} is not installed")
    ran = subprocess.run(
        [program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
