"""Every public name has an example in its docstring, and every example does what it shows."""

from __future__ import annotations

import doctest
import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import unmask
from unmask.check.run import check_model
from unmask.shift.measurement import measure_shift

# A package that can be called shows the arguments of the function behind it.
BEHIND = {"check": check_model, "shift": measure_shift}
PHOTO = Path(unmask.__file__).parent / "data" / "samples" / "obama.jpg"
GIVEN = {"unmask": unmask, "torch": torch, "nn": nn, "np": np, "photo": PHOTO}


@pytest.mark.parametrize("name", unmask.__all__)
def test_an_example_does_what_it_shows(name: str) -> None:
    shown: Any = BEHIND.get(name, getattr(unmask, name))
    text = inspect.getdoc(shown) or ""
    assert "Example:" in text
    parsed = doctest.DocTestParser().get_doctest(text, dict(GIVEN), name, None, None)
    torch.manual_seed(0)
    with torch.random.fork_rng():
        failed, tried = doctest.DocTestRunner().run(parsed, out=sys.stdout.write)
    assert failed == 0
    assert tried > 0
