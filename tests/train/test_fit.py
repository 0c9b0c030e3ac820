"""Training: it learns, repeats itself bit for bit, resumes, stops, and names what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from unmask.data.augment import Augmentation, augmented, draw, mixed
from unmask.data.images import Images
from unmask.errors import UserError
from unmask.models.checkpoint import TensorFile, write_tensors
from unmask.models.classifier import Classifier
from unmask.train.config import FitConfig
from unmask.train.fit import FitInterrupted, FitProgress, fit
from unmask.train.history import History
from unmask.verdict import Verdict

Make = Callable[..., Classifier]
CONFIG = FitConfig(
    epochs=4,
    batch_size=32,
    rate=0.01,
    label_smoothing=0.1,
    augmentation=Augmentation("alternating", 1),
    precision="fp32",
)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def same_figures(a: History, b: History) -> bool:
    return len(a.epochs) == len(b.epochs) and all(
        x.same_figures(y) for x, y in zip(a.epochs, b.epochs, strict=True)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "rate": 0.05, "schedule": "linear"},
        {"optimizer": "adam", "averaging": "lookahead", "precision": "bf16"},
        {"optimizer": "adamw", "averaging": "ema", "averaging_horizon": 5, "test_time": "flip"},
        {"optimizer": "muon", "rate": 0.1, "bias_rate": 0.01, "head_rate": 0.1},
    ],
)
def test_it_learns(shapes: Images, make: Make, changes: dict[str, object]) -> None:
    config = replace(CONFIG, epochs=6, **changes)  # type: ignore[arg-type]
    history = fit(make(), shapes[:160], config, validation=shapes[160:], device="cpu")
    assert history.ended == "finished"
    assert history.best is not None
    assert history.best.validation_accuracy is not None
    assert history.best.validation_accuracy > 0.9
    assert history.epochs[-1].train_loss < history.epochs[0].train_loss
    assert [e.step for e in history.epochs] == [5, 10, 15, 20, 25, 30]
    assert history.epochs[-1].pictures == 960
    assert (history.best.validation_averaged is None) == (config.test_time == "none")


def test_a_step_is_that_of_plain_pytorch(shapes: Images, make: Make) -> None:
    config = FitConfig(
        epochs=3,
        batch_size=240,
        optimizer="sgd",
        rate=0.1,
        momentum=0.5,
        schedule="constant",
        weight_decay=0.01,
        precision="fp32",
    )
    model, oracle = make(), make()
    history = fit(model, shapes, config, device="cpu")
    pixels, labels = torch.from_numpy(shapes.pixels) / 255, torch.from_numpy(shapes.labels)
    decayed = [p for p in oracle.parameters() if p.ndim > 1]
    rest = [p for p in oracle.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": rest}]
    plain = torch.optim.SGD(groups, lr=0.1, momentum=0.5, nesterov=True)
    for epoch in history.epochs:
        logits = oracle(pixels)
        loss = nn.functional.cross_entropy(logits, labels)
        assert epoch.train_loss == pytest.approx(loss.item(), rel=1e-4)
        assert epoch.train_accuracy == pytest.approx(
            (logits.argmax(1) == labels).double().mean().item()
        )
        plain.zero_grad()
        loss.backward()
        plain.step()
    for ours, theirs in zip(model.parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_mixed_picture_counts_for_both_classes_by_area(shapes: Images, make: Make) -> None:
    augmentation = Augmentation("random", 1, cutmix=0.8)
    config = FitConfig(
        epochs=1,
        batch_size=240,
        rate=1e-9,
        label_smoothing=0.1,
        augmentation=augmentation,
        precision="fp32",
    )
    model = make()
    draws = draw(augmentation, 240, seed=0, epoch=0)
    pixels = torch.from_numpy(shapes.pixels).permute(0, 2, 3, 1)
    labels = torch.from_numpy(shapes.labels)
    moved = augmented(pixels, augmentation, draws)
    pictures, share = mixed(moved, moved[draws.mate], draws.square)
    logits = model(pictures)

    def loss(classes: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, classes, label_smoothing=0.1, reduction="none")

    expected = (share * loss(labels) + (1 - share) * loss(labels[draws.mate])).mean()
    history = fit(model, shapes, config, device="cpu")
    assert history.epochs[0].train_loss == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_bits(shapes: Images, make: Make, precision: str) -> None:
    config = replace(CONFIG, precision=precision)

    def run(noise: int, seed: int = 0) -> tuple[History, dict[str, torch.Tensor]]:
        torch.manual_seed(noise)
        model = make("document_cifar", widths=[8, 8], dropout=[0.2, 0.2], hidden=8)
        history = fit(model, shapes, replace(config, seed=seed), device="cpu")
        return history, weights(model)

    (first, a), (second, b), (other, c) = run(1), run(2), run(1, seed=1)
    assert same_figures(first, second)
    assert same(a, b)
    assert not same_figures(first, other)
    assert not same(a, c)


def test_the_callers_random_state_is_left_alone(shapes: Images, make: Make) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    fit(make(), shapes, replace(CONFIG, epochs=1), device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


RESUMED = {
    "adamw and a running average": {"averaging": "ema", "averaging_horizon": 5},
    "muon and lookahead": {
        "optimizer": "muon",
        "rate": 0.1,
        "bias_rate": 0.01,
        "head_rate": 0.1,
        "averaging": "lookahead",
    },
    "sgd in bf16": {"optimizer": "sgd", "rate": 0.05, "precision": "bf16", "test_time": "flip"},
}


@pytest.mark.parametrize("changes", RESUMED.values(), ids=RESUMED)
def test_a_resumed_run_ends_with_the_same_bits(
    shapes: Images, make: Make, tmp_path: Path, changes: dict[str, object]
) -> None:
    config = replace(CONFIG, **changes)  # type: ignore[arg-type]
    train, validation = shapes.split(180)

    def network() -> Classifier:
        return make("document_cifar", widths=[8, 8], dropout=[0.2, 0.2], hidden=8)

    whole = network()
    uninterrupted = fit(whole, train, config, validation=validation, device="cpu")

    def stop(progress: FitProgress) -> None:
        if progress.epoch == 3:
            raise KeyboardInterrupt

    broken = network()
    with pytest.raises(FitInterrupted) as caught:
        fit(
            broken,
            train,
            config,
            validation=validation,
            directory=tmp_path,
            progress=stop,
            device="cpu",
        )
    assert same_figures(
        caught.value.history,
        History(uninterrupted.epochs[:2], 2, "interrupted"),
    )
    resumed = network()
    history = fit(
        resumed,
        train,
        config,
        validation=validation,
        directory=tmp_path,
        resume=True,
        device="cpu",
    )
    assert same_figures(history, uninterrupted)
    assert history.best_epoch == uninterrupted.best_epoch
    assert same(weights(resumed), weights(whole))
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [asdict(e) for e in history.epochs]
    finished = network()
    again = fit(
        finished,
        train,
        config,
        validation=validation,
        directory=tmp_path,
        resume=True,
        device="cpu",
    )
    assert again.epochs == history.epochs, "a finished run is not trained any further"
    assert same(weights(finished), weights(whole))


# One process imports torch, and every run is a fork of it.
KILLED = """
    import multiprocessing
    import signal
    import sys
    import time
    from pathlib import Path
    import numpy as np
    from unmask.data.images import Images
    from unmask.models.classifier import Classifier
    from unmask.train import FitConfig, fit

    def train(folder):
        random = np.random.default_rng(0)
        labels = random.integers(0, 2, 200)
        pixels = (labels[:, None, None, None] * 90 + random.integers(0, 90, (200, 1, 12, 12)))
        images = Images(pixels.astype(np.uint8), labels, ("a", "b"), "made up")
        model = Classifier.create(
            "block_cnn", {"widths": [8, 8]}, class_names=("a", "b"),
            input_shape=(1, 12, 12), mean=(0.5,), std=(0.2,), seed=0,
        )
        config = FitConfig(epochs=12, batch_size=20, rate=0.01)
        fit(model, images, config, validation=images, directory=folder, resume=True, device="cpu")
        model.save(folder / "model")

    def started(name):
        process = multiprocessing.get_context("fork").Process(target=train, args=(FOLDER / name,))
        process.start()
        return process

    FOLDER = Path(sys.argv[1])
    whole = started("whole")
    whole.join()
    assert whole.exitcode == 0
    killed = started("killed")
    while not (FOLDER / "killed" / "checkpoint.safetensors").exists():
        assert killed.is_alive(), "it ended before it was killed"
        time.sleep(0.001)
    killed.kill()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    again = started("killed")
    again.join()
    assert again.exitcode == 0
"""


@pytest.mark.slow
def test_a_run_that_was_killed_ends_with_the_same_bits(tmp_path: Path) -> None:
    code = textwrap.dedent(KILLED)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True)
    files = [tmp_path / name / "model.safetensors" for name in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_it_stops_when_the_target_is_exceeded(shapes: Images, make: Make) -> None:
    config = replace(CONFIG, epochs=50, target=0.8)
    history = fit(make(), shapes, config, validation=shapes, device="cpu")
    assert history.ended == "target"
    accuracies = [e.validation_accuracy or 0 for e in history.epochs]
    assert accuracies[-1] > 0.8
    assert all(a <= 0.8 for a in accuracies[:-1])


def test_the_best_epochs_weights_are_kept(shapes: Images, make: Make) -> None:
    # The more it learns, the worse it gets on labels that are all wrong.
    wrong = Images(shapes.pixels, (shapes.labels + 1) % 3, shapes.class_names, "wrong")
    model = make()
    history = fit(model, shapes, replace(CONFIG, epochs=6), validation=wrong, device="cpu")
    accuracies = [e.validation_accuracy or 0 for e in history.epochs]
    assert history.best_epoch == max(range(6), key=lambda i: (accuracies[i], i)) + 1
    assert accuracies[-1] < max(accuracies)
    with torch.no_grad():
        said = model(torch.from_numpy(shapes.pixels) / 255).argmax(1).numpy()
    assert (said == wrong.labels).mean() == pytest.approx(max(accuracies))


def test_validation_may_start_late(shapes: Images, make: Make) -> None:
    config = replace(CONFIG, validate_from=3)
    history = fit(make(), shapes, config, validation=shapes, device="cpu")
    assert [e.validation_accuracy is None for e in history.epochs] == [True, True, False, False]
    assert history.best_epoch >= 3


def test_progress_counts_up_to_the_end(shapes: Images, make: Make) -> None:
    seen: list[FitProgress] = []
    fit(make(), shapes, replace(CONFIG, batch_size=8), progress=seen.append, device="cpu")
    places = [(p.epoch, p.step) for p in seen]
    assert places == sorted(places)
    assert {p.epoch for p in seen} <= {1, 2, 3, 4}
    assert all(p.steps == 30 and p.epochs == 4 for p in seen)
    assert all(np.isfinite(p.loss) and 0 <= p.accuracy <= 1 for p in seen)
    assert all(p.seconds_left >= 0 and p.pictures_per_second > 0 for p in seen)


def test_every_picture_is_seen_once_an_epoch(shapes: Images) -> None:
    class Recorder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(1, 3)
            self.seen: list[int] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                self.seen.extend((x[:, 0, 0, 0] * 255).round().long().tolist())
            return self.linear(x[:, :, 0, 0])

    pixels = np.arange(100, dtype=np.uint8)[:, None, None, None]
    images = Images(pixels, np.arange(100) % 3, ("a", "b", "c"), "numbered")
    model = Recorder()
    fit(model, images, FitConfig(epochs=2, batch_size=33), device="cpu")
    assert sorted(model.seen[:100]) == sorted(model.seen[100:]) == list(range(100))
    assert model.seen[:100] != model.seen[100:]


def test_a_diverged_run_says_so_and_keeps_the_best(shapes: Images, make: Make) -> None:
    model = make()
    config = replace(CONFIG, optimizer="sgd", rate=1e30, schedule="constant", momentum=0.0)
    with pytest.raises(UserError, match="not finite in epoch 1: training diverged"):
        fit(model, shapes, config, device="cpu")


def test_a_checkpoint_of_another_run_is_refused(shapes: Images, make: Make, tmp_path: Path) -> None:
    fit(make(), shapes, replace(CONFIG, epochs=1), directory=tmp_path, device="cpu")
    for config, images, wrong in (
        (replace(CONFIG, epochs=1, batch_size=16), shapes, "another batch_size than 16: got 32"),
        (replace(CONFIG, epochs=1), shapes[:100], "another data than"),
    ):
        with pytest.raises(UserError, match=wrong):
            fit(make(), images, config, directory=tmp_path, resume=True, device="cpu")
    with pytest.raises(UserError, match="doesn't fit the network"):
        fit(
            make(widths=[8, 24]),
            shapes,
            replace(CONFIG, epochs=1),
            directory=tmp_path,
            resume=True,
            device="cpu",
        )


def test_a_damaged_checkpoint_is_named(shapes: Images, make: Make, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1)
    fit(make(), shapes, config, directory=tmp_path, device="cpu")
    path = tmp_path / "checkpoint.safetensors"
    file = TensorFile(path)
    tensors = file.tensors()
    optimizer = next(k for k in tensors if k.startswith("optimizer/"))
    for damaged in (
        {k: v for k, v in tensors.items() if k != "model/network.0.weight"},
        {**tensors, "optimizer/7.0.exp_avg": tensors[optimizer]},
    ):
        write_tensors(path, damaged, file.header)
        with pytest.raises(UserError, match=r"checkpoint\.safetensors doesn't fit"):
            fit(make(), shapes, config, directory=tmp_path, resume=True, device="cpu")
    narrow = next(k for k in tensors if k.startswith("optimizer/") and tensors[k].ndim > 1)
    for changed, header in (
        ({**tensors, narrow: tensors[narrow][:, :1].clone()}, file.header),
        ({k: v for k, v in tensors.items() if not k.startswith("best/")}, file.header),
        (tensors, {k: v for k, v in file.header.items() if k != "epochs"}),
        (tensors, {**file.header, "epochs": "x"}),
        (tensors, {**file.header, "epochs": []}),
        (tensors, {**file.header, "best_epoch": 99}),
        (tensors, {**file.header, "more": 1}),
    ):
        write_tensors(path, changed, header)
        with pytest.raises(UserError, match=r"checkpoint\.safetensors(: | doesn't fit)"):
            fit(make(), shapes, config, directory=tmp_path, resume=True, device="cpu")
    write_tensors(path, tensors)
    with pytest.raises(UserError, match="of another run"):
        fit(make(), shapes, config, directory=tmp_path, resume=True, device="cpu")


def test_loggers_get_every_epoch(shapes: Images, make: Make) -> None:
    told: list[tuple[int, Mapping[str, float]]] = []

    class Told:
        def numbers(self, step: int, values: Mapping[str, float]) -> None:
            told.append((step, values))

        def verdicts(self, found: Sequence[Verdict]) -> None:
            raise AssertionError

    history = fit(make(), shapes, replace(CONFIG, epochs=2), log=[Told()], device="cpu")
    assert [step for step, _ in told] == [1, 2]
    assert [v["train_loss"] for _, v in told] == [e.train_loss for e in history.epochs]
    assert "validation_loss" not in told[0][1]


def test_pictures_that_can_not_be_trained_on_get_one_line(shapes: Images, make: Make) -> None:
    one = Images(shapes.pixels, np.zeros(240, np.int64), shapes.class_names, "same")
    grey = Images(shapes.pixels[:, :1], shapes.labels, shapes.class_names, "grey")
    two = Images(shapes.pixels, shapes.labels % 2, ("a", "b"), "two")
    named = Images(shapes.pixels, shapes.labels, ("x", "y", "z"), "named")
    for images, validation, wrong in (
        (shapes[:0], None, "no images to train on: got patterns"),
        (one, None, "all images are of one class"),
        (two, None, "one logit for each of 2 classes"),
        (shapes, named, "different classes"),
        (shapes, grey, "different shapes"),
        (shapes, shapes[:0], "no images to validate with"),
    ):
        with pytest.raises(UserError, match=wrong):
            fit(make(), images, CONFIG, validation=validation, device="cpu")
    with pytest.raises(UserError, match=r"doesn't take images of shape \[1, 12, 12\]"):
        fit(nn.Conv2d(3, 3, 12), grey, CONFIG, device="cpu")


@pytest.mark.parametrize("name", ["gpu", "tpu:0"])
def test_an_unknown_device_is_refused(shapes: Images, make: Make, name: str) -> None:
    with pytest.raises(UserError, match="unknown device"):
        fit(make(), shapes, CONFIG, device=name)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch size"),
        ({"batch_size": 2.5}, "batch size"),
        ({"rate": float("nan")}, "learning rate"),
        ({"rate": 0.0}, "learning rate"),
        ({"label_smoothing": 1.5}, "label smoothing"),
        ({"target": 99.3}, "target accuracy"),
        ({"optimizer": "adan"}, "did you mean 'adam'"),
        ({"schedule": "cosine"}, "unknown schedule"),
        ({"averaging": "swa"}, "unknown averaging"),
        ({"test_time": "ten-crop"}, "unknown test-time augmentation"),
        ({"precision": "fp8"}, "unknown precision"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_out_of_range_are_named(changes: dict[str, object], wrong: str) -> None:
    with pytest.raises(UserError, match=wrong):
        replace(CONFIG, **changes)  # type: ignore[arg-type]


def test_arrays_and_numbers_of_numpy_are_taken(shapes: Images, make: Make, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=np.int64(1), rate=np.float32(0.01))
    names = [str(i) for i in range(len(shapes.class_names))]
    plain = Images(shapes.pixels, shapes.labels, tuple(names), "your own images")
    found = [
        fit(make(), images, config, validation=images, directory=str(tmp_path / str(i)))
        for i, images in enumerate([plain, (shapes.pixels, shapes.labels)])
    ]
    assert same_figures(*found)
    assert (tmp_path / "1/checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"model": "mnist"}, "fit trains a torch.nn.Module: got str"),
        ({"config": {"epochs": 1}}, "FitConfig: got dict"),
        ({"images": None}, "no labelled images: got NoneType"),
        ({"resume": True}, "nothing to resume from"),
    ],
)
def test_wrong_arguments_get_one_line(shapes: Images, make: Make, change, line: str) -> None:
    given = {"model": make(), "images": shapes, "config": CONFIG, **change}
    with pytest.raises(UserError, match=line):
        fit(**given)
