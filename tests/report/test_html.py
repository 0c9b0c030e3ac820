"""html: texts as pages show them."""

from __future__ import annotations

import pytest

from unmask.report.html import sentence


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("the loss falls", "The loss falls"),
        ("softmax stands before cross_entropy", "Softmax stands before cross_entropy"),
        ("log_softmax before nll_loss", "log_softmax before nll_loss"),
        ("load_state_dict(strict=False) loaded none", "load_state_dict(strict=False) loaded none"),
        (".detach() cuts the graph", ".detach() cuts the graph"),
        ("f' is at most 1", "f' is at most 1"),
        ("can't be seen", "Can't be seen"),
        ("fc1.norm took no part", "fc1.norm took no part"),
        ("71% of it", "71% of it"),
        ("", ""),
    ],
)
def test_a_sentence_begins_with_a_capital_but_for_names_in_code(text: str, shown: str) -> None:
    assert sentence(text) == shown
