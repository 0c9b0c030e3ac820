"""What a report writes is whole, and safe whatever names it shows."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from unmask.errors import UserError
from unmask.report.figures.style import legible, styled_figure, to_png, to_svg
from unmask.report.files import data_uri, plain, to_csv, to_json, write_files

HOSTILE = (
    "<script>alert(1)</script>",
    "]]></style><b>&amp;",
    "\x1b[31mred\x1b[0m",
    "\x00null",
    "a\u202egnp.exe",
    "two\nlines",
    "$\\frac{broken",
    "$x$ and $y$",
    "=HYPERLINK(1)",
    "@SUM(A1)",
    "half \ud83d pair",
    "ends \ufffe",
    "Füße 面具 😷",
    "x" * 5000,
)


def read(rows: list[list[object]]) -> list[list[str]]:
    return list(csv.reader(io.StringIO(to_csv(rows))))


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_breaks_a_table_or_becomes_a_formula(name: str) -> None:
    ((first, number),) = read([[name, -1.5]])
    assert not first.lstrip().startswith(("=", "+", "-", "@"))
    assert "\n" not in first
    assert "\x1b" not in first
    first.encode()
    assert float(number) == -1.5


@pytest.mark.parametrize("name", HOSTILE)
def test_json_gives_every_name_back(name: str) -> None:
    text = to_json({"name": name})
    text.encode()
    assert json.loads(text) == {"name": name}


@pytest.mark.filterwarnings("ignore:Glyph:UserWarning")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_figure_shows_any_name(name: str) -> None:
    @styled_figure
    def draw() -> Figure:
        figure = Figure(figsize=(2, 1))
        figure.subplots().set_title(legible(name))
        return figure

    ET.fromstring(to_svg(draw(), "figure"))
    assert Image.open(io.BytesIO(to_png(draw()))).size == (400, 200)


def test_json_is_strict_and_keeps_figures_as_they_are_printed() -> None:
    values = {"a": np.nan, "b": (np.float32(0.1135), np.int64(3)), "c": np.array([1.0, np.inf])}
    assert json.loads(to_json(values)) == {"a": None, "b": [0.1135, 3], "c": [1.0, None]}
    assert plain(np.bool_(True)) is True


def test_csv_leaves_missing_figures_empty() -> None:
    assert read([["a", None, np.nan, np.float32(0.5)]]) == [["a", "", "", "0.5"]]


def test_files_are_written_in_order_with_their_folders(tmp_path: Path) -> None:
    paths = write_files(tmp_path / "new", {"b.txt": "ü", "data/a.bin": b"\x00"})
    assert [p.relative_to(tmp_path / "new").as_posix() for p in paths] == ["b.txt", "data/a.bin"]
    assert [p.read_bytes() for p in paths] == ["ü".encode(), b"\x00"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't write"):
        write_files(tmp_path / "file", {"a": b""})


def test_an_address_holds_its_content() -> None:
    assert data_uri(b"\x89PNG") == "data:image/png;base64,iVBORw=="
    assert data_uri("<svg/>") == "data:image/svg+xml;base64,PHN2Zy8+"
