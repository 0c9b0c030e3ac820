"""Audits, grids and repairs on a real Ray: the same results as in this process.

Bits are compared in test_elsewhere.py: a library's rounding may differ between processes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from travelling import tiny_pictures

from unmask.data.mnist import load_mnist
from unmask.errors import UserError
from unmask.execution.address import executor_at
from unmask.execution.executor import Executor
from unmask.flow.repair import repair
from unmask.fool.audit.plan import AuditPlan
from unmask.fool.audit.run import run_audit
from unmask.fool.grid import fool_grid
from unmask.fool.norms import Threat
from unmask.fool.source import load_victim
from unmask.fool.victim import Victim

pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def on() -> Iterator[Executor]:
    # A path to a socket must be short.
    folder = tempfile.mkdtemp(prefix="ray")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "PYTHONPATH": str(Path(__file__).parent),
            "RAY_ADDRESS": "local",
            "RAY_AUTH_MODE": "disabled",
            "RAY_TMPDIR": folder,
            "RAY_raylet_start_wait_time_s": "120",
            "RAY_worker_register_timeout_seconds": "300",
        }.items():
            patch.setenv(name, value)
        with executor_at("ray") as started:
            yield started
    shutil.rmtree(folder, ignore_errors=True)


def close(mine: Any, theirs: Any) -> None:
    if isinstance(mine, np.ndarray) and mine.dtype.kind != "f":
        np.testing.assert_array_equal(mine, theirs)
    else:
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_an_audit(on: Executor, tmp_path: Path) -> None:
    subject, images = load_victim("mnist"), load_mnist()[1]
    plan = AuditPlan(attacks=("pgd",), images=30, pairs=1, steps=4, shard=10)
    here = run_audit(subject, images, plan)
    there = run_audit(subject, images, plan, on=on, directory=tmp_path)
    assert here.pairs is not None
    assert there.pairs is not None
    for part in ("worst", "pairs"):
        for name, values in getattr(here, part).__dict__.items():
            close(values, getattr(getattr(there, part), name))
    assert here.examples.shape == there.examples.shape
    assert [r.name for r in here.records] == [r.name for r in there.records]
    assert len(list(tmp_path.glob("shards/*.npz"))) == 4


def test_a_grid(on: Executor) -> None:
    images = load_mnist()[1][:8]
    given = {
        "names": [str(i) for i in range(8)],
        "title": "digits",
        "threat": Threat.parse("linf:0.3"),
        "stamp": {},
    }
    pixels, labels = torch.from_numpy(images.pixels).float() / 255, torch.from_numpy(images.labels)
    subject = load_victim("mnist")
    here, there = (fool_grid(subject, pixels, labels, on=o, **given) for o in (None, on))  # type: ignore[arg-type]
    # On 8 bits, so that rounding moves few pixels, and those by one level.
    assert here.changed.shape == there.changed.shape
    apart = np.abs(here.changed.astype(float) - there.changed.astype(float))
    assert (apart > 1e-3).mean() < 0.01
    assert here.cost == there.cost


def test_what_cannot_travel_says_so(on: Executor) -> None:
    with pytest.raises(UserError, match="this network can't travel"):
        run_audit(
            Victim.of(nn.Sequential(nn.Flatten(), nn.Linear(16, 2))),
            tiny_pictures(20),
            AuditPlan(attacks=("pgd",), pairs=0, steps=2),
            on=on,
        )


def test_a_repair(on: Executor) -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(32, 20, generator=generator), torch.randint(4, (32,), generator=generator))
        for _ in range(4)
    ]
    layers: list[nn.Module] = []
    for i in range(8):
        linear = nn.Linear(20 if i == 0 else 24, 24)
        nn.init.normal_(linear.weight, 0, 0.2 / linear.in_features**0.5, generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
    torch.manual_seed(0)
    model = nn.Sequential(*layers, nn.Linear(24, 4))

    def sgd(parameters):  # type: ignore[no-untyped-def]
        return torch.optim.SGD(parameters, lr=0.05)

    loss = nn.functional.cross_entropy
    here, there = (repair(model, loss, batches, sgd, steps=20, on=o) for o in (None, on))
    assert there == here
    assert there.failures == ()
    assert len(there.trials) > 3
