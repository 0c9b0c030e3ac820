from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest

from made_up import CHANCE, diverge, history, plan, study
from unmask.coursework.study.findings import findings
from unmask.coursework.study.run import Study
from unmask.report.figures.study import study_figures
from unmask.report.figures.style import INK, PAPER, STYLES, to_svg
from unmask.report.study import study_page

VOID = {"meta", "br"}


def page_of(study: Study) -> str:
    wide, narrow = study_figures(study), study_figures(study, columns=1)
    return study_page(
        study,
        {name: to_svg(figure, name) for name, figure in wide.items()},
        {name: to_svg(figure, f"{name}-narrow") for name, figure in narrow.items()},
    )


def page_without_figures(study: Study) -> str:
    empty = dict.fromkeys(study_figures(study), "<svg></svg>")
    return study_page(study, empty, empty)


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def made() -> Study:
    return study(depths=(5, 40))


@pytest.fixture(scope="module")
def page(made: Study) -> str:
    return page_of(made)


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    reader = Reader(page)
    tags = {tag for tag, _, _ in reader.attributes}
    assert not tags & {"script", "link", "img", "iframe", "object", "base"}
    for _, name, value in reader.attributes:
        if name in ("href", "xlink:href", "src"):
            assert value.startswith("#")
    assert "@import" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


def test_every_link_leads_somewhere_and_no_name_is_used_twice(page: str) -> None:
    attributes = Reader(page).attributes
    ids = [value for _, name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    links = {value for _, name, value in attributes if name in ("href", "xlink:href")}
    links |= {f"#{name}" for name in re.findall(r"url\(#([^)]*)\)", page)}
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert {"outcomes", "gradients", "pair", "settings", "replay"} <= set(ids)


def test_the_page_says_what_the_tables_say(page: str, made: Study) -> None:
    text = Reader(page).text
    for sentence in (
        *findings(made),
        *(o.sentence for o in made.outcomes),
        *(c.sentence for c in made.claims),
        *(c.sentence for c in made.comparison),
    ):
        assert sentence in text
    assert "0.9610 ± 0.0010" in text
    assert "document 0.9698 , loss 0.1042" in text.replace("0.9698,", "0.9698 ,")
    assert "2 of 3 trained" in text


def test_the_page_can_be_replayed(page: str, made: Study) -> None:
    text = Reader(page).text
    assert made.plan.command() in text
    for value in ("0.1.0", "native", "ab" * 32):
        assert value in text
    assert "epochs 4 (the report: 40)" in text
    assert "Some settings are not the report's" in text


def test_more_seeds_of_the_documents_nets_are_no_departure() -> None:
    text = Reader(page_without_figures(study(epochs=40, seeds=2, depths=(5,)))).text
    assert "Some settings are not" not in text
    assert "(the report:" not in text


def test_figures_take_the_colours_of_the_page(page: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) == 10
    for drawing in drawings:
        assert "var(--ink)" in drawing
        assert not any(
            colour in drawing for colour in (INK, PAPER, *(s.light for s in STYLES.values()))
        )
    assert {re.search('class="(wide|narrow)"', d).group(1) for d in drawings} == {  # type: ignore[union-attr]
        "wide",
        "narrow",
    }
    assert page.count("prefers-color-scheme: dark") == 2


def test_what_comes_from_outside_is_escaped(made: Study) -> None:
    stamp = {**made.history.stamp, "processor": "<script>alert(1)</script>"}
    page = page_without_figures(replace(made, history=replace(made.history, stamp=stamp)))
    assert "<script>" not in page
    assert "<script>alert(1)</script>" in unescape(page)


def test_a_study_without_both_activations_has_no_comparison() -> None:
    page = page_without_figures(study(activations=("relu",), depths=(3,), seeds=1))
    assert 'id="pair"' not in page
    assert "#pair" not in page
    assert "What the report states" not in page
    assert "±" not in Reader(page).text


def test_a_study_that_diverged_is_told() -> None:
    of = plan(depths=(5,), activations=("tanh",))
    made = history(of)
    for row in range(3):
        diverge(made, row)
    text = Reader(page_without_figures(Study.of(of, made, CHANCE))).text
    assert "0 of 3 trained, 3 diverged" in text
    assert "nan" not in text
