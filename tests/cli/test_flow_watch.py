"""flow watch: scripts as people write them, run unchanged, each with one planted fault."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest

import unmask.report.check
from unmask.cli.main import main

DATA = """
import sys
import torch
from torch import nn
import torch.nn.functional as F
torch.manual_seed(0)
centres = 1.5 * torch.randn(5, 20)
def batch(i, n=32):
    g = torch.Generator().manual_seed(i)
    y = torch.randint(5, (n,), generator=g)
    return centres[y] + torch.randn(n, 20, generator=g), y
"""
PLAIN = (
    DATA
    + """
from torch.nn.functional import cross_entropy
model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5)HEAD)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for i in range(int(sys.argv[sys.argv.index("--steps") + 1])):
    x, y = batch(i)
    loss = cross_entropy(model(x), y)  # here
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("weights", sum(float(p.double().sum()) for p in model.parameters()))
END
"""
)
LIGHTNING = (
    DATA
    + """
import logging
import lightning.pytorch as pl
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5))
    def training_step(self, pair, index):
        x, y = pair
        return F.nll_loss(self.net(x), y)  # here
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)
x, y = batch(0, 256)
trainer = pl.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
                     enable_progress_bar=False, enable_model_summary=False)
data = torch.utils.data.TensorDataset(x, y)
trainer.fit(Classifier(), torch.utils.data.DataLoader(data, batch_size=32))
"""
)
HUGGING_FACE = (
    DATA
    + """
import transformers
class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.head = nn.Linear(20, 32), nn.Linear(32, 5)
    def forward(self, x, labels):
        z = self.head(self.trunk(x).relu().detach())  # here
        return {"loss": F.cross_entropy(z, labels), "logits": z}
x, y = batch(0, 128)
rows = [{"x": a, "labels": b} for a, b in zip(x, y)]
arguments = transformers.TrainingArguments(
    output_dir="out", num_train_epochs=1, per_device_train_batch_size=16, save_strategy="no",
    report_to=[], use_cpu=True, disable_tqdm=True)
transformers.Trainer(model=Classifier(), args=arguments, train_dataset=rows).train()
"""
)
AMP = (
    DATA
    + """
model = nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5)).eval()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
for i in range(12):
    x, y = batch(i)
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(model(x), y)
    scaler.scale(loss).backward()  # here
    scaler.step(optimizer)
    scaler.update()
"""
)
DDP = (
    DATA
    + """
import torch.distributed as dist
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=0, world_size=1)
model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5))
model = nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for i in range(12):
    x, y = batch(i)
    F.cross_entropy(model(x), y).backward()
    optimizer.step()  # here
dist.destroy_process_group()
"""
)


@pytest.fixture
def watch(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(source: str, *arguments: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        (tmp_path / "train.py").write_text(source)
        status = main(["flow", "watch", *options, "train.py", *arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def here(source: str) -> int:
    return 1 + next(i for i, line in enumerate(source.splitlines()) if line.endswith("# here"))


def test_a_plain_script_its_line_and_its_own_status(watch, tmp_path):
    source = PLAIN.replace("HEAD", ", nn.Softmax(1)").replace("END", "sys.exit(3)")
    status, out, err = watch(source, "--steps", "12", options=("--fail-on", "error"))
    assert status == 3
    assert out.startswith("weights ")
    assert f"error: activation before the loss (train.py:{here(source)}, step 1)" in err
    assert "Fix: feed cross_entropy the scores before softmax" in err
    page = (tmp_path / "runs/watch/report.html").read_text()
    assert "<code>unmask flow watch</code>" in page
    assert "This network is none" not in page
    found = json.loads((tmp_path / "runs/watch/data/watch.json").read_text())
    assert found["verdicts"][0]["location"] == f"train.py:{here(source)}"
    assert found["models"][0]["steps"] == 12


@pytest.mark.parametrize("flag", ["-m", "--module"])
def test_a_module_is_run_as_python_runs_it(flag, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # A module's name is found once in a process.
    package = f"made_up_package{len(flag)}"
    folder = tmp_path / package
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "head.py").write_text("from torch import nn\nlast = nn.Softmax(1)\n")
    source = PLAIN.replace("HEAD", ", last").replace("END", "assert sys.argv[1] == '--steps'")
    (folder / "train.py").write_text("from .head import last\n" + source)
    status = main(["flow", "watch", "--every", "50", flag, f"{package}.train", "--steps", "12"])
    said = capsys.readouterr()
    assert status == 0, said.err
    where = f"{package}/train.py:{1 + here(source)}"
    assert f"error: activation before the loss ({where}, step 1)" in said.err
    for wrong in (f"{package}.nothing", package, "nowhere.train", "..", "train.py"):
        assert main(["flow", "watch", flag, wrong]) == 2
        assert "no such module" in capsys.readouterr().err


def test_weights_changed_by_hand_are_no_clean_bill(watch):
    source = (
        DATA
        + """
model = nn.Linear(20, 5)
for i in range(8):
    x, y = batch(i)
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    for p in model.parameters():
        p.data = p.data - 0.1 * p.grad
"""
    )
    status, _, err = watch(source)
    assert status == 0
    assert "no step of an optimiser was seen" in err


def test_an_interrupt_while_the_report_is_written_loses_nothing(watch, tmp_path, monkeypatch):
    write = unmask.report.check.write_watch

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return write(*arguments)

    monkeypatch.setattr(unmask.report.check, "write_watch", interrupted)
    before = signal.getsignal(signal.SIGINT)
    source = PLAIN.replace("HEAD", ", nn.Softmax(1)").replace("END", "")
    status, _, err = watch(source, "--steps", "12")
    assert status == 0
    assert "1 error" in err
    assert (tmp_path / "runs/watch/report.html").exists()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_the_watch_changes_no_bit_and_a_gate_fails(watch, capsys):
    source = PLAIN.replace("HEAD", "").replace("END", "")
    status, out, _ = watch(source, "--steps", "12", options=("--every", "3", "--out", "elsewhere"))
    assert status == 0
    exec(
        compile(source.replace("sys.argv", "['', '--steps', '12']"), "plain", "exec"),
        {"__name__": "plain"},
    )
    assert capsys.readouterr().out == out
    broken = PLAIN.replace("HEAD", ", nn.Softmax(1)").replace("END", "")
    assert watch(broken, "--steps", "3", options=("--fail-on", "error"))[0] == 1
    assert watch(broken, "--steps", "3")[0] == 0
    status, out, err = watch(broken, "--steps", "300", options=("--stop-on", "error"))
    assert (status, out) == (1, "")
    assert "stopped at step" in err
    status, out, _ = watch(broken, "--steps", "3", options=("--json",))
    assert json.loads(out.splitlines()[-1])["verdicts"][0]["severity"] == "error"


@pytest.mark.parametrize(
    ("source", "status", "words"),
    [
        ("print('hello')", 0, "no training was seen"),
        ("raise SystemExit('enough')", 1, "enough"),
        ("import sys; sys.exit()", 0, "no training was seen"),
        ("raise KeyError('gone')", 1, "KeyError"),
        ("def broken(:", 2, "isn't Python"),
        ("raise KeyboardInterrupt", 130, "no training was seen"),
    ],
)
def test_scripts_that_do_not_train(watch, source, status, words):
    got, _, err = watch(source)
    assert got == status
    assert words in err


def test_a_missing_script_and_a_folder(watch, tmp_path, capsys):
    assert main(["flow", "watch", "nowhere.py"]) == 2
    assert "no such script" in capsys.readouterr().err
    assert main(["flow", "watch", str(tmp_path)]) == 2
    assert "a script is a file" in capsys.readouterr().err
    assert main(["flow", "watch", "--every", "x", "train.py"]) == 2


def test_a_crash_is_shown_and_explained(watch):
    source = (
        PLAIN.replace("HEAD", "").replace("END", "").replace("model(x), y)", "model(x), y + 1)")
    )
    status, _, err = watch(source, "--steps", "3")
    assert status == 1
    assert "Traceback" in err
    assert "flow_watch.py" not in err
    assert f"error: crashed (train.py:{here(source)}" in err
    assert "number of outputs" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "library", "kind"),
    [
        (LIGHTNING, "lightning", "wrong loss"),
        (HUGGING_FACE, "transformers", "parameters without gradient"),
        (AMP, "torch", "wrong mode"),
        (DDP, "torch", "gradients not zeroed"),
    ],
)
def test_scripts_of_every_kind(watch, tmp_path, source, library, kind):
    pytest.importorskip(library, reason=f"{library} is not installed")
    status, _, err = watch(source, str(tmp_path / "store"))
    assert status == 0, err
    assert f"error: {kind} (train.py:{here(source)}" in err
    assert sys.argv[0] != "train.py"


def test_what_only_the_end_shows_is_said_too(watch):
    source = PLAIN.replace("HEAD", "").replace("    optimizer.step()\n", "").replace("END", "")
    status, _, err = watch(source, "--steps", "10")
    assert status == 0
    assert err.count("error: no step (train.py:") == 1
    assert "1 error, 0 warnings" in err


def test_what_was_said_is_not_said_again(watch):
    status, _, err = watch(
        PLAIN.replace("HEAD", ", nn.Softmax(1)").replace("END", ""), "--steps", "30"
    )
    assert status == 0
    assert err.count("activation before the loss") == 1
