from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unmask.errors import UserError
from unmask.fool.grid import Grid, fool_grid
from unmask.fool.norms import Threat
from unmask.fool.outcome import saved
from unmask.fool.victim import Victim
from unmask.report.figures.grid import change_as_picture, columns, grid_figure, magnification
from unmask.report.grid import write_grids
from unmask.text import percent


def made(channels: int, *, wrong: bool = False) -> Grid:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        subject = Victim.of(nn.Sequential(nn.Flatten(), nn.Linear(channels * 64, 3)))
    drawn = torch.rand(2, channels, 8, 8, generator=torch.Generator().manual_seed(5))
    said = subject.function(saved(drawn)).argmax(1)
    return fool_grid(
        subject,
        saved(drawn),
        (said + 1) % 3 if wrong else said,
        names=["first", "<second> & more"],
        title="Made up",
        threat=Threat.parse("l2"),
        stamp={"unmask": "0.1.0", "command": "unmask fool grid"},
    )


@pytest.fixture(scope="module", params=[1, 3])
def grid(request: pytest.FixtureRequest) -> Grid:
    return made(request.param)


def test_what_is_saved_and_read_back_fools(grid: Grid, tmp_path: Path) -> None:
    files = write_grids([grid], tmp_path)
    assert all(file.exists() for file in files)
    pictures = sorted(f for f in files if f.parent.name == "made-up")
    assert len(pictures) == len(grid.rows)
    for i, (row, target) in enumerate(zip(grid.rows, grid.targets, strict=True)):
        name = ("first", "second-more")[row]
        file = tmp_path / "pictures" / "made-up" / f"{row + 1}-{name}-as-{target}.png"
        channels = grid.changed.shape[1]
        values = np.asarray(Image.open(file)).reshape(8, 8, channels)
        read = values.transpose(2, 0, 1).astype(np.float32) / 255
        np.testing.assert_allclose(read, grid.changed[i], atol=1e-6)


@pytest.mark.usefixtures("undrawn")
def test_the_numbers_come_back(grid: Grid, tmp_path: Path) -> None:
    write_grids([grid], tmp_path)
    found = json.loads((tmp_path / "data" / "made-up.json").read_text())
    rows = list(csv.DictReader(io.StringIO((tmp_path / "data" / "made-up.csv").read_text())))
    for i, (pair, row) in enumerate(zip(found["pairs"], rows, strict=True)):
        assert pair["l2"] == grid.outcome.l2[i]
        assert pair["reached_saved"] is True
        assert float(row["linf"]) == pytest.approx(grid.outcome.linf[i])
        assert pair["target"] == row["target"] == str(grid.targets[i])


def test_the_page_needs_nothing_but_itself_and_escapes_names(grid: Grid, tmp_path: Path) -> None:
    page = write_grids([grid], tmp_path)[0].read_text()
    assert "&lt;second&gt; &amp; more" in page
    assert "4 of 4 changed images" in page
    assert not re.search(r"(src|href)=.?http", page)
    # Two originals, and each pair with its change.
    assert page.count("data:image/png;base64,") == 2 + 2 * len(grid.rows)


def test_a_misjudged_picture_is_named() -> None:
    from unmask.report.grid import grid_page

    found = made(1, wrong=True)
    page = grid_page([found])
    assert page.count("before any change") == 2
    # The page tells which attack it was.
    assert "as little as several attacks can" in page
    assert "by generator networks" in grid_page([replace(found, mode="course-report")])


def test_the_figure_has_a_column_a_class_and_two_rows_a_picture(grid: Grid) -> None:
    figure = grid_figure(grid)
    assert columns(grid) == [0, 1, 2]
    assert len(figure.axes) == 2 * 2 * 3
    images = sum(len(ax.images) for ax in figure.axes)
    assert images == 2 + 2 * len(grid.rows)


def test_a_change_of_nothing_is_neutral_and_signs_are_told_apart() -> None:
    grid = made(1)
    grid.changed[0] = grid.originals[grid.rows[0]]
    nothing = change_as_picture(grid, 0, 5)
    assert np.ptp(nothing) == 0
    grid.changed[0, 0, 0, 0] += 1
    grid.changed[0, 0, 0, 1] -= 1
    red, blue = change_as_picture(grid, 0, 1)[:, 0, :2].T
    assert red[0] > red[2]
    assert blue[2] > blue[0]


def test_the_magnification_fills_the_scale() -> None:
    grid = made(1)
    grid.outcome.linf[:] = 0.1
    assert magnification(grid) == 10
    grid.outcome.linf[:] = 0
    assert magnification(grid) == 255


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.5, "50 %"), (0.994, "99 %"), (0.9951, "> 99 %"), (1.0, "> 99 %"), (0.0, "0 %")],
)
def test_nothing_is_said_to_be_certain(probability: float, text: str) -> None:
    assert percent(probability) == text


@pytest.mark.usefixtures("undrawn")
def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't write"):
        write_grids([made(1)], tmp_path / "file")
