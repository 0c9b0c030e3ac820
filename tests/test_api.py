"""The API reference: every public name says what it is, and the pages can be built."""

from __future__ import annotations

import ast
import runpy
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest

import unmask

ROOT = Path(__file__).parents[1]


def undocumented(node: ast.AST, where: str) -> list[str]:
    """Return the public functions and classes below a node that have no docstring."""
    missing = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            overloads = [d for d in child.decorator_list if ast.unparse(d) == "overload"]
            if child.name.startswith("_") or overloads:
                continue
            if ast.get_docstring(child) is None:
                missing.append(f"{where}:{child.name}")
            if isinstance(child, ast.ClassDef):
                missing += undocumented(child, where)
    return missing


def test_every_public_function_and_class_of_a_module_has_a_docstring() -> None:
    missing = []
    for file in sorted((ROOT / "src").rglob("*.py")):
        tree = ast.parse(file.read_text())
        where = str(file.relative_to(ROOT / "src"))
        if ast.get_docstring(tree) is None and tree.body:
            missing.append(where)
        # Methods that override documented ones need no text of their own.
        missing += [m for m in undocumented(tree, where) if not where.endswith("fool/norms.py")]
    assert not missing


@pytest.mark.parametrize("name", unmask.__all__)
def test_a_public_name_has_a_docstring_of_its_own(name: str) -> None:
    text = getattr(unmask, name).__doc__
    # A dataclass without one gets its signature for it.
    assert text
    assert not text.startswith(f"{name}(")


@pytest.mark.slow
def test_the_reference_is_built_and_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # In this process, which has imported most of it.
    # An extra that isn't installed costs its own pages alone.
    for name in [n for n in sys.modules if n.startswith("unmask.execution.ray")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "grpc", None)
    with warnings.catch_warnings():
        runpy.run_path(str(ROOT / "docs" / "api.py"))["build"](tmp_path)
    assert "grpc isn't installed: unmask.execution.ray_" in capsys.readouterr().err
    assert (tmp_path / "unmask" / "execution" / "shards.html").exists()
    assert not list(tmp_path.glob("unmask/execution/ray_*.html"))
    page = (tmp_path / "unmask.html").read_text()
    modules = {name for name in unmask.__all__ if isinstance(getattr(unmask, name), ModuleType)}
    assert all(f'id="{name}"' in page for name in set(unmask.__all__) - modules)
    assert all(f'href="unmask/{name}.html"' in page for name in modules)
    assert (tmp_path / "unmask" / "flow" / "theory" / "phases.html").exists()
    assert not (tmp_path / "unmask" / "cli.html").exists()
    assert 'src="http' not in page
    assert 'rel="stylesheet" href="http' not in page
