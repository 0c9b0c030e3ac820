"""The page and the files of a flow check hold what was found and need nothing else."""

from __future__ import annotations

import csv
import json
import math
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from unmask.flow.check import check_flow
from unmask.flow.profile import NoPrediction, Prediction, predicted_flow
from unmask.flow.repair import Repair, Trial
from unmask.report.annotations import annotated
from unmask.report.check import check_as_dict, write_check
from unmask.report.figures.check import profile_figure
from unmask.report.files import to_json
from unmask.verdict import Verdict

FED = "32 made-up <b>rows</b> a step"


def checked(model: nn.Module, features: int = 30):
    x, y = torch.randn(32, features), torch.randint(5, (32,))

    def adam(parameters):
        return torch.optim.Adam(parameters, lr=1e-3)

    check = check_flow(model, functional.cross_entropy, (x, y), optimizer=adam, steps=3)
    return check, predicted_flow(model, functional.cross_entropy, (x, y), check.history[0])


def mlp(phi: type[nn.Module] = nn.Tanh, depth: int = 4) -> nn.Sequential:
    sizes = [30, *[64] * depth]
    hidden = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), phi())]
    return nn.Sequential(*hidden, nn.Linear(64, 5))


def cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (1, 5, 6)), nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5)
    )


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Reader(HTMLParser):
    """Collects what a page loads, and checks that its tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.loads += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.loads += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def page_of(check, prediction, repair, folder: Path) -> str:
    page = write_check(check, prediction, repair, FED, folder)[0].read_text()
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert all(link.startswith("#") for link in reader.loads)
    assert "<script" not in page
    assert "prefers-color-scheme: dark" in page
    assert "&lt;b&gt;rows" in page
    return page


def test_the_page_of_a_multilayer_perceptron_tells_theory_and_measurement(tmp_path):
    check, prediction = checked(mlp(nn.Sigmoid, 12))
    page = page_of(check, prediction, None, tmp_path)
    assert f"{prediction.within(2)} of the 13 gradients lie within" in page
    for verdict in check.verdicts:
        assert verdict.fix in page
    assert "won’t train well" in page
    assert "Repair" not in page
    written = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*")}
    figures = {"figures/profile.svg", "figures/profile.png"}
    assert written == {"report.html", "data/check.json", "data/layers.csv"} | figures


def test_the_page_of_another_network_says_that_theory_is_silent(tmp_path):
    check, prediction = checked(cnn())
    assert isinstance(prediction, NoPrediction)
    page = page_of(check, prediction, None, tmp_path)
    assert "it has layers of the kind Conv2d" in page
    assert "gradients lie within" not in page


@pytest.mark.usefixtures("undrawn")
def test_the_page_of_a_repair_has_every_trial_and_the_code(tmp_path):
    check, prediction = checked(mlp())
    before = Trial("as it was", "", "", (2.5, math.inf), (0.1, 0.2))
    best = Trial("learning rate", "3e-3", 'group["lr"] = 3e-3', (0.25, 0.5), (0.9, 0.95))
    repair = Repair(before, (best, before), best, 60)
    page = page_of(check, prediction, repair, tmp_path)
    assert "a loss of 0.375 instead of ∞ after 60 steps" in page
    assert "group[&#34;lr&#34;] = 3e-3" in page
    assert "90.0 %, 95.0 %" in page
    numbers = json.loads((tmp_path / "data/check.json").read_text())
    assert numbers["repair"]["before"]["losses"] == [2.5, None]
    none = Repair(before, (before,), None, 60)
    assert "None of the changes below worked" in page_of(check, prediction, none, tmp_path)


def test_the_figure_draws_the_measured_profile_over_the_expected_one():
    check, prediction = checked(mlp())
    assert isinstance(prediction, Prediction)
    backward, ratio, forward = profile_figure(check, prediction).axes
    theory, measured = (np.asarray(line.get_ydata()) for line in backward.lines)
    np.testing.assert_array_equal(theory, prediction.expected.gradient_rms)
    np.testing.assert_array_equal(measured, prediction.gradient_rms)
    np.testing.assert_allclose(ratio.lines[1].get_ydata(), measured / theory)
    np.testing.assert_array_equal(forward.lines[1].get_ydata(), prediction.activation_rms[:-1])
    low, high = prediction.expected.gradient_band(2)
    band = backward.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(low.min())
    assert band.max() == pytest.approx(high.max())


def test_the_figure_without_theory_draws_the_first_and_the_last_step():
    check, prediction = checked(cnn())
    backward, forward = profile_figure(check, prediction).axes
    for line, stats in zip(backward.lines, (check.history[0], check.history[-1]), strict=True):
        expected = [x.weight_gradient.rms for x in stats.matrix_layers]
        np.testing.assert_array_equal(line.get_ydata(), expected)
    assert len(forward.lines) == 2


@pytest.mark.usefixtures("undrawn")
def test_numbers_agree_with_what_was_found(tmp_path):
    check, prediction = checked(mlp())
    write_check(check, prediction, None, FED, tmp_path)
    rows = list(csv.DictReader((tmp_path / "data/layers.csv").open()))
    assert len(rows) == 3 * 5
    for row, x in zip(rows, check.history[0].matrix_layers, strict=False):
        assert float(row["weight_gradient_rms"]) == x.weight_gradient.rms
        assert row["name"] == x.name
    assert float(rows[0]["expected_gradient_rms"]) == prediction.expected.gradient_rms[0]
    assert rows[5]["expected_gradient_rms"] == ""
    found = json.loads(to_json(check_as_dict(check, prediction, None)))
    assert found["prediction"]["expected"]["activation_spread"][-1] is None
    assert found["verdicts"] == [v.__dict__ for v in check.verdicts]


def test_annotations_escape_what_github_would_take_for_its_own():
    verdict = Verdict("dead units", "note", "50 % of\nall", "do: a, b", subject="a,b")
    (line,) = annotated([verdict], "no_such:model")
    assert line == (
        "::notice title=no_such%3Amodel%3A dead units in a%2Cb::50 %25 of%0Aall. fix: do: a, b"
    )
