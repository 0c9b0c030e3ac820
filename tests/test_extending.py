"""What docs/extending.md says: an activation, an attack, a verdict or a dataset is added in one
place, and all that is there makes use of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unmask.data.images import Images
from unmask.data.sources import NAMED, Source, load_source
from unmask.errors import UserError
from unmask.flow.judge import verdicts
from unmask.flow.measure.statistics import FlowStats, LayerStats
from unmask.flow.theory import critical_sigma_w2
from unmask.fool.attacks import ATTACKS, AttackSpec
from unmask.fool.audit.plan import AuditPlan
from unmask.fool.audit.run import run_audit
from unmask.fool.goal import Goal
from unmask.fool.norms import Threat
from unmask.fool.outcome import Adversarials
from unmask.fool.victim import Victim
from unmask.models.activations import ACTIVATIONS, IN_KERNEL, Activation
from unmask.sweep.engine import train_sweep
from unmask.sweep.spec import NetSpec
from unmask.verdict import Verdict


def made_up_pictures(n: int = 40) -> Images:
    labels = np.arange(n) % 2
    pixels = (
        np.random.default_rng(0).integers(0, 100, (n, 1, 4, 4)) + 120 * labels[:, None, None, None]
    )
    return Images(pixels.astype(np.uint8), labels.astype(np.int64), ("dark", "bright"), "made up")


@pytest.fixture
def doubled(monkeypatch: pytest.MonkeyPatch) -> str:
    """tanh(2 x), whose critical line is that of tanh with a quarter of the weights' variance."""
    twice = Activation(
        "twice",
        "tanh(2x)",
        lambda x: (2 * x).tanh(),
        lambda x: 2 - 2 * (2 * x).tanh() ** 2,
        0.0,
        2.0,
    )
    monkeypatch.setitem(ACTIVATIONS, "twice", twice)
    return "twice"


def test_a_new_activation_is_known_to_the_theory(doubled: str) -> None:
    # With v' = 2 v both variances are scaled by four.
    plain = critical_sigma_w2("tanh", sigma_b2=0.2)
    assert critical_sigma_w2(doubled, sigma_b2=0.05) == pytest.approx(plain / 4, rel=1e-6)


def test_a_new_activation_trains_in_sweeps(doubled: str) -> None:
    spec = NetSpec(depth=2, width=8, activation=doubled, epochs=3, batch_size=8, learning_rate=0.1)
    history = train_sweep([spec], made_up_pictures(), engine="stacked")
    assert history.curves["train_loss"][0, -1] < history.curves["train_loss"][0, 0]


def test_the_kernel_refuses_an_activation_that_it_has_not(doubled: str) -> None:
    spec = NetSpec(depth=2, width=8, activation=doubled, epochs=1, batch_size=8)
    with pytest.raises(UserError, match="kernel has no such activation"):
        train_sweep([spec], made_up_pictures(), engine="native")


def test_the_kernel_has_no_activation_of_its_own() -> None:
    assert set(IN_KERNEL) <= set(ACTIVATIONS)


def opposite(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    *,
    generator: torch.Generator,
    steps: int = 7,
) -> Adversarials:
    """Move every pixel as far as allowed towards the other end of its range."""
    opposite.steps = steps
    moved = torch.where(pixels < 0.5, pixels + threat.bound, pixels - threat.bound)
    return Adversarials(moved, torch.ones(len(pixels), dtype=torch.int64))


@pytest.mark.slow
def test_a_new_attack_is_run_by_the_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = AttackSpec(
        "opposite", opposite, ("linf",), needs_gradient=False, bounded=True, budget="steps"
    )
    monkeypatch.setitem(ATTACKS, "opposite", spec)

    class Brightness(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            mean = pixels.flatten(1).mean(1)
            return torch.stack([0.45 - mean, mean - 0.45], 1)

    plan = AuditPlan(eps=(0.45,), attacks=("opposite",), images=20, pairs=0, steps=3)
    done = run_audit(Victim.of(Brightness().eval(), "brightness"), made_up_pictures(), plan)
    assert opposite.steps == 3
    assert done.figures()["clean_accuracy"] == 1
    assert done.figures()["robust_accuracy"] < 0.1


def test_a_new_verdict_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def narrow(history: list[FlowStats]) -> Verdict | None:
        thin = [x for x in history[0].matrix_layers if x.output_size == 1]
        return (
            Verdict("bottleneck", "error", "one unit", "widen it", subject=thin[0].name)
            if thin
            else None
        )

    monkeypatch.setattr(verdicts, "_JUDGES", list(verdicts._JUDGES))
    verdicts.register_judge(narrow)
    layer = LayerStats("a", "Linear", matrix=True, frozen=False, fan_in=4, output_size=1)
    stats = FlowStats(0, (layer, replace(layer, name="b", output_size=8)))
    assert [(v.kind, v.subject) for v in verdicts.verdicts(stats)] == [("bottleneck", "a")]


def test_a_new_dataset_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_place: Path | None, _progress: object) -> Source:
        return Source("pictures", made_up_pictures(), None, None, "CC0")

    monkeypatch.setitem(NAMED, "dark-bright", load)
    assert load_source("dark-bright").train.class_names == ("dark", "bright")
    with pytest.raises(UserError, match="dark-bright"):
        load_source("nothing of the kind")
