"""What the documents show works: every command is understood, every program runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from unmask.cli.verbs import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    texts = (d.read_text() for d in DOCUMENTS)
    return [b for t in texts for b in re.findall(rf"```{language}\n(.*?)```", t, re.DOTALL)]


COMMANDS = sorted(
    {line.partition("#")[0].strip() for b in blocks("sh") for line in b.splitlines()} - {""}
)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("unmask ")])
def test_every_command_is_understood(command: str) -> None:
    # Parsing resolves the verb and every flag and value without running them.
    verb, bound, _ = app().parse_args(shlex.split(command)[1:], exit_on_error=False)
    assert callable(verb)
    assert bound is not None


def test_the_documents_name_no_other_program_that_is_not_there() -> None:
    known = {"unmask", "make", "pip", "python", "torchrun", "export", "git", "cd", "docker"}
    assert {c.split()[0] for c in COMMANDS} <= known
    # What flow watch runs is the user's own script.
    ours = [c for c in COMMANDS if not c.startswith("unmask flow watch")]
    scripts = [w for c in ours for w in c.split() if w.endswith(".py")]
    assert all((ROOT / script).exists() for script in scripts)


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {c.split()[1] for c in COMMANDS if c.startswith("make ")} <= targets


@pytest.mark.parametrize("program", blocks("python"))
def test_every_program_in_the_documents_runs(program: str) -> None:
    exec(compile(program, "document", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_every_example_runs(example: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(example)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


def anchors(document: Path) -> set[str]:
    """The headings of a document as links name them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^):]+)\)", document.read_text()):
            name, _, heading = target.partition("#")
            path = document.parent / name if name else document
            assert path.exists(), f"{document.name} links to {target}"
            assert not heading or heading in anchors(path), f"{document.name} links to {target}"
