"""The callbacks in the trainers they are for, where those are installed."""

from __future__ import annotations

import gc
import logging

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules import module as hooks
from torch.optim import optimizer as optimizer_hooks

from unmask.errors import UserError
from unmask.flow import callbacks
from unmask.flow.callbacks import hugging_face_callback, lightning_callback


def attached() -> int:
    return len(hooks._global_forward_hooks) + len(optimizer_hooks._global_optimizer_pre_hooks)


@pytest.fixture
def data():
    torch.manual_seed(0)
    x = torch.randn(64, 8)
    return torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long())


def lightning_run(data, callback, fails: bool = False, **options):
    lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Classifier(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))

        def training_step(self, pair, index):
            if fails and index == 2:
                raise ValueError("the loop broke")
            x, y = pair
            return functional.cross_entropy(self.net(x), y)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = lightning.Trainer(
        max_epochs=2,
        callbacks=[callback],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(Classifier(), torch.utils.data.DataLoader(data, batch_size=16))


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_lightning_trainer(data, accumulate):
    pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    before = attached()
    callback = lightning_callback(every=1)
    lightning_run(data, callback, accumulate_grad_batches=accumulate)
    assert attached() == before
    assert [s.step for s in callback.history] == list(range(8 // accumulate))
    for stats in callback.history:
        assert [layer.name for layer in stats.layers] == ["net.0", "net.2"]
        assert all(layer.output_gradient.rms > 0 for layer in stats.layers)
        assert all(layer.update_to_weight_ratio > 0 for layer in stats.layers)
        # SGD's step is the learning rate times the gradient: the figures belong together.
        for layer in stats.layers:
            step = layer.update_to_weight_ratio * layer.weight.rms
            assert step == pytest.approx(0.1 * layer.weight_gradient.rms, rel=0.05)
    assert [v for v in callback.verdicts if v.severity == "error"] == []


def same_gradients(scaled, plain) -> None:
    """The scale of the loss is not to be seen in what the callbacks collect."""
    assert len(scaled) == len(plain) > 0
    for one, other in zip(scaled[0].layers, plain[0].layers, strict=True):
        for name in ("output_gradient", "weight_gradient"):
            assert getattr(one, name).rms == pytest.approx(getattr(other, name).rms, rel=0.02)


@pytest.mark.slow
def test_lightning_trainer_that_scales_its_loss(data):
    pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    from lightning.pytorch.plugins import MixedPrecision

    plain, scaled = lightning_callback(every=1), lightning_callback(every=1)
    torch.manual_seed(1)
    lightning_run(data, plain)
    torch.manual_seed(1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    lightning_run(data, scaled, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    assert scaler.get_scale() == 1024
    same_gradients(scaled.history, plain.history)


@pytest.mark.slow
def test_lightning_trainer_that_fails(data):
    pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    before = attached()
    callback = lightning_callback(every=1)
    with pytest.raises(ValueError, match="the loop broke"):
        lightning_run(data, callback, fails=True)
    assert attached() == before
    assert len(callback.history) == 2


class Classifier(nn.Module):
    def __init__(self, fails: bool = False):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
        self.fails = fails

    def forward(self, x, labels=None):
        if self.fails:
            raise ValueError("the model broke")
        logits = self.net(x)
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


def hugging_face_run(data, callback, folder, fails: bool = False, scaler=None):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=2,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        max_grad_norm=0.0,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    rows = [{"x": x, "labels": y} for x, y in data]
    trainer = transformers.Trainer(
        model=Classifier(fails), args=arguments, train_dataset=rows, callbacks=[callback]
    )
    # What it makes of fp16, which it allows on accelerators only.
    trainer.accelerator.scaler = scaler
    trainer.train()


@pytest.mark.slow
def test_hugging_face_trainer(data, tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    before = attached()
    callback = hugging_face_callback(every=1)
    hugging_face_run(data, callback, tmp_path)
    assert attached() == before
    assert [s.step for s in callback.history] == list(range(8))
    for stats in callback.history:
        assert [layer.name for layer in stats.layers] == ["net.0", "net.2"]
        assert all(layer.output_gradient.rms > 0 for layer in stats.layers)
        assert all(layer.update_to_weight_ratio > 0 for layer in stats.layers)


@pytest.mark.slow
def test_hugging_face_trainer_that_scales_its_loss(data, tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    plain, scaled = hugging_face_callback(every=1), hugging_face_callback(every=1)
    torch.manual_seed(1)
    hugging_face_run(data, plain, tmp_path)
    torch.manual_seed(1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    hugging_face_run(data, scaled, tmp_path, scaler=scaler)
    assert scaler.get_scale() == 1024
    same_gradients(scaled.history, plain.history)


@pytest.mark.slow
def test_hugging_face_trainer_that_fails(data, tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    before = attached()
    callback = hugging_face_callback(every=1)
    with pytest.raises(ValueError, match="the model broke"):
        hugging_face_run(data, callback, tmp_path, fails=True)
    # This trainer reports no exception: the probe goes with its callback.
    del callback
    gc.collect()
    assert attached() == before


@pytest.mark.parametrize("make", [lightning_callback, hugging_face_callback])
def test_a_missing_library_is_named(make, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name=name.split(".")[0])

    monkeypatch.setattr(callbacks.importlib, "import_module", missing)
    with pytest.raises(UserError, match="pip install"):
        make()
