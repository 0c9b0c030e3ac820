"""Put a built site beside those of other versions: python docs/versions.py PAGES SITE.

SITE/VERSION gets the pages; SITE/index.html leads to the newest version and names all others.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import unmask


def publish(pages: Path, site: Path, version: str) -> None:
    """Copy the pages of a version, in place of what this version had, and write the index.

    Args:
        pages: the folder of a built site.
        site: the folder of all versions.
        version: such as 0.2.0.
    """
    shutil.rmtree(site / version, ignore_errors=True)
    shutil.copytree(pages, site / version)
    (site / "index.html").write_text(index(versions(site)))


def versions(site: Path) -> list[str]:
    """Return the versions that a folder holds, newest first."""
    found = [p.name for p in site.iterdir() if p.is_dir() and re.fullmatch(r"\d+(\.\d+)*", p.name)]
    return sorted(found, key=lambda v: tuple(map(int, v.split("."))), reverse=True)


def index(known: list[str]) -> str:
    """Return the page that leads to the first version and names all."""
    links = "".join(f'<li><a href="{v}/index.html">{v}</a></li>' for v in known)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Unmask: versions</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="2; url={known[0]}/index.html">
<h1>Unmask</h1>
<p>The documents of version {known[0]} open in a moment. All versions:</p>
<ul>{links}</ul>
</html>
"""


if __name__ == "__main__":
    publish(Path(sys.argv[1]), Path(sys.argv[2]), unmask.__version__)
