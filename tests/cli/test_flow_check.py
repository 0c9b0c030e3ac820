"""The verb flow check: exit status, JSON, annotations, report and repair."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from unmask.cli.main import main

MODULE = """
import torch
from torch import nn

def deep(phi, depth):
    layers = [nn.Flatten()]
    for i in range(depth):
        layers += [nn.Linear(784 if i == 0 else 32, 32), phi()]
    return nn.Sequential(*layers, nn.Linear(32, 10))

def healthy():
    return deep(nn.ReLU, 2)

def broken():
    return deep(nn.Sigmoid, 10)

def columns():
    return nn.Linear(3, 1)

def half_dead():
    model = deep(nn.ReLU, 2)
    with torch.no_grad():
        model[1].bias[:16] = -100
    return model

class Loader:
    def __iter__(self):
        for _ in range(3):
            x = torch.randn(8, 3)
            yield x, x.sum(1, keepdim=True)

def loader():
    return Loader()

not_a_loader = 3
"""


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "cli_check_models.py").write_text(MODULE)

    def run(model: str, *options: str) -> tuple[int, str, str]:
        status = main(["flow", "check", f"cli_check_models:{model}", *options])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_a_healthy_model_passes(check):
    status, out, _ = check("healthy")
    assert status == 0
    assert "nothing stands in the gradient's way" in out


def test_a_broken_model_fails_with_cause_and_fix(check):
    status, out, _ = check("broken", "--optimizer", "none")
    assert status == 1
    assert "✗ error: vanishing in layer 1" in out
    assert "cause: derivative factor 0.2" in out
    assert "fix: use tanh instead of sigmoid with sigma_w2 = 1.76, sigma_b2 = 0.05" in out


@pytest.mark.parametrize(("severity", "status"), [("error", 0), ("warning", 1), ("note", 1)])
def test_the_severity_that_fails_can_be_chosen(check, severity, status):
    assert check("half_dead", "--fail-on", severity)[0] == status


def test_json_holds_everything(check):
    status, out, _ = check("broken", "--json", "--steps", "2")
    found = json.loads(out)
    assert status == 1
    assert {v["kind"] for v in found["verdicts"]} >= {"vanishing"}
    assert len(found["history"]) == 2
    assert found["history"][0]["layers"][0]["weight_gradient"]["rms"] > 0
    assert found["repair"] is None
    assert found["stamp"]["seed"] == 0


def test_annotations_for_github(check):
    status, out, _ = check("broken", "--github", "--optimizer", "none")
    assert status == 1
    lines = out.splitlines()
    assert all(
        re.fullmatch(r"::(error|warning|notice) title=Unmask [a-z ]+::.+", line) for line in lines
    )
    assert "1 %25" in lines[0]
    assert check("healthy", "--github")[1] == ""


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.links += [v or "" for k, v in attrs if k in ("src", "href")]


def test_report_with_repair_is_one_file(check, tmp_path):
    status, out, _ = check("broken", "--repair", "--out", "checked", "--steps", "3")
    assert status == 1
    assert "tanh instead of sigmoid" in out
    code = out.split("to paste after the model is made:")[1].split("Report:")[0]
    compile(code, "pasted", "exec")
    page = (tmp_path / "checked" / "report.html").read_text()
    reader = Reader()
    reader.feed(page)
    assert not [link for link in reader.links if not link.startswith(("data:", "#"))]
    assert "what mean-field theory expects" in page
    assert "torch.nn.init.normal_" in page


def test_a_loader_and_a_loss_of_ones_own(check):
    options = ("--data", "cli_check_models:loader", "--loss", "mse_loss")
    assert check("columns", *options, "--learning-rate", "0.01")[0] == 0


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("nothing", (), "unknown name in cli_check_models"),
        ("healthy", ("--data", "cli_check_models:not_a_loader"), "is no loader: got int"),
        ("healthy", ("--data", "no/such/folder"), "no such pictures"),
        ("healthy", ("--loss", "cross_entrop"), "did you mean 'cross_entropy'"),
        ("healthy", ("--optimizer", "adm"), "did you mean 'adam'"),
        ("healthy", ("--learning-rate", "nan"), "learning rate must be positive"),
        ("healthy", ("--batch-size", "1"), "batch size must be 2 or more"),
        ("healthy", ("--steps", "0"), "steps of a check"),
        ("columns", (), "doesn't fit the batch"),
        ("broken", ("--repair", "--optimizer", "none"), "a repair needs an optimiser"),
    ],
)
def test_mistakes_get_one_line_and_status_2(check, model, options, words):
    status, out, err = check(model, *options)
    assert status == 2
    assert out == ""
    assert words in err
    assert len(err.strip().splitlines()) == 1
