from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from unmask.errors import UserError
from unmask.flow.map import TrainabilityMap
from unmask.flow.map_plan import MapPlan
from unmask.report.figures.map import map_figure
from unmask.report.map import write_map


@pytest.fixture(scope="module")
def made() -> TrainabilityMap:
    plan = MapPlan(columns=4, rows=3, deepest=10)
    accuracy = np.linspace(0, 1, 12).reshape(3, 4)
    accuracy[2, 3] = np.nan
    depth = np.array([3.0, np.inf, 9.0, 4.0])
    return TrainabilityMap(plan, accuracy, depth, 1.76, 0.1, {"command": "unmask flow map"})


@pytest.mark.usefixtures("undrawn")
def test_the_numbers_come_back(made: TrainabilityMap, tmp_path: Path) -> None:
    files = write_map(made, tmp_path)
    assert all(f.exists() for f in files)
    found = json.loads((tmp_path / "data" / "map.json").read_text())
    assert found["accuracy"][2] == pytest.approx([8 / 11, 9 / 11, 10 / 11, None])
    assert found["trainable_depth"] == [3.0, None, 9.0, 4.0]
    rows = list(csv.DictReader((tmp_path / "data" / "map.csv").open()))
    assert len(rows) == 12
    assert float(rows[5]["test_accuracy"]) == pytest.approx(5 / 11)
    assert int(rows[5]["depth"]) == 6


def test_the_page_needs_nothing_but_itself(made: TrainabilityMap, tmp_path: Path) -> None:
    page = write_map(made, tmp_path)[0].read_text()
    assert "12 tanh nets" in page
    assert "unmask flow map" in page
    assert not re.search(r"(src|href)=.?http", page)


def test_the_figure_shows_every_net_and_cuts_the_endless_curve(made: TrainabilityMap) -> None:
    axes = map_figure(made).axes[0]
    cells = axes.collections[0].get_array()
    assert cells.shape == (3, 4)
    assert cells.mask.sum() == 1
    curve = axes.lines[0].get_ydata()
    assert np.isnan(curve).tolist() == [False, True, False, False]


@pytest.mark.usefixtures("undrawn")
def test_a_folder_that_can_not_be_written(made: TrainabilityMap, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't write"):
        write_map(made, tmp_path / "file")
