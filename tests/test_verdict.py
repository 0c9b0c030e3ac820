"""The one type that every judgement has."""

from __future__ import annotations

import json

from unmask.verdict import Verdict, at_least, worst_first

NOTE = Verdict("slow", "note", "slow")
WARNING = Verdict("leak", "warning", "2 of 9 images leak", "remove them", subject="cat")
ERROR = Verdict("nan", "error", "NaN", location="train.py:7", evidence={"step": 3.0})


def test_the_worst_come_first_and_ties_keep_their_order() -> None:
    other = Verdict("also", "warning", "also")
    assert worst_first([NOTE, WARNING, ERROR, other]) == [ERROR, WARNING, other, NOTE]


def test_a_gate_counts_what_is_as_bad_or_worse() -> None:
    assert at_least([NOTE, WARNING, ERROR], "warning") == [WARNING, ERROR]


def test_as_plain_values_it_survives_json() -> None:
    assert Verdict(**json.loads(json.dumps(ERROR.as_dict()))) == ERROR


def test_as_text_it_names_place_and_fix() -> None:
    assert str(Verdict("no_gradient", "note", "flat")) == "note: no gradient: flat"
    assert str(WARNING) == "warning: leak (cat): 2 of 9 images leak. Fix: remove them"
    assert str(Verdict("leak", "note", "It leaks.", "mend it")).endswith("It leaks. Fix: mend it")
    assert str(ERROR).startswith("error: nan (train.py:7)")
