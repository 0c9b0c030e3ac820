"""Numbers of every verb: taken within stated bounds, refused in one line that names the option."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, get_args

import pytest
from cyclopts import App
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.check.run import check_model
from unmask.cli.main import main
from unmask.cli.options import real, sizes, whole
from unmask.cli.verbs import app
from unmask.coursework.study.plan import StudyPlan
from unmask.errors import MAX_SEED, UserError
from unmask.flow.check import check_flow
from unmask.flow.map_plan import MapPlan
from unmask.fool.audit.plan import AuditPlan
from unmask.fool.certify.result import CertifyPlan
from unmask.runtime import seeded
from unmask.shift.result import ShiftPlan
from unmask.sweep.spec import NetSpec
from unmask.train.config import FitConfig

# No verb takes any of these for a number.
NEVER = (
    "", " ", "x", "nan", "inf", "-inf", "1e309", "1e99999", "-1e308", "0x10", "0b1", "1_0_0_0",
    "١٢", "１", "½", "1,5", "1 2", "--1", "+-1", "1" * 5000, "-1000000000", "1\x00", "1\n",
)  # fmt: skip


@cache
def numeric() -> tuple[tuple[tuple[str, ...], str, Any], ...]:
    """Every option of every verb that takes numbers: the verb's words, the option, its argument."""
    return tuple(_numeric(app(), ()))


def _numeric(verbs: App, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    if verbs.default_command is not None:
        for argument in verbs.assemble_argument_collection(parse_docstring=False):
            if _is_number(argument.hint):
                yield words, argument.name, argument
    for name in verbs:
        if not name.startswith("-"):
            yield from _numeric(verbs[name], (*words, name))


# How many positional arguments stand before the options, which are read first.
_REQUIRED = {
    ("check",): 2, ("shift",): 2, ("evaluate",): 2, ("export",): 2, ("train",): 1, ("show",): 1,
    ("flow", "check"): 1, ("fool", "audit"): 2, ("fool", "certify"): 2, ("fool", "harden"): 1,
    ("mask", "train"): 1, ("mask", "evaluate"): 1, ("mask", "export"): 2, ("mask", "detect"): 1,
    ("mask", "train-classifier"): 1, ("data", "audit"): 1,
}  # fmt: skip


def _is_number(hint: object) -> bool:
    return hint in (int, float) or any(map(_is_number, get_args(hint)))


def line(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("unmask: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err


def test_every_number_of_every_verb_is_validated_and_its_bounds_are_in_the_help() -> None:
    assert len(numeric()) > 70
    for words, option, argument in numeric():
        where = f"{' '.join(words)} {option}"
        assert getattr(argument.parameter.converter, "bounds", None), where
        assert argument.parameter.converter.bounds in argument.parameter.help, where


def test_what_is_no_number_is_refused_by_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    for place, (words, option, argument) in enumerate(numeric()):
        many = 2 if argument.token_count()[0] == 2 else 1
        for i, text in enumerate(NEVER):
            if (i - place) % 7:
                # Each text by many options and each option by several texts is enough.
                continue
            required = ("x",) * _REQUIRED.get(words, 0)
            given_number = (f"{option}={text}", *["1"] * (many - 1))
            # What stands behind a script is the script's own.
            watching = words == ("flow", "watch")
            after = (*given_number, "x") if watching else (*required, *given_number)
            said = line(capsys, *words, *after)
            assert option in said, (words, option, text, said)


def test_fractions_are_no_whole_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert "takes a whole number from 1 to 10000: got '1.5'" in line(
        capsys, "flow", "study", "--seeds", "1.5"
    )


CONVERT_WHOLE = whole(0, 1000, "n").converter
CONVERT_REAL = real(0, 1e6, "x", above=True).converter


class Given:
    def __init__(self, value: str) -> None:
        self.value, self.keyword = value, "--n"


def converted(converter: Any, hint: Any, *texts: str) -> Any:
    return converter(hint, [Given(text) for text in texts])


@given(st.integers(0, 1000))
def test_whole_numbers_within_the_bounds_are_taken(n: int) -> None:
    assert converted(CONVERT_WHOLE, int, str(n)) == n
    assert converted(CONVERT_WHOLE, tuple[int, ...], str(n), "7") == (n, 7)


@given(st.floats(0, 1e6, exclude_min=True))
def test_numbers_within_the_bounds_are_taken_to_the_bit(x: float) -> None:
    assert converted(CONVERT_REAL, float, repr(x)) == x


@settings(max_examples=300)
@given(st.text() | st.integers().map(str) | st.floats().map(repr))
def test_any_text_is_a_number_within_the_bounds_or_refused(text: str) -> None:
    for converter, hint, high in ((CONVERT_WHOLE, int, 1000), (CONVERT_REAL, float, 1e6)):
        try:
            found = converted(converter, hint, text)
        except UserError:
            continue
        assert text.isascii()
        assert 0 <= found <= high
        assert found == hint(text)


@pytest.mark.parametrize("text", [*NEVER, "1/0", "1/", "/2", "1/2/3", "8/-255", "0", "-0.1", "1e7"])
def test_what_is_no_size_of_a_change_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        sizes([text])


def test_sizes_of_changes_are_numbers_and_fractions() -> None:
    assert sizes(["0.3", "8/255", ".5", "1e-3"]) == (0.3, 8 / 255, 0.5, 1e-3)


# The same from Python: what takes a seed or a count, called with one.
SEEDED: dict[str, Callable[[Any], object]] = {
    "net": lambda seed: NetSpec(2, seed=seed),
    "map": lambda seed: MapPlan(seed=seed),
    "training": lambda seed: FitConfig(1, seed=seed),
    "audit": lambda seed: AuditPlan(seed=seed),
    "certificate": lambda seed: CertifyPlan(0.1, seed=seed),
    "shift": lambda seed: ShiftPlan(seed=seed),
    "check": lambda seed: check_model(None, None, seed=seed),
    "flow check": lambda seed: check_flow(None, None, (), seed=seed),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(
    "seed", [-1, 10**24, MAX_SEED + 1, 1.0, True, "1", None, pytest.param(1 << 20_000, id="huge")]
)
@pytest.mark.parametrize("taker", SEEDED)
def test_seeds_have_one_range_everywhere(taker: str, seed: Any) -> None:
    with pytest.raises(
        UserError, match=r"the seed must be a whole number: got .*; give 0 to 2\^63 - 1"
    ):
        SEEDED[taker](seed)


def test_a_generator_of_a_negative_seed_is_refused() -> None:
    with pytest.raises(UserError, match="got -1"):
        seeded(3, -1)


@pytest.mark.parametrize(
    "made",
    [
        lambda: StudyPlan(seeds=10**9),
        lambda: MapPlan(sigma_w2_high=1e308),
        lambda: AuditPlan(images=10**24),
        lambda: AuditPlan(steps=0),
        lambda: CertifyPlan(0.1, images=0),
        lambda: ShiftPlan(images=0.5),  # type: ignore[arg-type]
        lambda: check_flow(None, None, (), steps=10**12),  # type: ignore[arg-type]
    ],
)
def test_counts_have_bounds_from_python_too(made: Callable[[], object]) -> None:
    with pytest.raises(UserError):
        made()
