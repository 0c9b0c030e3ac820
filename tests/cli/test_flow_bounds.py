"""The verb flow bounds: its tables, its JSON and its page."""

import json
import re
from html.parser import HTMLParser

import pytest

from unmask.cli.main import main
from unmask.models.activations import ACTIVATIONS


def test_tables_name_every_activation(capsys):
    assert main(["flow", "bounds"]) == 0
    lines = capsys.readouterr().out
    for f in ACTIVATIONS.values():
        assert re.search(rf"^ {re.escape(f.title)} ", lines, re.MULTILINE)
    assert "…" not in lines


def test_json_holds_the_figures(capsys):
    command = "flow bounds sigmoid relu --depth 2 --width 4 --features 5 --weight 1 --json"
    assert main(command.split()) == 0
    found = json.loads(capsys.readouterr().out)
    sigmoid, relu = found["activations"]
    assert (sigmoid["name"], relu["name"]) == ("sigmoid", "relu")
    assert sigmoid["f_prime_high"] == {
        "value": 0.25,
        "expression": "1/4",
        "at": "x == 0",
        "attained": True,
    }
    assert sigmoid["lipschitz"] == 0.25
    assert sigmoid["last_layer"]["half_squared"]["high"] == pytest.approx(8 / 27)
    assert sigmoid["document"]["gradient_range"]["low"] == 0
    assert relu["one_layer"] == {
        "low": None,
        "high": None,
        "low_attained": False,
        "high_attained": False,
    }
    layers = found["layers"]["sigmoid"]["cross_entropy"]
    # |dE/dw| of layer 1: inputs of at most 1, slopes of 1/4 twice, 4 paths, 10 errors below 1.
    assert layers[0]["high"] == pytest.approx(0.25 * 4 * 0.25 * 10, rel=0.05)
    assert len(layers) == 3


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.math, self.links = [], 0, []

    def handle_starttag(self, tag, attrs):
        self.math += tag == "math"
        self.links += [v for k, v in attrs if k in ("src", "href") and not v.startswith("#")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_typeset_and_needs_nothing_else(tmp_path, capsys):
    assert main(["flow", "bounds", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert str(tmp_path / "report.html") in capsys.readouterr().out.replace("\n", "")
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert not reader.links
    assert "<script" not in page
    assert "url(" not in page
    assert reader.math > 10 * len(ACTIVATIONS)
    for f in ACTIVATIONS.values():
        assert f"<th>{f.title}</th>" in page


def test_the_page_of_activations_the_document_does_not_know(tmp_path):
    assert main(["flow", "bounds", "gelu", "--depth", "0", "--out", str(tmp_path)]) == 0
    assert "does not mention these activations" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("tahn", "did you mean 'tanh'"),
        ("tanh --depth -1", "--depth takes a whole number from 0 to 100"),
        ("tanh --inputs 1 0", "lowest first"),
        ("tanh --inputs nan 0", "--inputs takes a number"),
        ("tanh --weight inf", "--weight takes a number"),
        ("tanh --width many", "--width"),
        ("tanh --out /proc/no", "can't write"),
    ],
)
def test_mistakes_cost_one_line_and_status_2(arguments, message, capsys):
    assert main(["flow", "bounds", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
