"""Certified training: its loss is the certificate's, its schedule, and that it trains."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from unmask.cli.main import main
from unmask.data.sources import load_source
from unmask.errors import UserError
from unmask.fool.certify.bounds import differences, interval_differences, intervals
from unmask.fool.certify.classifier import harden_certified
from unmask.fool.certify.loss import (
    interval_logits,
    proved_by_intervals,
    regularised,
    started,
)
from unmask.fool.certify.network import Network
from unmask.fool.certify.region import Region
from unmask.fool.certify.run import certify
from unmask.fool.certify.training import (
    CertifiedEpoch,
    CertifiedProgress,
    CertifiedTraining,
    _Run,
    halved,
    train_certified,
)
from unmask.models.classifier import Classifier
from unmask.models.cnn import build


def small(threshold: float | None = None, normalised: bool = False) -> nn.Module:
    torch.manual_seed(0)
    settings = {"steps": [[4, 3, 1], [4, 4, 2]], "hidden": 8, "threshold": threshold}
    settings["normalised"] = normalised
    return build("stepped_cnn", settings, (1, 6, 6), 3).eval()


def halves(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose left or right half, or neither, is bright: three classes well apart."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 60, (count, 1, 6, 6), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 3
    pixels[labels == 1, :, :, :3] += 190
    pixels[labels == 2, :, :, 3:] += 190
    return pixels, labels


@pytest.mark.parametrize("threshold", [None, 0.5])
@pytest.mark.parametrize("eps", [0.01, 0.2])
def test_the_loss_is_of_the_certificates_own_bounds(eps: float, threshold: float | None) -> None:
    net = small(threshold)
    pixels, labels = halves(9)
    x = pixels.float() / 255
    live = Network.of(net, (1, 6, 6), dtype=None)
    with torch.no_grad():
        worst, boxes = interval_logits(live, (x - eps).clamp(min=0), (x + eps).clamp(max=1), labels)
    region = Region(x.double(), eps)
    relaxed = intervals(Network.of(net, (1, 6, 6)), region)
    bounds = interval_differences(relaxed, differences(labels, 3, region.images))
    others = worst[~torch.nn.functional.one_hot(labels, 3).bool()].reshape(9, 2)
    torch.testing.assert_close(-others.double(), bounds, atol=1e-4, rtol=1e-4)
    assert (worst.gather(1, labels[:, None]) == 0).all()
    for box, known in zip(boxes, relaxed.inputs.values(), strict=True):
        torch.testing.assert_close(box.lower.double(), known.lower, atol=1e-4, rtol=1e-4)


def test_a_step_is_that_of_plain_adam() -> None:
    torch.manual_seed(0)
    pixels, labels = halves(24)
    plan = CertifiedTraining(eps=0.2, batch_size=8, epochs=2, warmup=0.5)
    run = _Run(small(), pixels, labels, plan)
    other = copy.deepcopy(run.module)
    network = Network.of(other, (1, 6, 6), dtype=None)
    weights = [p for p in other.parameters() if p.requires_grad]
    adam = torch.optim.Adam(weights, foreach=False, fused=False)
    for step in range(6):
        if step % 3 == 0:
            run.begin(step // 3)
        run.step(step)
        eps, clean, weight, rate, _ = run.knobs.tolist()
        x, y = pixels[run.rows].float() / 255, labels[run.rows]
        lower, upper = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
        worst, boxes = interval_logits(network, lower, upper, y)
        loss = clean * torch.nn.functional.cross_entropy(other(x), y)
        loss = loss + (1 - clean) * torch.nn.functional.cross_entropy(worst, y)
        loss = loss + weight * regularised((upper - lower) / 2, boxes)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 10.0)
        adam.param_groups[0]["lr"] = rate
        adam.step()
        for mine, theirs in zip(run.parameters, weights, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


def test_batch_normalisation_of_points_is_that_of_pytorch() -> None:
    net = small(normalised=True)
    twin = copy.deepcopy(net).train()
    pixels, labels = halves(24)
    x = pixels.float() / 255
    live = Network.of(net, (1, 6, 6), dtype=None)
    worst, boxes = interval_logits(live, x, x, labels, learning=True)
    logits = twin(x)
    apart = logits - logits.gather(1, labels[:, None])
    torch.testing.assert_close(worst, apart, atol=1e-5, rtol=1e-4)
    assert not any(box.radius.any() for box in boxes)
    for mine, theirs in zip(net.buffers(), twin.buffers(), strict=True):
        if mine.is_floating_point() and mine.ndim:
            # PyTorch's running variance is unbiased.
            torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=0.05)
    torch.nn.functional.cross_entropy(worst, labels).backward()
    torch.nn.functional.cross_entropy(logits, labels).backward()
    for own, other in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, atol=1e-5, rtol=1e-3)


def test_a_normalised_box_holds_what_its_points_become() -> None:
    net = small(normalised=True)
    pixels, labels = halves(12)
    x = pixels.float() / 255
    live = Network.of(net, (1, 6, 6), dtype=None)
    conv, norm = net[0], net[1]
    with torch.no_grad():
        # Some gains are negative.
        norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5, -0.1]))
        boxes = interval_logits(live, x - 0.1, x + 0.1, labels, learning=True)[1]
        scale = norm.weight / conv(x).std((0, 2, 3), unbiased=False)[None]
        mean = conv(x).mean((0, 2, 3))
        for _ in range(50):
            point = conv(x + 0.1 * (2 * torch.rand_like(x) - 1))
            value = ((point.movedim(1, 3) - mean) * scale).movedim(3, 1)
            assert (value >= boxes[0].lower - 1e-4).all()
            assert (value <= boxes[0].upper + 1e-4).all()


def test_a_normalised_network_is_proved_as_it_was_trained() -> None:
    pixels, labels = halves(96)
    plan = CertifiedTraining(eps=0.1, epochs=12, batch_size=24, learning_rate=5e-3, averaging=10)
    last, average, end = train_certified(small(normalised=True), pixels, labels, plan)
    for net in (last, average):
        clean, proved = proved_by_intervals(net, pixels, labels, 0.1)
        assert clean >= proved > 0.8
    assert end.proved > 0.8


@given(warmup=st.floats(0.05, 0.9))
def test_eps_grows_without_a_step_and_reaches_its_margin(warmup: float) -> None:
    pixels, labels = halves(3)
    plan = CertifiedTraining(eps=0.2, margin=1.5, warmup=warmup, batch_size=3)
    run = _Run(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), pixels, labels, plan)
    values = [run.eps(i / 400) for i in range(401)]
    assert values[0] == 0
    assert values[-1] == pytest.approx(0.3)
    steps = [b - a for a, b in pairwise(values)]
    assert min(steps) >= -1e-12
    assert max(steps) <= 0.3 * 4 / 400 / warmup


def test_small_weights_keep_boxes_from_growing() -> None:
    torch.manual_seed(0)
    net = build("stepped_cnn", {"steps": [[64, 3, 1]] * 4, "hidden": 64}, (1, 8, 8), 2)
    x = torch.full((1, 1, 8, 8), 0.5)
    growth = {}
    for small in (True, False):
        started(net, small=small)
        with torch.no_grad():
            live = Network.of(net.eval(), (1, 8, 8), dtype=None)
            _, boxes = interval_logits(live, x - 0.1, x + 0.1, torch.zeros(1, dtype=torch.int64))
        growth[small] = float(boxes[-1].radius.mean() / boxes[0].radius.mean())
    assert growth[True] < 3
    assert growth[False] > 10 * growth[True]


def test_a_threshold_is_a_ramp_that_training_leaves_as_it_is() -> None:
    net = small(0.4)
    ramp = nn.Sequential(*list(net)[:2])
    greys = torch.tensor([0.0, 0.34, 0.35, 0.4, 0.425, 0.45, 0.46, 1.0])
    wanted = torch.tensor([0.0, 0.0, 0.0, 0.5, 0.75, 1.0, 1.0, 1.0])
    torch.testing.assert_close(ramp(greys.reshape(8, 1, 1, 1)).flatten(), wanted)
    before = [p.clone() for p in ramp.parameters()]
    last, average, _ = train_certified(
        net, *halves(48), CertifiedTraining(eps=0.1, epochs=1, batch_size=24)
    )
    for trained in (last, average):
        assert all(map(torch.equal, before, list(trained.parameters())[:2]))


@pytest.mark.slow
def test_it_trains_to_proofs() -> None:
    pixels, labels = halves(240)
    # Of four seeds each, all proved every image after 30 and after 60 epochs.
    plan = CertifiedTraining(eps=0.15, epochs=45, batch_size=24, learning_rate=5e-3, averaging=20)
    told: list[float] = []
    last, average, end = train_certified(
        small(), pixels, labels, plan, progress=lambda p: told.append(p.eps)
    )
    assert end.epoch == 45
    assert len(told) >= 45
    assert told == sorted(told)
    for net in (last, average):
        clean, proved = proved_by_intervals(halved(net), pixels, labels, plan.eps)
        assert proved <= clean
        assert proved > 0.9


def test_a_run_that_is_cut_off_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Run, "seconds_between_saves", 0.0)
    pixels, labels = halves(48)
    plan = CertifiedTraining(eps=0.1, epochs=3, batch_size=24, averaging=5)

    def run(folder: str, **more: Any) -> tuple[nn.Module, nn.Module, CertifiedEpoch]:
        return train_certified(small(), pixels, labels, plan, directory=tmp_path / folder, **more)

    def stop(p: CertifiedProgress) -> None:
        if p.epoch == 3:
            raise KeyboardInterrupt

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("parts", progress=stop)
    parts = run("parts", resume=True)
    for one, other in zip(whole[:2], parts[:2], strict=True):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name
    assert replace(parts[2], seconds=0.0) == replace(whole[2], seconds=0.0)
    with pytest.raises(UserError, match="has its epochs already"):
        run("parts", resume=True, minutes=1.0)


@pytest.mark.slow
def test_the_minutes_bound_the_epochs() -> None:
    pixels, labels = halves(240)
    plan = CertifiedTraining(eps=0.1, batch_size=24)
    _, _, end = train_certified(small(), pixels, labels, plan, minutes=0.02)
    assert end.epoch >= 1
    assert end.seconds < 30


def test_half_precision_holds_the_copy() -> None:
    net = small()
    stored = halved(net)
    for mine, theirs in zip(stored.parameters(), net.parameters(), strict=True):
        if mine.ndim > 1:
            assert (mine == theirs.half().float()).all()
        else:
            assert (mine == theirs).all()


@pytest.mark.parametrize(
    ("changes", "words"), [({"eps": 8.0}, "eps is no size"), ({"epochs": 0}, "nothing to train")]
)
def test_settings_that_cant_be_are_refused(changes: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        CertifiedTraining(**changes)  # type: ignore[arg-type]
    pixels, labels = halves(3)
    with pytest.raises(UserError, match="fewer images than one batch"):
        train_certified(small(), pixels, labels, CertifiedTraining())


def test_the_command_trains_for_proofs_and_certify_gives_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "data", tmp_path / "out"
    for i, (image, label) in enumerate(zip(*halves(90), strict=True)):
        place = folder / f"class{int(label)}"
        place.mkdir(parents=True, exist_ok=True)
        wide = image[0].repeat_interleave(2, 0).repeat_interleave(2, 1)
        PIL.Image.fromarray(wide.numpy()).convert("RGB").save(place / f"{i}.png")
    line = ["fool", "harden", str(folder), "--certified", "--size", "12", "--eps", "0.05"]
    black_and_white = ["--threshold", "0.5"]
    assert (
        main([*line, *black_and_white, "--epochs", "8", "--half", "--out", str(out), "--json"]) == 0
    )
    card = json.loads(capsys.readouterr().out)["card"]
    assert card["settings"]["threshold"] == 0.5
    assert card["facts"]["recipe"]["name"] == "certified"
    assert card["facts"]["recipe"]["epochs"] == 8
    figures = card["facts"]["figures"]
    assert 0 <= figures["validation_proved_by_intervals"] <= figures["validation_accuracy"] <= 1
    model = Classifier.load(out / "model")
    pixels = load_source(str(folder), shape=(3, 12, 12)).train
    _, proved = proved_by_intervals(
        model.network, torch.from_numpy(pixels.pixels), torch.from_numpy(pixels.labels), 0.05
    )
    found = certify(model, pixels, eps=0.05, minutes=0.5, images=len(pixels))
    assert found.count("proved") >= proved * len(pixels) - 1
    assert main([*line, "--norm", "l2", "--out", str(out)]) == 2
    assert "linf alone" in capsys.readouterr().err
    with pytest.raises(UserError, match="no grey"):
        harden_certified(pixels, CertifiedTraining(), out=out, threshold=1.0)
