"""Names and texts that somebody else wrote reach no sink but as plain text."""

from __future__ import annotations

import ast
import csv
import io
import json
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rich.progress import Progress, TextColumn
from rich.table import Table

import unmask
from unmask.cli.console import Console
from unmask.cli.main import main
from unmask.cli.streams import say
from unmask.mask.runtime.detections import Detections
from unmask.mask.runtime.writers import Record, write_records
from unmask.models.classifier import Classifier
from unmask.report.annotations import annotated
from unmask.report.figures.style import legible, styled_figure, to_png, to_svg
from unmask.report.files import to_csv, to_json
from unmask.report.verdicts import junit, sarif
from unmask.text import as_cell
from unmask.verdict import Verdict

SOURCES = Path(unmask.__file__).parent
NAMES = (
    "m[/b]", "[bold]", "[/]", "[link=file:///etc]x", ":smile:", "$x^$", "$\\frac{1}{$", "a_{b}^c$",
    "\x1b[31mred", "\x1b]0;title\x07", "\x9b31m", "\r\nover", "\u202egnp.exe", "\u2066x", "\x00",
    "<img src=x onerror=alert(1)>", "</script><script>1</script>", "&amp;", "]]>", "' or 1", '"x"',
    "=1+1", "+1", "-2+3", "@SUM(A1)", " =1", "\t=1", "%n%s", "{0}", "{{7*7}}", "::error::x",
    "\udcff", "\ufffe", "é漢字", "x" * 5000,
)  # fmt: skip
ANY_NAME = st.sampled_from(NAMES) | st.text()


def drives(text: str) -> bool:
    """Return whether a terminal does anything for the text but show it."""
    turns = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return any(
        (unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in "\n\t")
        or unicodedata.bidirectional(c) in turns
        for c in text
    )


@given(ANY_NAME)
def test_a_console_shows_names_as_they_are_and_obeys_none(name: str) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system=None, width=200)
    console.print(name)
    console.print(f"a {name} b", soft_wrap=True, style="red")
    table = Table(name, title=name)
    table.add_row(name)
    console.print(table)
    assert not drives(file.getvalue().replace("\x1b[3m", "").replace("\x1b[0m", ""))
    file.getvalue().encode()


@pytest.mark.parametrize("name", ["m[/b]", "[bold]", "[/]", ":smile:", "$x^$", "=1"])
def test_markup_is_shown_not_meant(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=200)
    console.print(name)
    table = Table("x")
    table.add_row(name)
    console.print(table)
    say(name)
    assert capsys.readouterr().out.count(name) == 3


@given(ANY_NAME)
def test_status_and_progress_take_any_name(name: str) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system=None)
    with console.status(f"fooling {name}"):
        pass
    columns = TextColumn("{task.description}", markup=False)
    with Progress(columns, console=console, auto_refresh=False) as bar:
        bar.add_task(name[:100])


def test_every_verb_writes_to_the_one_console() -> None:
    for file in (SOURCES / "cli").glob("*.py"):
        tree = ast.parse(file.read_text())
        if file.name != "console.py":
            imported = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
            assert "rich.console" not in imported, file.name
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            if getattr(call.func, "id", "") == "TextColumn" and "description" in ast.dump(call):
                assert [k.arg for k in call.keywords] == ["markup"], file.name


@given(ANY_NAME)
def test_tables_hold_no_formula(name: str) -> None:
    rows = list(csv.reader(io.StringIO(to_csv([[name, 1.5, None]]))))
    assert len(rows) == 1
    assert not rows[0][0].lstrip().startswith(("=", "+", "-", "@"))
    assert not drives(rows[0][0])
    assert rows[0][0] == as_cell(name)


def test_detections_hold_no_formula(tmp_path: Path) -> None:
    found = Detections(
        np.zeros((1, 4), np.float32), np.zeros(1, np.int64), np.ones(1, np.float32),
        np.ones((1, 2), np.float32), ("=1+1", "@x"), 8, 8,
    )  # fmt: skip
    with write_records(tmp_path, "csv", found.class_names) as add:
        add(Record("=cmd|'/c calc'!A0.png", found))
    text = next(tmp_path.glob("*.csv")).read_text()
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert [c for c in cells if c.startswith(("=", "@"))] == []
    assert "'=1+1" in cells


@given(ANY_NAME)
def test_json_is_ascii_controls_aside_and_reads_back(name: str) -> None:
    text = to_json({"name": name})
    assert not any(0x7F <= ord(c) < 0xA0 or ord(c) < 32 for c in text)
    if name.isprintable():
        assert json.loads(text) == {"name": name}


@given(ANY_NAME)
def test_verdicts_about_any_name_are_well_formed_everywhere(name: str) -> None:
    v = Verdict(kind="k", severity="error", subject=name, message=name, cause=name, fix=name)
    for line in annotated([v], "m:x"):
        assert "\n" not in line
        assert not drives(line)
        assert line.count("::") - line.partition("::")[2].partition("::")[2].count("::") == 2
    log = sarif([v], name)
    assert not drives(log)
    assert json.loads(log)["version"] == "2.1.0"
    assert ElementTree.fromstring(junit({"q": [v]}, name=name).encode()).tag == "testsuites"


@styled_figure
def drawn(name: str) -> Figure:
    figure = Figure(figsize=(2, 2))
    ax = figure.subplots()
    ax.set_title(legible(name))
    ax.plot([0, 1], label=legible(name))
    ax.set_xticks([0], [legible(name)])
    ax.legend()
    return figure


def test_figures_draw_names_and_no_formulas() -> None:
    for name in NAMES:
        svg = to_svg(drawn(name), "x")
        assert "<img" not in svg
        assert "<script" not in svg
        assert not drives(svg)
    assert to_png(drawn("$x^$ \x1b[31m <b>"))[:4] == b"\x89PNG"


def test_a_model_by_any_name_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m[").mkdir()
    file = Path("m[") / "b]$x^$ =1.safetensors"
    Classifier.load("mnist").save(file)
    assert main(["show", str(file), "--figure", "x.svg"]) == 0
    assert "block_cnn" in capsys.readouterr().out
    assert main(["show", "m[/b]\x1b[31m.safetensors"]) == 2
    err = capsys.readouterr().err
    assert "m[/b]\\x1b[31m.safetensors" in err
    assert main(["show", "m\udcff.safetensors"]) == 2
    assert "must be UTF-8" in capsys.readouterr().err
