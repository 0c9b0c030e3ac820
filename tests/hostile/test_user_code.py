"""Other people's modules may do anything: the command ends in one line, and never green."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unmask.check.result import Check, Part
from unmask.cli.main import main
from unmask.errors import UserError
from unmask.models.imported import foreign, load_object
from unmask.text import told

_HEAD = """
import sys, torch
from torch import nn
class Odd(BaseException): pass
class Net(nn.Module):
    def __init__(self):
        super().__init__(); self.last = nn.Linear(192, 2)
    def forward(self, x): return self.last(x.flatten(1))
"""
VERBS = {
    "flow check": "flow check {} --data data --steps 1 --out out",
    "fool audit": "fool audit {} data --size 8 --images 2 --steps 1 --pairs 0 --out out",
    "fool certify": "fool certify {} data --size 8 --images 2 --out out",
    "fool grid": "fool grid {} --image data/a/0.png --size 8 --out out",
    "shift": "shift {} data --size 8 --images 4 --quick --out out",
    "check": "check {} data --size 8 --minutes 0.05 --questions accuracy --out out",
    "show": "show {} --size 8 8",
    "evaluate": "evaluate {} data --size 8 8",
    "export": "export {} out.onnx --size 8 8",
}
# A module's text, the words that its line holds, and the verbs of which that isn't so: unmask check
# makes an ordinary exception a verdict.
CASES = {
    "exits on import": ("sys.exit(0)", "called exit(0)", ()),
    "raises beyond exceptions on import": ("raise Odd('x')", "Odd: x", ()),
    "exits when made": ("def make(): sys.exit(0)", "called exit(0)", ()),
    "raises beyond exceptions when made": ("def make(): raise Odd('x')", "Odd: x", ()),
    "calls itself for ever": ("def make(): return make()", "RecursionError", ()),
    "ends the process when made": ("import os\ndef make(): os._exit(0)", "called exit(0)", ()),
    "ends the process in forward": (
        "import os\nclass make(Net):\n    def forward(self, x): os._exit(0)", "called exit(0)", ()
    ),
    "exits in forward": (
        "class make(Net):\n    def forward(self, x): sys.exit(0)", "called exit(0)", ()
    ),
    "raises beyond exceptions in forward": (
        "class make(Net):\n    def forward(self, x): raise Odd('y')", "Odd", ()
    ),
    "raises in forward": (
        "class make(Net):\n    def forward(self, x): raise KeyError('\\x1b[31m')", "", ("check",)
    ),
    "raises in train": (
        "class make(Net):\n    def train(self, mode=True): raise ValueError('no')",
        "ValueError: no", ("flow check",),
    ),
    "hides its parameters": (
        "class make(Net):\n"
        "    def parameters(self, *a): raise ValueError('no')\n"
        "    def state_dict(self, *a, **k): raise ValueError('no')",
        "ValueError: no", ("show", "evaluate", "export"),
    ),
    "has attributes that raise": (
        "def __getattr__(name): raise RuntimeError('no\\n\\x1b[31mname')", "RuntimeError: no", ()
    ),
    "isn't whole": (
        "class make(nn.Module):\n    def __init__(self): pass", "call super().__init__()", ()
    ),
    "closes stdout": ("sys.stdout.close(); make = Net", "closed stdout", ()),
    "has no values": ("def make(): return Net().to('meta')", "meta device", ()),
    "has no shapes": (
        "def make(): return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))", "lazy layers",
        ("show", "evaluate", "export"),
    ),
    "raises what can't be told": (
        "class E(Exception):\n    def __str__(self): raise E\ndef make(): raise E", "got E", ()
    ),
}  # fmt: skip
_serial = itertools.count()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with images of two classes."""
    rng = np.random.default_rng(0)
    for name in ("a/0", "a/1", "a/2", "a/3", "b/0", "b/1", "b/2", "b/3"):
        file = tmp_path / "data" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    return tmp_path


def written(folder: Path, text: str) -> str:
    name = f"hostile_module_{next(_serial)}"
    (folder / f"{name}.py").write_text(_HEAD + text)
    return name


@pytest.mark.parametrize("case", CASES)
def test_every_verb_ends_in_one_line_and_status_2(
    case: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, words, but = CASES[case]
    for verb, line in VERBS.items():
        if verb in but:
            continue
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr("sys.stdout", out)
        monkeypatch.setattr("sys.stderr", err)
        status = main(line.format(f"{written(folder, text)}:make").split())
        last = err.getvalue().splitlines()[-1]
        assert (status, last[:8]) == (2, "unmask: "), (verb, last)
        assert words in last, (verb, last)
        assert "\x1b" not in err.getvalue()
        assert "passed" not in ("" if out.closed else out.getvalue())


def test_a_module_that_takes_the_streams_is_heard_anyway(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = written(folder, "sys.stdout = sys.stderr = None\nmake = Net")
    assert main(["show", f"{name}:make", "--size", "8", "8"]) == 0
    assert "Linear" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("math:pi.foo", "unknown name in math:pi: got 'foo'"),
        ("math:pi.real.foo.bar", "unknown name in math:pi.real: got 'foo'"),
        ("math:pi", "is no model"),
        ("math:", "has the form"),
        ("math:.", "unknown name in math"),
        ("json:loads", "must work without arguments"),
        ("os:getcwd", "returned no torch.nn.Module: got str"),
    ],
)
def test_paths_that_lead_to_no_model(
    path: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", path]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_a_module_that_runs_itself_again_is_loaded_once_more(folder: Path) -> None:
    name = written(
        folder, "import runpy\nif __name__ != 'x': runpy.run_path(__file__, run_name='x')\nn = 7"
    )
    assert load_object(f"{name}:n") == 7


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_ctrl_c_in_loaded_code_stays_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt), foreign("m:x"):
        _interrupt()


@pytest.mark.parametrize(
    "error", [RuntimeError("a\nb\x1b[2J" + "c" * 999), OSError(), MemoryError()]
)
def test_what_an_exception_says_is_one_short_plain_line(error: Exception) -> None:
    line = told(error)
    assert len(line) < 320
    assert line.isprintable()
    assert line.startswith(type(error).__name__)


_answered: Callable[..., Check] = lambda *parts: Check("m", "d", parts, 1, 1)  # noqa: E731


def test_a_check_that_answered_nothing_is_none() -> None:
    assert not _answered(Part("preflight", "done"), Part("shift", "done")).unanswered
    assert not _answered(Part("shift", "done"), Part("audit", "failed", "x")).unanswered
    assert "x" in _answered(Part("preflight", "failed", "x"), Part("data", "done")).unanswered
    assert "y" in _answered(Part("preflight", "done"), Part("shift", "skipped", "y")).unanswered
    with pytest.raises(UserError):
        load_object("no colon")
