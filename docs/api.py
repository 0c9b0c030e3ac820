"""Build the API reference from the docstrings: python docs/api.py [FOLDER], by default build/docs.

The pages need no network. What only the command line and the page consist of is left out.
"""

from __future__ import annotations

import functools
import html
import importlib
import pkgutil
import sys
import warnings
from pathlib import Path

import pdoc
import pdoc.render

import unmask

OUT = Path(__file__).parents[1] / "build" / "docs"
# These are used through commands and a browser; the kernel is used through unmask.sweep.
LEFT_OUT = ("unmask.cli", "unmask.web", "unmask.__main__", "unmask.sweep._kernel")


@functools.cache
def modules() -> tuple[str, ...]:
    """Return the names of the modules that the reference shows, packages before what they hold."""
    found = pkgutil.walk_packages(unmask.__path__, "unmask.")
    names = [m.name for m in found if not m.name.startswith(LEFT_OUT)]
    return ("unmask", *(name for name in names if name not in uninstalled()))


@functools.cache
def uninstalled() -> tuple[str, ...]:
    """Return the names of the modules whose extra isn't installed, and write a line for each."""
    found = []
    for module in pkgutil.walk_packages(unmask.__path__, "unmask."):
        if module.name.startswith(LEFT_OUT):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if (error.name or "unmask").startswith("unmask"):
                raise
            sys.stderr.write(f"left out, since {error.name} isn't installed: {module.name}\n")
            found.append(module.name)
    return tuple(found)


def build(out: Path) -> None:
    """Write the reference of every module into the folder."""
    for module in map(sys.modules.__getitem__, modules()):
        for name in getattr(module, "__all__", ()):
            # Pdoc looks at what a module has got, and some names come when they are asked for.
            setattr(module, name, getattr(module, name))
    # Pdoc goes into packages by itself, but for those with __all__: so some come twice.
    warnings.filterwarnings("ignore", message=".*has already been added")
    warnings.filterwarnings("ignore", message="Couldn't import")
    pdoc.render.configure(
        docformat="google",
        show_source=False,
        footer_text=f"Unmask {unmask.__version__}",
    )
    # Pdoc would go into these too.
    without = (f"!{name}" for name in uninstalled())
    pdoc.pdoc(*modules(), *without, output_directory=out)
    (out / "index.html").write_text(index())


def index() -> str:
    """Return the page that names every module; pdoc's own would lead to the first alone."""
    rows = []
    for name in modules():
        first = (sys.modules[name].__doc__ or "").strip().partition("\n\n")[0]
        link = f'<a href="{name.replace(".", "/")}.html">{name}</a>'
        rows.append(f"<tr><td>{link}</td><td>{html.escape(first)}</td></tr>")
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Unmask: API reference</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: auto; padding: 1rem }}
td {{ padding: 0.2rem 1rem 0.2rem 0; vertical-align: top }}
a {{ color: #0063a8; text-decoration: none }}
</style>
<h1>Unmask: API reference</h1>
<p>What most programs need is in <a href="unmask.html">unmask</a> itself.</p>
<table>{"".join(rows)}</table>
</html>
"""


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
