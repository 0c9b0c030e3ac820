"""The site: every document is in its navigation, and it builds without a dead link."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIG = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]


def pages(entries: list[dict[str, object]]) -> list[str]:
    found: list[str] = []
    for entry in entries:
        for value in entry.values():
            found += pages(value) if isinstance(value, list) else [str(value)]
    return found


def test_every_document_is_in_the_navigation_once() -> None:
    assert sorted(pages(CONFIG["nav"])) == sorted(p.name for p in (ROOT / "docs").glob("*.md"))


@pytest.mark.slow
def test_the_site_builds_without_a_dead_link(tmp_path: Path) -> None:
    program = shutil.which("zensical", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("zensical is not installed (make site)")
    config = (ROOT / "zensical.toml").read_text()
    config = config.replace('"docs"', f'"{ROOT / "docs"}"').replace("build/site", str(tmp_path))
    (tmp_path / "zensical.toml").write_text(config)
    ran = subprocess.run(
        [program, "build", "-f", str(tmp_path / "zensical.toml")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    told = re.sub(r"\x1b\[[\d;]*m", "", ran.stdout + ran.stderr)
    assert ran.returncode == 0, told
    assert "page does not exist" not in told
    assert (tmp_path / "index.html").is_file()
