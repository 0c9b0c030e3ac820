"""The page of an audit made up by hand, whose every figure is known."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unmask.data.images import Images
from unmask.fool.audit.diagnosis import Diagnosis, Watched
from unmask.fool.audit.plan import AuditPlan
from unmask.fool.audit.preflight import Preflight
from unmask.fool.audit.records import AttackRecord, Pairs, Worst
from unmask.fool.audit.result import Audit
from unmask.report.audit import write_audit
from unmask.report.figures.audit import curve_figure, examples_figure, pairs_figure
from unmask.verdict import Verdict

NAMES = ("<cat>", "dog & co")


@pytest.fixture
def images() -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8)).astype(np.uint8)
    return Images(pixels, np.array([0, 1, 0, 1, 0, 1]), NAMES, "made up")


@pytest.fixture
def made(images: Images) -> Audit:
    """Six images: one misjudged, one that nothing fools, four fooled by 0.01, 0.02, 0.2, 0.4."""
    size = np.array([0.0, np.inf, 0.01, 0.02, 0.2, 0.4])
    by = np.array([-1, -1, 0, 0, 1, 0])
    none = np.where(by < 0, np.nan, 0.5)
    labels = images.labels
    clean = labels.copy()
    clean[0] = 1
    worst = Worst(
        rows=np.arange(6),
        labels=labels,
        clean=clean,
        size=size,
        predicted=np.where(by < 0, -1, 1 - labels),
        confidence=none,
        l2=none,
        linf=np.where(by < 0, np.nan, size),
        similarity=none,
        saved=by == 0,
        by=by,
    )
    pairs = Pairs(
        rows=np.array([2, 3]),
        labels=np.array([0, 1]),
        targets=np.array([1, 0]),
        reached=np.array([True, False]),
        reached_saved=np.array([True, False]),
        l2=np.array([0.7, 9.0]),
        linf=np.array([0.01, 0.9]),
        similarity=np.array([0.9, 0.1]),
    )
    return Audit(
        model="<b>mine</b>",
        data=images.name,
        class_names=NAMES,
        plan=AuditPlan(eps=(0.1, 0.3)),
        worst=worst,
        pairs=pairs,
        records=(
            AttackRecord("fmn", None, True, 5, 3, 3, 500, 500),
            AttackRecord("square", 0.3, False, 2, 1, 1, 2000, 0),
        ),
        unstable=0,
        examples=255 - images.pixels[[2, 3]],
        example_rows=np.array([2, 3]),
        preflight=Preflight(6, 5 / 6, 0.1, 0.0, 1e-7, 0.0, 0.0, 0.0, ()),
        diagnosis=Diagnosis(5, 1.0, (Watched("fmn", None, 5, 3, 0, 0.0),), ()),
        stamp={"unmask": "0.1.0", "command": "unmask fool audit mine made-up", "seed": 0},
    )


def test_figures_are_counted_over_their_denominators(made: Audit) -> None:
    assert (made.clean.count, made.clean.of) == (5, 6)
    assert (made.robust(0.1).count, made.robust(0.1).of) == (3, 6)
    assert (made.robust(0.3).count, made.robust(0.3).of) == (2, 6)
    assert (made.fooled(0.3).count, made.fooled(0.3).of) == (3, 5)
    assert (made.saved.count, made.saved.of) == (3, 4)
    assert made.smallest["median"] == 0.2
    assert made.smallest["p95"] is None
    assert made.smallest["mean"] == pytest.approx((0.01 + 0.02 + 0.2 + 0.4) / 4)
    assert made.figures()["p95_linf"] == np.inf
    assert made.figures()["robust_accuracy"] == 2 / 6
    # A black box that fools one of five where gradients had failed is worth a warning.
    assert made.black_box_gain == 1
    assert [f.kind for f in made.verdicts] == ["black_box_beats_gradients"]
    np.testing.assert_array_equal(made.matrix("success"), [[np.nan, 1], [0, np.nan]])
    np.testing.assert_array_equal(made.matrix("l2"), [[np.nan, 0.7], [np.nan, np.nan]])


def test_the_page_needs_nothing_else_and_escapes_names(
    made: Audit, images: Images, tmp_path: Path
) -> None:
    finding = Verdict("random_output", "warning", "two looks differ", "switch it off")
    other = replace(
        made, model="other", preflight=replace(made.preflight, verdicts=(finding,)), pairs=None
    )
    page = write_audit([made, other], images, tmp_path).read_text()
    assert "&lt;b&gt;mine&lt;/b&gt;" in page
    assert "<b>mine" not in page
    for text in ("83.3 %", "33.3 %", "Two looks differ", "switch it off", "none found", "all 6"):
        assert text in page
    assert not re.search(r"(src|href)=.?http", page)
    assert "<script" not in page
    names = {str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*.*")}
    assert {"figures/curve.svg", "figures/pairs-1.png", "figures/examples-2.svg"} <= names
    assert "figures/pairs-2.png" not in names
    told = json.loads((tmp_path / "data/audit.json").read_text())
    assert told["audits"][0]["pairs"]["l2"] == [[None, 0.7], [None, None]]
    with (tmp_path / "data/pictures-1.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["attack"] for r in rows] == ["", "", "fmn", "fmn", "square", "fmn"]
    assert rows[0]["smallest_change"] == "0"
    assert rows[1]["smallest_change"] == ""
    loaded = Audit.load(tmp_path / "data/audit-1.npz")
    assert loaded.as_dict() == json.loads(json.dumps(made.as_dict()))


def test_the_curve_passes_through_the_figures(made: Audit) -> None:
    lines = curve_figure([made]).axes[0].get_lines()
    sizes, parts = lines[0].get_data()
    assert parts[0] == 5 / 6
    assert np.interp(0.15, sizes, parts) == pytest.approx(3 / 6)
    assert np.interp(0.3, sizes, parts) == pytest.approx(2 / 6)
    assert parts[-1] == pytest.approx(1 / 6)


def test_pictures_and_pairs_are_drawn_as_they_are(made: Audit, images: Images) -> None:
    axes = examples_figure(made, images).axes
    # Top, middle and bottom row, two columns each.
    assert [ax.get_title() for ax in axes] == [
        *NAMES,
        "0.010",
        "0.020",
        "dog & co, 50%",
        "<cat>, 50%",
    ]
    np.testing.assert_array_equal(
        axes[0].get_images()[0].get_array(), images.pixels[2].transpose(1, 2, 0)
    )
    texts = [t.get_text() for t in pairs_figure(made).axes[1].texts]
    assert texts == [".70"]
