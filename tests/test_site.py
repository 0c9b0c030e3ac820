"""The site: its navigation has every document, no link is dead, and versions stand side by side."""

from __future__ import annotations

import importlib.util
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


def test_versions_stand_side_by_side_and_the_newest_opens(tmp_path: Path) -> None:
    path = ROOT / "docs" / "versions.py"
    found = importlib.util.spec_from_file_location("versions", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    pages, site = tmp_path / "pages", tmp_path / "site"
    for text, version in (("old", "0.9.0"), ("new", "0.10.0"), ("mended", "0.9.0")):
        shutil.rmtree(pages, ignore_errors=True)
        pages.mkdir()
        (pages / "index.html").write_text(text)
        (pages / text).touch()
        module.publish(pages, site, version)
    assert (site / "0.9.0" / "index.html").read_text() == "mended"
    assert not (site / "0.9.0" / "old").exists()
    index = (site / "index.html").read_text()
    assert "url=0.10.0/index.html" in index
    assert re.findall(r'href="([^"]*)"', index) == ["0.10.0/index.html", "0.9.0/index.html"]


@pytest.mark.slow
def test_the_site_builds_without_a_dead_link(tmp_path: Path) -> None:
    program = shutil.which("zensical", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("zensical is not installed (make site)")
    config = (ROOT / "zensical.toml").read_text()
    config = config.replace('"docs"', f'"{ROOT / "docs"}"').replace("build/pages", str(tmp_path))
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
