from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from unmask.coursework.sections import (
    AGREES,
    CORRECTED,
    DIFFERS,
    NOT_RUN,
    Cell,
    Picture,
    Reproduction,
    Section,
    Table,
)
from unmask.report.reproduction import clock, reproduction_page, write_reproduction

VOID = {"meta", "br", "img"}
MADE = (
    Section(
        "Exercise 1 A",
        "The first",
        "What it told.",
        tables=(
            Table(
                "Ranges",
                ("f", "g"),
                (
                    ("ReLU", (Cell("[0, 1]", "[0, 1]", AGREES, "The same."), None)),
                    ("tanh", (None, Cell("(0, 1)", "(-1, 1)", CORRECTED, "Both <signs>."))),
                ),
            ),
        ),
        pictures=(Picture("A curve", "Curve", "<svg>wide</svg>", "<svg>narrow</svg>"),),
        seconds=75.2,
    ),
    Section(
        "Exercise 2",
        "The second",
        "What it told.",
        tables=(
            Table(
                "What it reaches",
                ("accuracy", "loss"),
                (
                    (
                        "faces",
                        (
                            Cell("97 %", "90 %", DIFFERS, "Lower."),
                            Cell("0.01", "", NOT_RUN, "the images are not here"),
                        ),
                    ),
                ),
            ),
        ),
        pictures=(Picture("A grid", "Grid", png="QUJD"),),
        notes=("Something more.",),
        reason="the images are not here; fetch them",
    ),
)
FOUND = Reproduction("quick", "few seeds", MADE, 75.2, {"unmask": "0.1.0", "command": "unmask x"})


class Reader(HTMLParser):
    """Collects words, links and ids, and checks that every tag is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.links: set[str] = set()
        self.ids: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links |= {given["href"] or ""} if "href" in given else set()
        self.ids += [given["id"] or ""] if "id" in given else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_figures_are_counted_by_verdict() -> None:
    assert {v: n for v, n in FOUND.counts.items() if n} == {
        AGREES: 1,
        CORRECTED: 1,
        DIFFERS: 1,
        NOT_RUN: 1,
    }


def test_the_page_opens_with_the_counts_and_what_is_not_plain() -> None:
    text = Reader(reproduction_page(FOUND)).text
    start = text.index("The course report, run again")
    assert "4 figures in 2 sections, in 1 min 15 s" in text
    for words in ("1 ✓ agrees", "1 ✗ differs", "1 ✎ corrected", "1 – not run"):
        assert start < text.index(words) < text.index("What differs or is corrected")
    assert "faces: accuracy report 97 % , ours 90 %" in text
    assert "Both <signs>." in text
    assert text.count("the images are not here; fetch them") == 1
    assert "The images are not here; fetch them." in text
    assert "Took 1 min 15 s." in text


def test_the_page_needs_nothing_but_itself() -> None:
    page = reproduction_page(FOUND)
    reader = Reader(page)
    assert len(reader.ids) == len(set(reader.ids))
    assert {link.removeprefix("#") for link in reader.links} <= set(reader.ids)
    assert "<script" not in page
    assert set(re.findall(r'src="([^"]{5})', page)) == {"data:"}
    assert page.count("<svg") == 2


def test_a_page_on_which_all_agrees_says_nothing_of_differences() -> None:
    alone = Reproduction("quick", "few seeds", (), 0.0, FOUND.stamp)
    text = Reader(reproduction_page(alone)).text
    assert "What differs" not in text
    assert "What was not run" not in text


def test_files_hold_the_figures(tmp_path: Path) -> None:
    page, numbers = write_reproduction(FOUND, tmp_path)
    assert page.name == "report.html"
    told = json.loads(numbers.read_text())
    assert told["counts"][AGREES] == 1
    first = told["sections"][0]["tables"][0]["rows"][0]
    assert first == ["ReLU", [vars(MADE[0].tables[0].rows[0][1][0]), None]]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.44, "0.4 s"),
        (12.4, "12 s"),
        (59.6, "1 min 0 s"),
        (185, "3 min 5 s"),
        (7805, "2 h 10 min"),
    ],
)
def test_durations_as_people_say_them(seconds: float, words: str) -> None:
    assert clock(seconds) == words
