"""The loggers with the real libraries, without a network, where those are installed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from unmask.errors import UserError
from unmask.train.loggers import MLflowLogger, TensorBoardLogger, WandbLogger
from unmask.verdict import Verdict

VERDICTS = [
    Verdict("starved", "warning", "class b has 3 images", subject="b"),
    Verdict("vanishing", "error", "the gradient is 1e-9 in layer 1", fix="use ReLU"),
]
LOSSES = [0.5, 0.25]


def test_tensorboard_has_figures_and_verdicts(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    for epoch, loss in enumerate(LOSSES, 1):
        logger.numbers(epoch, {"train_loss": loss})
    logger.verdicts(VERDICTS)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(s.step, s.value) for s in events.Scalars("train_loss")] == [(1, 0.5), (2, 0.25)]
    assert events.Scalars("verdicts/error")[0].value == 1
    texts = events.Tensors("verdicts/text_summary")
    assert b"error: vanishing" in texts[0].tensor_proto.string_val[0]
    # A run that goes on from the first epoch takes the second one back.
    TensorBoardLogger(tmp_path, done=1).numbers(2, {"train_loss": 0.3})
    events.Reload()
    assert [round(s.value, 6) for s in events.Scalars("train_loss")] == [0.5, 0.3]


def test_mlflow_has_figures_and_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed (unmask[log])")
    # Its store of plain files; the others need more packages.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(tmp_path.as_uri())
    mlflow.set_experiment("unmask")
    with mlflow.start_run() as run:
        logger = MLflowLogger()
        for epoch, loss in enumerate(LOSSES, 1):
            logger.numbers(epoch, {"train_loss": loss})
        logger.verdicts(VERDICTS)
    client = mlflow.MlflowClient()
    kept = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(m.step, m.value) for m in kept] == [(1, 0.5), (2, 0.25)]
    assert client.get_run(run.info.run_id).data.metrics["verdicts/error"] == 1
    (file,) = tmp_path.rglob("verdicts.json")
    assert [v["kind"] for v in json.loads(file.read_text())["verdicts"]] == ["vanishing", "starved"]


def test_weights_and_biases_has_figures_and_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed (unmask[log])")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with pytest.raises(UserError, match=r"no run .* wandb\.init"):
        WandbLogger()
    with wandb.init(mode="offline", dir=str(tmp_path), project="unmask") as run:
        logger = WandbLogger()
        for epoch, loss in enumerate(LOSSES, 1):
            logger.numbers(epoch, {"train_loss": loss})
        logger.verdicts(VERDICTS)
        assert run.summary["train_loss"] == 0.25
        assert run.summary["verdicts/error"] == 1
    (table,) = tmp_path.rglob("verdicts*.json")
    assert [row[1] for row in json.loads(table.read_text())["data"]] == ["vanishing", "starved"]


@pytest.mark.parametrize("make", [MLflowLogger, WandbLogger])
def test_a_missing_library_is_named(make: type, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"pip install 'unmask\[log\]'"):
        make()
