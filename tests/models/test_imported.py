"""Models by import path, and one clear line for every way that can go wrong."""

from __future__ import annotations

import itertools

import pytest
from torch import nn

from unmask.errors import UserError
from unmask.models.imported import load_model

_serial = itertools.count()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module under a name of its own and return that name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["", *__import__("sys").path])

    def write(text: str) -> str:
        name = f"written_for_test_{next(_serial)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def test_a_function_a_class_or_a_network(module):
    name = module(
        "from torch import nn\n"
        "def make(): return nn.Linear(2, 3)\n"
        "class Net(nn.Linear):\n"
        "    def __init__(self): super().__init__(4, 5)\n"
        "net = nn.Linear(6, 7)\n"
    )
    assert load_model(f"{name}:make").out_features == 3
    assert load_model(f"{name}:Net").out_features == 5
    assert load_model(f"{name}:net").out_features == 7
    assert isinstance(load_model(f"{name}:Net"), nn.Module)


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("", "{}", "my_module:make_model"),
        ("", "{}:", "my_module:make_model"),
        ("", ":make", "my_module:make_model"),
        ("", "no_such_module_at_all:make", "there is no module no_such_module_at_all"),
        ("import no_such_module_at_all", "{}:make", "No module named 'no_such_module_at_all'"),
        ("1 / 0", "{}:make", "ZeroDivisionError: division by zero"),
        ("def (", "{}:make", "SyntaxError"),
        ("def make_model(): pass", "{}:make_modle", "did you mean 'make_model'"),
        ("def make(): raise KeyError('key')", "{}:make", "raised"),
        ("def make(size): pass", "{}:make", "must work without arguments"),
        ("def make(): return [1]", "{}:make", "no torch.nn.Module: got list"),
        ("make = 3", "{}:make", "no function that makes one: got int"),
    ],
)
def test_what_goes_wrong_gets_one_line(module, text, path, words):
    with pytest.raises(UserError) as caught:
        load_model(path.format(module(text)))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
