"""Conditions on an audit's figures, for continuous integration."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from unmask.errors import UserError, unknown

_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}

# The figures that are fractions.
_FRACTION = re.compile(
    r"accuracy|proved|attacked|fooled|^open$|^robust_|^ece|auroc|^confidence|^clean$"
)


@dataclass(frozen=True)
class Gate:
    """A condition on a figure, such as "median_l2<1.0", under which an audit fails.

    Args:
        name: of the figure.
        sign: "<", "<=", ">" or ">=".
        bound: the number to compare with.
    """

    name: str
    sign: str
    bound: float

    @staticmethod
    def parse(text: str) -> Gate:
        """Return the condition that a text states.

        Args:
            text: such as "median_l2<1.0".

        Raises:
            UserError: for another form.
        """
        found = re.fullmatch(r"\s*([a-z]\w*(?:\.\d+)?)\s*(<=|>=|<|>)\s*([-+.\deE]+)\s*", text)
        try:
            bound = float(found[3]) if found else float("nan")
        except ValueError:
            bound = float("nan")
        if found is None or bound != bound:
            raise UserError(
                "a condition has the form NAME<NUMBER or NAME>NUMBER",
                got=repr(text),
                do='write it in quotes: --fail-if "median_l2<1.0"',
            )
        return Gate(found[1], found[2], bound)

    def check(self, names: Iterable[str]) -> None:
        """Raise UserError unless there is a figure of that name."""
        known = list(names)
        if self.name not in known:
            raise unknown("figure", self.name, known)
        if not 0 <= self.bound <= 1 and _FRACTION.search(self.name):
            # Such a gate would always be the same.
            raise UserError(
                f"{self.name} lies between 0 and 1",
                got=str(self),
                do=f"write {self.name}{self.sign}{self.bound / 100:g}"
                if 1 < self.bound <= 100
                else "give a fraction",
            )

    def holds(self, figures: Mapping[str, float]) -> bool:
        """Return whether the condition holds.

        Args:
            figures: by name.

        Raises:
            UserError: when there is no figure of that name.
        """
        self.check(figures)
        return bool(_COMPARE[self.sign](figures[self.name], self.bound))

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{self.bound:g}"
