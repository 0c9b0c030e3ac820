"""Audits and grids whose shards are attacked elsewhere: the same bits, and failures by name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from travelling import Elsewhere, tiny, tiny_pictures

from unmask.errors import UserError
from unmask.fool.audit.plan import AuditPlan
from unmask.fool.audit.result import Audit
from unmask.fool.audit.run import run_audit
from unmask.fool.grid import Grid, fool_grid
from unmask.fool.norms import Threat
from unmask.fool.source import load_victim
from unmask.fool.victim import Victim
from unmask.models.checkpoint import write_tensors
from unmask.models.classifier import Classifier

PLAN = AuditPlan(
    eps=(0.1,), attacks=("pgd", "fmn"), images=24, pairs=1, steps=6, queries=5, shard=8
)
MODULE = """
import torch

def make() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(784, 10))
"""


def subject_of_audits() -> Victim:
    victim = Victim.of(tiny().eval(), "tiny")
    victim.made_from = "travelling:tiny"
    return victim


def audited(**settings: Any) -> Audit:
    return run_audit(subject_of_audits(), tiny_pictures(60), PLAN, **settings)


def same(mine: Audit, theirs: Audit) -> bool:
    assert mine.pairs is not None
    assert theirs.pairs is not None
    for part in ("worst", "pairs"):
        for name, values in getattr(mine, part).__dict__.items():
            np.testing.assert_array_equal(values, getattr(getattr(theirs, part), name))
    np.testing.assert_array_equal(mine.examples, theirs.examples)
    return mine.records == theirs.records


def test_an_audit_elsewhere_has_the_same_bits() -> None:
    on, here = Elsewhere(), audited()
    assert same(audited(on=on), here)
    # Three shards, and one task of images towards every class.
    assert on.ran == 4
    assert here.failures == ()


def test_a_shard_that_fails_is_named_and_made_on_resuming(tmp_path: Path) -> None:
    whole = audited()
    part = audited(directory=tmp_path, on=Elsewhere(lost=[1]))
    assert len(part.worst) == 16
    assert part.pairs is None
    assert part.failures == ("shard 1 (8 images): its worker was lost: made up",)
    (warning,) = [f for f in part.verdicts if f.kind == "incomplete"]
    assert "shard 1" in warning.message
    part.save(tmp_path / "audit.npz")
    assert Audit.load(tmp_path / "audit.npz").failures == part.failures
    again = Elsewhere()
    resumed = audited(directory=tmp_path, resume=True, on=again)
    assert again.ran == 2
    assert same(resumed, whole)


def test_pairs_that_fail_are_named() -> None:
    class PairsLost(Elsewhere):
        def run(self, work, shared, tasks):  # type: ignore[no-untyped-def]
            self.lost = {0} if work.__name__ == "_paired" else set()
            return super().run(work, shared, tasks)

    found = audited(on=PairsLost())
    assert found.pairs is None
    assert len(found.worst) == 24
    assert found.failures == ("pairs 0 (1 image): its worker was lost: made up",)


def test_an_audit_of_nothing_is_no_audit() -> None:
    with pytest.raises(UserError, match=r"no image could be attacked.*shard 0"):
        audited(on=Elsewhere(lost=range(3)))


def grid(on: Elsewhere | None = None) -> Grid:
    shown = tiny_pictures(90)
    return fool_grid(
        subject_of_audits(),
        torch.from_numpy(shown.pixels).float() / 255,
        torch.from_numpy(shown.labels),
        names=[str(i) for i in range(90)],
        title="noise",
        threat=Threat.parse("linf:0.3"),
        on=on,
        stamp={},
    )


def test_a_grid_elsewhere_has_the_same_bits() -> None:
    here, there = grid(), grid(Elsewhere())
    np.testing.assert_array_equal(here.changed, there.changed)
    np.testing.assert_array_equal(here.outcome.steps, there.outcome.steps)
    assert here.cost == there.cost
    assert here.failures == there.failures == ()


def test_pairs_of_a_grid_that_fail_are_named_and_unchanged() -> None:
    here, there = grid(), grid(Elsewhere(lost=[1]))
    assert there.failures == ("pairs 65 to 90: its worker was lost: made up",)
    np.testing.assert_array_equal(there.changed[:64], here.changed[:64])
    np.testing.assert_array_equal(there.changed[64:], there.originals[there.rows[64:]])
    assert there.as_dict()["failures"] == list(there.failures)
    with pytest.raises(UserError, match="no image could be attacked"):
        grid(Elsewhere(lost=[0, 1]))


def travelled(subject: Victim) -> None:
    """Check that what arrives answers as what left, to the bit."""
    arrived = copy.deepcopy(subject)
    assert arrived is not subject
    assert arrived.function is not subject.function
    assert (arrived.name, arrived.kind, arrived.identity) == (
        subject.name,
        subject.kind,
        subject.identity,
    )
    shown = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        arrived.fresh(10).logits(shown), subject.fresh(10).logits(shown), rtol=0, atol=0
    )


def test_a_classifier_travels_as_its_card_and_weights() -> None:
    travelled(load_victim("mnist"))


def test_a_network_travels_as_its_import_path_and_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_here.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # Drawn anew wherever it is made, so that only its weights make it the same network.
    travelled(load_victim("made_here:make"))
    weights = {"2.weight": torch.randn(10, 784), "2.bias": torch.randn(10)}
    write_tensors(tmp_path / "w.safetensors", weights)
    travelled(load_victim("made_here:make", weights=tmp_path / "w.safetensors"))


def test_the_modes_travel_too() -> None:
    classifier = Classifier.load("mnist")
    next(iter(classifier.network.children())).train()
    arrived = copy.deepcopy(Victim.of(classifier))
    assert arrived.module is not None
    assert [m.training for m in arrived.module.modules()] == [
        m.training for m in classifier.modules()
    ]


def test_what_cannot_be_made_elsewhere_says_so() -> None:
    with pytest.raises(UserError, match="this network can't travel"):
        copy.deepcopy(Victim.of(torch.nn.Linear(2, 2)))
    box = Victim(lambda x: x, differentiable=False)
    with pytest.raises(UserError, match="this black box can't travel"):
        copy.deepcopy(box)
    lost = Victim.of(torch.nn.Linear(2, 2))
    lost.made_from = "no_such_module_here:make"
    with pytest.raises(UserError, match="there is no module no_such_module_here"):
        copy.deepcopy(lost)
