"""The verb flow check: exit status, annotations, JSON, repair, and what bad input costs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unmask
from unmask.cli.main import main
from unmask.data.mnist import load_mnist
from unmask.flow.check import check_flow
from unmask.flow.judge.verdicts import verdicts
from unmask.flow.measure.probe import GradientProbe

MODULE = """
import torch
from torch import nn

def deep(phi, depth, width=32):
    sizes = [784, *[width] * depth]
    hidden = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), phi())]
    return nn.Sequential(*hidden, nn.Linear(width, 10))

def healthy():
    return nn.Sequential(nn.Flatten(), deep(nn.ReLU, 2))

def rows():
    return deep(nn.ReLU, 2)

def broken():
    return deep(nn.Sigmoid, 10)

def half_dead():
    model = deep(nn.ReLU, 2)
    with torch.no_grad():
        model[0].bias[:16] = -100
    return model

def colour():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                         nn.Linear(16, 2))

def column():
    return nn.Linear(3, 1)

def no_module():
    return [1]

def raises():
    raise RuntimeError("no weights")

def empty():
    return nn.ReLU()

def frozen():
    return healthy().requires_grad_(False)

def evaluating():
    return healthy().eval()

def elsewhere():
    return healthy().to("meta")

def no_graph():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = healthy()
        def forward(self, x):
            return self.inner(x).detach()
    return Cut()

def no_scalar(output, target):
    return nn.functional.cross_entropy(output, target, reduction="none")

class Loader:
    def __iter__(self):
        for _ in range(3):
            x = torch.randn(8, 3)
            yield x, x.sum(1, keepdim=True)

def loader():
    return Loader()

def generator():
    yield from Loader()

once = generator()

def integers():
    yield torch.randint(9, (8, 3)), torch.randn(8, 1)

def nothing():
    return []

def breaks():
    yield next(iter(Loader()))
    raise OSError("disk gone")

not_a_loader = 3
"""


@pytest.fixture(scope="module")
def mnist():
    train, test = load_mnist()
    return train.split(2000)[0], test.split(500)[0]


@pytest.fixture
def check(tmp_path, monkeypatch, capsys, mnist):
    # Unpacking all of MNIST for every command would take longer than the commands.
    monkeypatch.setattr("unmask.data.sources.load_mnist", lambda: mnist)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "cli_check_models.py").write_text(MODULE)
    monkeypatch.delitem(__import__("sys").modules, "cli_check_models", raising=False)

    def run(model: str, *options: str) -> tuple[int, str, str]:
        options = tuple(re.sub(r"^:", "cli_check_models:", o) for o in options)
        status = main(["flow", "check", f"cli_check_models:{model}", *options])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def unwritten(monkeypatch):
    """Have no report drawn, which takes longer than the check."""
    monkeypatch.setattr("unmask.report.check.write_check", lambda *_: [Path("report.html")])


def test_a_healthy_model_passes_and_has_a_report(check, tmp_path):
    status, out, _ = check("healthy")
    assert status == 0
    assert "Nothing blocks the gradient" in out
    assert "fed as float32[64, 1, 28, 28]" in out
    assert "Report: runs/check/report.html" in out
    assert (tmp_path / "runs/check/report.html").exists()


@pytest.mark.usefixtures("unwritten")
def test_pictures_are_flattened_for_a_model_that_takes_them_no_other_way(check):
    status, out, _ = check("rows", "--steps", "1")
    assert status == 0
    assert "fed as float32[64, 784]" in out


@pytest.mark.usefixtures("unwritten")
def test_a_broken_model_fails_with_cause_and_fix(check):
    status, out, _ = check("broken", "--optimizer", "none")
    assert status == 1
    assert re.search(r"^error: vanishing, layer \d+, step 1$", out, re.MULTILINE)
    assert "derivative factor 0.2" in out
    assert "use tanh instead of sigmoid with sigma_w2 = 1.76, sigma_b2 = 0.05" in out


@pytest.mark.usefixtures("unwritten")
@pytest.mark.parametrize(("severity", "status"), [("error", 0), ("warning", 1), ("note", 1)])
def test_the_severity_that_fails_can_be_chosen(check, severity, status):
    options = ("--optimizer", "none", "--fail-on", severity)
    assert check("half_dead", *options)[0] == status


def test_json_holds_everything(check):
    status, out, _ = check("broken", "--json", "--steps", "2", "--out", "here")
    found = json.loads(out)
    assert status == 1
    assert set(found) == {
        *("model", "parameters", "history", "verdicts", "stamp"),
        *("prediction", "repair", "files", "untested"),
    }
    vanishing = next(v for v in found["verdicts"] if v["kind"] == "vanishing")
    assert set(vanishing) == {
        *("kind", "severity", "message", "fix", "step", "layer", "cause", "evidence"),
        *("subject", "location"),
    }
    assert vanishing["layer"] == vanishing["subject"]
    assert vanishing["evidence"]["low"] < vanishing["evidence"]["high"] < 0
    assert len(found["history"]) == 2
    assert found["history"][0]["layers"][0]["weight_gradient"]["rms"] > 0
    expected, measured = (
        np.log10(found["prediction"]["expected"]["gradient_rms"]),
        np.log10(found["prediction"]["gradient_rms"]),
    )
    assert np.abs(expected - measured).max() < 0.4
    stamp = found["stamp"]
    assert (stamp["seed"], stamp["optimizer"], stamp["learning rate"]) == (0, "adam", 0.001)
    assert len(stamp["data sha256"]) == 64
    assert found["repair"] is None
    assert found["files"][0] == "here/report.html"
    assert json.loads(out) == found


@pytest.mark.usefixtures("unwritten")
def test_the_same_seed_gives_the_same_figures(check):
    options = ("--json", "--steps", "2", "--learning-rate", "0.01", "--optimizer", "momentum")
    first, again, other = (
        json.loads(check("healthy", *options, "--seed", seed)[1])["history"] for seed in "332"
    )
    assert first == again
    assert first != other


@pytest.mark.usefixtures("unwritten")
def test_annotations_name_file_and_line(check):
    status, out, _ = check("broken", "--annotations", "--optimizer", "none")
    assert status == 1
    line = MODULE.splitlines().index("def broken():") + 1
    first = out.splitlines()[0]
    assert first.startswith(
        f"::error file=cli_check_models.py,line={line},title=cli_check_models%3Abroken%3A vanishing"
    )
    assert "fix: use tanh" in first
    assert check("healthy", "--annotations", "--optimizer", "none")[:2] == (0, "")


def test_repair_says_what_worked_and_the_code_compiles(check, monkeypatch):
    monkeypatch.setattr("unmask.flow.repair.repair.__kwdefaults__", {
        "check": None, "steps": 12, "seeds": (0,),
    })  # fmt: skip
    options = ("--optimizer", "momentum", "--steps", "2", "--batch-size", "32", "--repair")
    status, out, _ = check("broken", *options)
    assert status == 1
    assert "critical" in out
    if "To paste:" in out:
        code = out.split("To paste:")[1].split("Report:")[0]
        compile(code, "pasted", "exec")
    assert "Nothing to repair" in check("healthy", "--repair", "--steps", "2")[1]


@pytest.mark.usefixtures("unwritten")
def test_pictures_of_ones_own(check, tmp_path):
    noise = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(3):
            pixels = noise.integers(0, 256, (12, 12, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{i}.png")
    status, out, _ = check("colour", "--data", "pets", "--size", "9")
    assert status == 0, out
    assert "6 images of pets train a step, fed as float32[6, 3, 9, 9]" in out


@pytest.mark.usefixtures("unwritten")
@pytest.mark.parametrize("data", [":loader", ":generator", ":Loader"])
def test_a_loader_and_a_loss_of_ones_own(check, data):
    options = ("--data", data, "--loss", "torch.nn:MSELoss", "--optimizer", "sgd")
    status, out, _ = check("column", *options, "--learning-rate", "0.1", "--json")
    found = json.loads(out)
    assert status == 0
    assert len(found["history"]) == 10
    assert found["stamp"]["data"] == f"cli_check_models{data}"


MINE = ("--loss", "torch.nn.functional:mse_loss", "--data")


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("nothing_of_it", (), "unknown name in cli_check_models"),
        ("no_module", (), "returned no torch.nn.Module: got list"),
        ("raises", (), "raised: got RuntimeError: no weights"),
        ("empty", (), "no parameters"),
        ("frozen", (), "all parameters are frozen"),
        ("evaluating", (), "evaluation mode"),
        ("elsewhere", (), "on the meta device"),
        ("column", (), "does not accept these images: got float32[64, 1, 28, 28]"),
        ("no_graph", (), "has no graph"),
        ("healthy", ("--loss", ":no_scalar"), "loss is no scalar: got (64,)"),
        ("healthy", ("--loss", "cross_entrop"), "unknown loss: got 'cross_entrop'"),
        ("healthy", ("--loss", ":not_a_loader"), "is no loss: got int"),
        ("healthy", ("--data", ":not_a_loader"), "is no loader: got int"),
        ("healthy", ("--data", ":nothing"), "yields no batches"),
        ("healthy", ("--data", "no/such/folder"), "no such images"),
        ("column", (*MINE, ":once"), "gone through once only"),
        ("column", (*MINE, ":raises"), "raised: got RuntimeError: no weights"),
        ("column", (*MINE, ":breaks"), "raised: got OSError: disk gone"),
        ("column", (*MINE, ":integers"), "inputs are integers"),
        ("healthy", ("--optimizer", "adm"), "did you mean 'adam'"),
        ("healthy", ("--fail-on", "eror"), "did you mean 'error'"),
        ("healthy", ("--learning-rate", "nan"), "takes a number from above 0"),
        ("healthy", ("--optimizer", "none", "--learning-rate", "1"), "no learning rate: got 1"),
        ("healthy", ("--batch-size", "1"), "two images or more"),
        ("healthy", ("--steps", "0"), "takes a whole number from 1"),
        ("healthy", ("--json", "--annotations"), "choose one"),
        ("healthy", ("--out", "/proc/no"), "can't write"),
        ("broken", ("--repair", "--optimizer", "none"), "needs an optimiser"),
    ],
)
def test_mistakes_cost_one_line_and_status_2(check, model, options, words):
    status, out, err = check(model, *options)
    assert status == 2
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("cli_check_models", "unknown model"),
        ("no_such_file.py:make", "there is no such file"),
        ("exits.py:make", "called exit(3)"),
        ("exits.py", "exits.py:make_model"),
        ("weights.pt", "could run any code"),
        ("no_such_module_anywhere:make", "there is no module no_such_module_anywhere"),
    ],
)
def test_import_paths_that_lead_nowhere(check, capsys, tmp_path, path, words):
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(3)\n")
    assert main(["flow", "check", path]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.usefixtures("unwritten")
def test_a_file_by_its_path_and_weight_decay(check, capsys, tmp_path):
    path = str(tmp_path / "cli_check_models.py:healthy")
    assert main(["flow", "check", path, "--steps", "2", "--weight-decay", "9"]) == 1
    assert "weight decay too large" in capsys.readouterr().out


def test_the_package_offers_the_check_and_the_probe():
    assert unmask.check_flow is check_flow
    assert unmask.GradientProbe is GradientProbe
    assert unmask.verdicts is verdicts
    assert {"check_flow", "GradientProbe", "verdicts"} <= set(dir(unmask))


def test_a_model_that_ships_is_checked_as_it_would_train(tmp_path, capsys):
    # It is loaded ready to predict, which is no fault of the user's.
    few = ["--optimizer", "none", "--batch-size", "8", "--out", str(tmp_path / "out"), "--json"]
    assert main(["flow", "check", "mnist", *few]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["history"]
