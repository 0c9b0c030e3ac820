from __future__ import annotations

import pytest

from unmask.errors import UserError, unknown


def test_says_what_was_got_and_what_to_do_on_one_line() -> None:
    error = UserError("a width\nmust be positive", got=0, do="give 1 or more")
    assert str(error) == "a width must be positive: got 0; give 1 or more"
    assert str(UserError("no images", got=None)) == "no images: got None"
    assert str(UserError("no images")) == "no images"


@pytest.mark.parametrize(
    ("typed", "meant"), [("tahn", "tanh"), ("RELU", "relu"), ("sigmod", "sigmoid")]
)
def test_suggests_the_nearest_name(typed: str, meant: str) -> None:
    assert f"did you mean {meant!r}?" in str(
        unknown("activation", typed, ["relu", "tanh", "sigmoid"])
    )


def test_is_a_value_error_as_callers_of_a_library_expect() -> None:
    with pytest.raises(ValueError, match="no images"):
        raise UserError("no images")


def test_suggests_nothing_far_fetched() -> None:
    line = str(unknown("activation", "xyzzy", ["relu", "tanh"]))
    assert line == "unknown activation: got 'xyzzy'; choose from relu, tanh"


def test_what_was_got_is_cut_however_long_it_is() -> None:
    line = str(UserError("the card has an unknown key", got="[" * 100_000, do="delete it"))
    assert len(line) < 1100
    assert line.startswith("the card has an unknown key: got [[[")
    assert line.endswith("[…; delete it")
