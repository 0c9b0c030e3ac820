"""Adversarial training: what is learnt from, what is kept, and that it withstands more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unmask.data.images import Images
from unmask.data.mnist import load_mnist
from unmask.errors import UserError
from unmask.fool.harden import Hardening, harden, hardening_recipe
from unmask.fool.norms import Threat
from unmask.fool.victim import Victim
from unmask.train.config import FitConfig
from unmask.train.fit import fit
from unmask.train.recipes import prepared


def bars(count: int, seed: int) -> Images:
    """A faint pattern over all pixels tells the class, and so do two bright bars.

    The faint one is easier to learn from and gone under changes of 0.1; the bars are not.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    pixels = 0.5 + 0.15 * rng.standard_normal((count, 1, 8, 8))
    faint = np.where(np.random.default_rng(0).random((8, 8)) < 0.5, -1, 1) * 0.06
    pixels += (2 * labels - 1)[:, None, None, None] * faint
    for i, label in enumerate(labels):
        pixels[i, 0, :, :2] = 0.9 if label else 0.1
    shown = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
    return Images(shown, labels.astype(np.int64), ("dark", "bright"), "bars")


def hardening(**settings: Any) -> Hardening:
    return Hardening(Threat.parse("linf:0.1"), bars(40, 9), **settings)


@pytest.mark.parametrize("mode", [True, False])
def test_an_attack_leaves_running_statistics_and_the_mode_as_they_are(mode: bool) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    model.train(mode)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    images = bars(16, 1)
    pixels = torch.from_numpy(images.pixels).float() / 255
    labels = torch.from_numpy(images.labels)
    hardening().attacked(model, pixels, labels, part=1.0)
    assert model.training == mode
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("threat", ["linf:0.1", "l2:0.8"])
def test_what_is_learnt_from_stays_within_the_ball_and_raises_the_loss(
    steps: int, threat: str
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    images = bars(32, 1)
    pixels = torch.from_numpy(images.pixels).float() / 255
    labels = torch.from_numpy(images.labels)
    h = Hardening(Threat.parse(threat), bars(8, 2), margin=1.5, steps=steps, warmup=0.5)
    attacked = h.attacked(model, pixels, labels, part=1.0)
    assert not attacked.requires_grad
    assert 0 <= float(attacked.min()) <= float(attacked.max()) <= 1
    size = h.threat.norm.size(attacked - pixels)
    assert float(size.max()) <= 1.5 * h.threat.bound * (1 + 1e-5)

    @torch.no_grad()
    def loss(x: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(x), labels)

    assert float(loss(attacked)) > float(loss(pixels))
    # The change grows with the run: a tenth of the way there is a fifth of it.
    early = h.threat.norm.size(h.attacked(model, pixels, labels, part=0.1) - pixels)
    assert float(early.max()) <= 0.2 * 1.5 * h.threat.bound * (1 + 1e-5)
    assert torch.equal(h.attacked(model, pixels, labels, part=0.0), pixels)


def test_accuracy_under_attack_has_a_closed_form() -> None:
    # Says "bright" where the mean exceeds 1/2: whatever is nearer than eps to it falls.
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(10.0))

        def forward(self, pixels: Tensor) -> Tensor:
            above = self.scale * (pixels.flatten(1).mean(1) - 0.5)
            return torch.stack([torch.zeros_like(above), above], 1)

    levels = np.array([100, 110, 140, 150, 160, 90], np.uint8)
    pixels = np.broadcast_to(levels[:, None, None, None], (6, 1, 4, 4)).copy()
    labels = np.array([0, 0, 1, 1, 1, 1])
    guard = Images(pixels, labels, ("dark", "bright"), "levels")
    # 100, 150 and 160 are over 0.08 away from 127.5 (20.4 of 255); 110 and 140 aren't; 90 is wrong.
    assert Hardening(Threat.parse("linf:0.08"), guard).accuracy(Mean()) == pytest.approx(3 / 6)


def halved(images: Images) -> Images:
    """Every other pixel of every other row."""
    pixels = np.ascontiguousarray(images.pixels[:, :, ::2, ::2])
    return Images(pixels, images.labels, images.class_names, "halved")


def test_hardened_beats_plain_under_attack(tmp_path: Path) -> None:
    train, test = load_mnist()
    images, test = halved(train[:1000]), halved(test[:100])
    threat = Threat.parse("linf:0.2")
    hard = harden(images, threat, out=tmp_path, test=test, epochs=5, steps=2, device="cpu")
    assert hard.history.best is not None
    best = max(e.validation_attacked or 0 for e in hard.history.epochs)
    assert hard.history.best.validation_attacked == best
    plain = prepared(hardening_recipe(5), images, seed=0)
    fit(plain, images, hardening_recipe(5).config, device="cpu")
    under_attack = Hardening(threat, test)
    assert under_attack.accuracy(hard.classifier) > under_attack.accuracy(plain) + 0.2
    facts = hard.classifier.card.facts
    assert facts["adversary"]["eps"] == 0.2
    assert facts["figures"]["validation_attacked_accuracy"] == best


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    for name in ("one", "two"):
        harden(bars(80, 3), Threat.parse("linf:0.1"), out=tmp_path / name, epochs=2, device="cpu")
    first, second = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


class Scripted:
    """An adversary that changes nothing and reports what it is told to."""

    def __init__(self, *accuracies: float) -> None:
        self.left = list(accuracies)

    def attacked(self, model: nn.Module, pixels: Tensor, labels: Tensor, *, part: float) -> Tensor:
        return pixels

    def accuracy(self, model: nn.Module) -> float:
        return self.left.pop(0)

    def as_dict(self) -> dict[str, Any]:
        return {}


def test_a_collapse_ends_the_run_and_the_best_epoch_is_kept() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    config = FitConfig(epochs=6, batch_size=32, precision="fp32")
    history = fit(model, bars(64, 1), config, adversary=Scripted(0.2, 0.8, 0.7, 0.39, 0.9, 0.9))
    assert history.ended == "collapsed"
    assert (len(history.epochs), history.best_epoch) == (4, 2)


def test_a_slow_start_is_no_collapse() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    config = FitConfig(epochs=4, batch_size=32, precision="fp32")
    history = fit(model, bars(64, 1), config, adversary=Scripted(0.2, 0.0, 0.1, 0.6))
    assert (history.ended, history.best_epoch) == ("finished", 4)


def test_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    def run(epochs: int, folder: Path, *, resume: bool = False) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        config = FitConfig(epochs=epochs, batch_size=32, schedule="constant", precision="fp32")
        adversary = hardening(steps=1, warmup=0.0)
        fit(model, bars(96, 1), config, adversary=adversary, directory=folder, resume=resume)
        return model.state_dict()

    def stop(*_: object) -> float:
        raise KeyboardInterrupt

    whole = run(3, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        calls: list[int] = []
        accuracy = Hardening.accuracy
        patch.setattr(
            Hardening,
            "accuracy",
            lambda self, model: (
                stop() if len(calls) == 2 else calls.append(1) or accuracy(self, model)
            ),
        )
        with pytest.raises(KeyboardInterrupt):
            run(3, tmp_path / "part")
    resumed = run(3, tmp_path / "part", resume=True)
    assert all(torch.equal(v, resumed[k]) for k, v in whole.items())


@pytest.mark.parametrize(
    ("settings", "line"),
    [({"steps": 0}, "attack steps must be 1 or more"), ({"margin": 0.0}, "the margin must be")],
)
def test_bad_settings(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        hardening(**settings)
    with pytest.raises(UserError, match="how large a change may be"):
        Hardening(Threat.parse("linf"), bars(8, 2))


def test_the_network_is_as_large_as_it_says() -> None:
    model = prepared(hardening_recipe(1), load_mnist()[1][:50], seed=0)
    convolutions = (16 * 1 * 32 + 32) + (16 * 32 * 64 + 64)
    dense = (7 * 7 * 64 * 256 + 256) + (256 * 10 + 10)
    assert sum(p.numel() for p in model.parameters()) == convolutions + dense
    assert model(torch.rand(3, 1, 28, 28)).shape == (3, 10)
    with pytest.raises(UserError, match="too small for this network"):
        prepared(hardening_recipe(1), Images(*_dots(), ("a", "b"), "dots"), seed=0)


def _dots() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((4, 1, 3, 3), np.uint8), np.array([0, 1, 0, 1])


def test_a_threshold_hides_no_gradient_from_the_attack() -> None:
    # Pixels of 0.3 and 0.7 are 0 and 1 behind the ramp from 0.45 to 0.55, on which none lies; with
    # 0.3 of change every one can be either, and the worst case of a linear layer is the sum of what
    # each adds at its worse end.
    torch.manual_seed(0)
    ramp = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        ramp.weight.fill_(10.0)
        ramp.bias.fill_(-4.5)  # type: ignore[union-attr]
    model = nn.Sequential(ramp, nn.Hardtanh(0.0, 1.0), nn.Flatten(), nn.Linear(64, 2))
    drawn = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    pixels, labels = torch.where(drawn < 0.5, 0.3, 0.7), torch.arange(16) % 2
    linear = model[3]
    gap = linear.weight[1] - linear.weight[0]
    lowest = gap.clamp(max=0).sum() + linear.bias[1] - linear.bias[0]
    highest = gap.clamp(min=0).sum() + linear.bias[1] - linear.bias[0]
    worst = nn.functional.softplus(torch.where(labels == 1, -lowest, highest)).detach()
    victim = Victim.of(model)
    victim.look(pixels)
    seeing = hardening(margin=3.0, steps=3, visible=victim.visible)
    attacked = seeing.attacked(model, pixels, labels, part=1.0)
    assert float((attacked - pixels).abs().max()) <= 0.3 + 1e-6
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model(attacked), labels, reduction="none")
    torch.testing.assert_close(loss, worst, rtol=1e-3, atol=1e-4)


def test_harden_with_a_threshold_takes_pixels_as_they_are(tmp_path: Path) -> None:
    threat = Threat.parse("linf:0.1")
    made = harden(bars(80, 3), threat, out=tmp_path, epochs=1, threshold=0.5, device="cpu")
    card = made.classifier.card
    assert (card.architecture, card.settings["threshold"]) == ("stepped_cnn", 0.5)
    assert (card.mean, card.std) == ((0.0,), (1.0,))
    assert card.facts["adversary"]["visible"] == pytest.approx([0.45, 0.55], abs=1e-4)
    with pytest.raises(UserError, match="no grey"):
        harden(bars(80, 3), threat, out=tmp_path / "white", threshold=1.0)
