"""Audits of linear models whose every smallest change is known; resuming; memory; gates."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import unmask
from unmask.data.images import Images
from unmask.errors import UserError
from unmask.fool.audit import run as run_module
from unmask.fool.audit.gate import Gate
from unmask.fool.audit.plan import AuditPlan
from unmask.fool.audit.records import read_arrays, write_arrays
from unmask.fool.audit.result import Audit, Share, figure_names
from unmask.fool.audit.run import run_audit
from unmask.fool.audit.shard import attack_shard
from unmask.fool.norms import NORMS
from unmask.fool.victim import Victim

CLASSES = 2


class Plane(nn.Module):
    """Logits weights (x - 1/2), of images near 1/2, where nothing is clipped."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.weights = nn.Parameter(torch.randn(CLASSES, 16, generator=generator))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - 0.5).flatten(1) @ self.weights.T


def pictures(count: int = 40, wrong: int = 4) -> Images:
    """Images with the model's own classes for labels, but for the first few."""
    pixels = np.random.default_rng(2).integers(96, 160, (count, 1, 4, 4)).astype(np.uint8)
    with torch.no_grad():
        labels = Plane()(torch.from_numpy(pixels).float() / 255).argmax(1).numpy()
    labels[:wrong] = (labels[:wrong] + 1) % CLASSES
    return Images(pixels, labels.astype(np.int64), ("a", "b"), "planes")


def smallest(images: Images, norm: str) -> np.ndarray:
    weights = Plane().weights.detach().double().numpy()
    logits = (images.pixels.reshape(len(images), 16) / 255 - 0.5) @ weights.T
    own = logits[np.arange(len(images)), images.labels][:, None]
    order = {"l2": 2, "linf": 1}[norm]
    apart = np.linalg.norm(weights[images.labels][:, None] - weights, ord=order, axis=2)
    away = np.where(apart > 0, (own - logits) / np.where(apart > 0, apart, 1), np.inf)
    return away.min(1)


SETTINGS = {"images": 40, "pairs": 2, "shard": 16, "queries": 60, "steps": 60}
# Where it doesn't matter how near an attack comes.
SHORT: dict[str, Any] = {**SETTINGS, "queries": 10, "steps": 4}
# One for the smallest change, one by gradients within eps and one without them, and one again.
KINDS = ("pdpgd", "apgd-ce", "square", "apgd-ce")


@pytest.fixture(scope="module")
def small_audit() -> Audit:
    return run_audit(Victim.of(Plane()), pictures(), AuditPlan(eps=(0.02,), **SHORT))


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_worst_case_is_the_closed_form(norm: str) -> None:
    images = pictures()
    settings: dict[str, Any] = {**SETTINGS, "pairs": 0, "shard": 20}
    found = run_audit(Victim.of(Plane()), images, AuditPlan(norm=norm, eps=(0.02,), **settings))
    known = smallest(images, norm)
    right = found.right
    assert right.tolist() == [False] * 4 + [True] * 36
    assert not found.worst.size[~right].any()
    # Never below what is possible, and within one per cent of it.
    assert (found.worst.size[right] >= known[right] * (1 - 1e-5)).all()
    np.testing.assert_allclose(found.worst.size[right], known[right], rtol=0.01)
    eps = float(np.median(known[right]))
    assert abs(found.robust(eps).count - int((known[right] > eps).sum())) <= 1
    assert found.robust(0).count == found.clean.count == 36
    assert found.robust(10).count == 0
    assert found.fooled(10) == Share(36, 36)
    _, parts = found.curve(found.reach)
    assert (np.diff(parts) <= 0).all()
    assert parts[0] == 0.9
    assert found.smallest["median"] == pytest.approx(np.sort(known[right])[18], rel=0.01)
    assert found.verdicts == ()


def test_pairs_hold_the_distance_to_each_class() -> None:
    images = pictures()
    plan = AuditPlan(norm="linf", eps=(0.02,), attacks=("fgsm",), **SETTINGS)
    found = run_audit(Victim.of(Plane()), images, plan)
    pairs = found.pairs
    assert pairs is not None
    # Two images of each class, of those classified right, towards each other class.
    assert len(pairs.rows) == 2 * CLASSES * (CLASSES - 1)
    assert found.right[np.searchsorted(found.worst.rows, pairs.rows)].all()
    assert (pairs.labels == images.labels[pairs.rows]).all()
    assert (pairs.labels != pairs.targets).all()
    assert pairs.reached.all()
    table = found.matrix("linf")
    mine = (pairs.labels == 0) & (pairs.targets == 1)
    assert table[0, 1] == pytest.approx(pairs.linf[mine].mean())
    assert np.isnan(np.diag(table)).all()
    nearest = np.array([pairs.linf[pairs.rows == row].min() for row in pairs.rows])
    np.testing.assert_allclose(nearest, smallest(images, "linf")[pairs.rows], rtol=0.01)


def test_an_interrupted_audit_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, subject = pictures(), Victim.of(Plane())
    plan = AuditPlan(eps=(0.02,), attacks=KINDS, **SHORT)
    whole = run_audit(subject, images, plan)
    attack, made = run_module.attack_shard, []

    def killed(*args: object) -> object:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(args)
        return attack(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "attack_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        run_audit(subject, images, plan, directory=tmp_path)
    assert len(list(tmp_path.glob("shards/*.npz"))) == 2
    again: list[object] = []
    monkeypatch.setattr(run_module, "attack_shard", lambda *a: again.append(a) or attack(*a))
    resumed = run_audit(subject, images, plan, directory=tmp_path, resume=True)
    assert len(again) == 1
    for part in ("worst", "pairs"):
        mine, theirs = (getattr(a, part).__dict__ for a in (resumed, whole))
        for name, values in mine.items():
            np.testing.assert_array_equal(values, theirs[name])
    np.testing.assert_array_equal(resumed.examples, whole.examples)
    assert resumed.records == whole.records
    other = AuditPlan(eps=(0.03,), attacks=KINDS, **SHORT)
    with pytest.raises(UserError, match=r"shards in .* are of another audit"):
        run_audit(subject, images, other, directory=tmp_path, resume=True)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    images, subject = pictures(), Victim.of(Plane())
    plan = AuditPlan(eps=(0.02,), attacks=("pgd",), **{**SHORT, "pairs": 0})
    run_audit(subject, images, plan, directory=tmp_path)
    (tmp_path / "shards" / "00001.npz").write_bytes(b"PK\x03\x04 half of")
    with pytest.raises(UserError, match=r"state is damaged: .*00001\.npz"):
        run_audit(subject, images, plan, directory=tmp_path, resume=True)


def test_it_saves_and_loads(tmp_path: Path) -> None:
    plan = AuditPlan(eps=(0.02, 0.05), attacks=KINDS, **SHORT)
    found = run_audit(Victim.of(Plane()), pictures(), plan)
    found.save(tmp_path / "audit.npz")
    loaded = Audit.load(tmp_path / "audit.npz")
    assert loaded.as_dict() == json.loads(json.dumps(found.as_dict(), allow_nan=False))
    np.testing.assert_array_equal(loaded.worst.size, found.worst.size)
    assert loaded.plan == found.plan
    assert set(found.figures()) == set(figure_names(found.plan))
    with pytest.raises(UserError, match="no such file"):
        Audit.load(tmp_path / "none.npz")


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays, header: arrays.pop("worst_said"),
        lambda arrays, header: arrays.update(worst_said=np.zeros(3)),
        lambda arrays, header: arrays.update(worst_by=arrays["worst_by"] + 99),
        lambda arrays, header: arrays.pop("pairs_l2"),
        lambda arrays, header: arrays.pop("examples"),
        lambda arrays, header: header.pop("preflight"),
        lambda arrays, header: header.update(records=[{"name": "pgd"}]),
        lambda arrays, header: header.update(plan=7),
    ],
)
def test_a_damaged_audit_is_named(
    change: Callable[[dict[str, Any], dict[str, Any]], object],
    small_audit: Audit,
    tmp_path: Path,
) -> None:
    small_audit.save(tmp_path / "audit.npz")
    arrays, header = read_arrays(tmp_path / "audit.npz")
    change(arrays, header)
    write_arrays(tmp_path / "audit.npz", arrays, header)
    with pytest.raises(UserError, match=r"state is damaged: .*audit\.npz"):
        Audit.load(tmp_path / "audit.npz")


def test_the_smaller_eps_never_shows_fewer_fooled_than_it_should() -> None:
    settings: dict[str, Any] = {**SETTINGS, "attacks": ("pgd",), "pairs": 0, "shard": 40}
    both, alone = (
        run_audit(Victim.of(Plane()), pictures(), AuditPlan(eps=eps, **settings))
        for eps in ((0.01, 0.03), (0.01,))
    )
    assert both.robust(0.01).count <= alone.robust(0.01).count + 1
    assert both.robust(0.03).count <= both.robust(0.01).count


def test_memory_is_that_of_a_shard() -> None:
    def peak(count: int) -> int:
        images = pictures(count)
        plan = AuditPlan(
            eps=(0.02,), images=count, pairs=0, shard=50, steps=5, attacks=("pgd", "fmn")
        )
        tracemalloc.start()
        run_audit(Victim.of(Plane()), images, plan)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(100)
    # What is kept of an image is a few figures: five times the images add under 1 kB each.
    assert peak(500) - peak(100) < 400 * 1000


def test_a_black_box_is_attacked_without_gradients() -> None:
    plane = Plane()
    subject = Victim(lambda x: plane(x).detach(), differentiable=False, name="box")
    found = run_audit(subject, pictures(), AuditPlan(eps=(0.3,), **SETTINGS))
    assert found.pairs is None
    assert [r.name for r in found.records] == ["square"]
    assert sum(r.backwards for r in found.records) == 0
    assert found.robust(0.3).count == 0
    with pytest.raises(UserError, match="needs gradients"):
        run_audit(subject, pictures(), AuditPlan(attacks=("apgd-ce",)))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"eps": (0.0,)}, "eps is no size"),
        ({"eps": (-0.1,)}, "eps is no size"),
        ({"eps": (float("nan"),)}, "eps is no size"),
        ({"eps": ()}, "needs an eps"),
        ({"norm": "l3"}, "unknown norm"),
        ({"attacks": ("sqare",)}, "did you mean 'square'"),
        ({"images": 0}, "number of images must be a whole number: got 0"),
    ],
)
def test_bad_plans_get_a_clear_line(settings: dict[str, object], line: str) -> None:
    with pytest.raises(UserError, match=line):
        AuditPlan(**settings)  # type: ignore[arg-type]


def test_pictures_that_do_not_suit_the_model() -> None:
    images = pictures()
    small = Victim(Plane(), input_shape=(1, 28, 28))
    with pytest.raises(UserError, match=r"takes images of shape \[1, 28, 28\]: got \[1, 4, 4\]"):
        run_audit(small, images, AuditPlan())
    named = Victim(Plane(), class_names=("a", "b", "c"))
    with pytest.raises(UserError, match="has 3 classes: got images of 2"):
        run_audit(named, images, AuditPlan())
    with pytest.raises(UserError, match="no images"):
        run_audit(Victim.of(Plane()), images[:0], AuditPlan())


@given(st.integers(0, 50), st.integers(0, 50))
def test_shares_lie_in_their_interval(count: int, more: int) -> None:
    share = Share(count, count + more)
    low, high = share.interval
    assert 0 <= low <= high <= 1
    if share.of:
        assert low - 1e-12 <= share.value <= high + 1e-12


def test_gates() -> None:
    figures = {"median_l2": 0.9, "robust_accuracy_at_0.3": 0.5}
    assert Gate.parse("median_l2<1.0").holds(figures)
    assert not Gate.parse(" robust_accuracy_at_0.3 <= 0.4 ").holds(figures)
    assert Gate.parse("median_l2>=9e-1").holds(figures)
    for bad in ("median_l2", "median_l2=1", "<1", "median_l2<one", "median_l2<1<2"):
        with pytest.raises(UserError, match="a condition has the form"):
            Gate.parse(bad)
    with pytest.raises(UserError, match="did you mean 'median_l2'"):
        Gate.parse("median_l1<1").holds(figures)


def test_norms_are_those_of_the_plan() -> None:
    assert AuditPlan(norm="l2").geometry is NORMS["l2"]


def test_the_cheap_attacks_come_before_the_dear_ones() -> None:
    victim = Victim(lambda pixels: pixels.flatten(1), classes=4)
    runs = [(spec.name, threat.eps) for spec, threat in AuditPlan(eps=(0.2,)).runs(victim)]
    assert runs[:5] == [
        ("pdpgd", None),
        ("apgd-minimal", None),
        ("apgd-ce", 0.2),
        ("apgd-t", 0.2),
        ("square", 0.2),
    ]
    # Named again, an attack starts elsewhere.
    assert runs.count(("apgd-ce", 0.2)) == 3
    victim.labels_only = True
    assert [spec.name for spec, _ in AuditPlan(eps=(0.2,)).runs(victim)] == ["rays"]


def test_what_fools_within_a_size_is_brought_to_the_border() -> None:
    # The class changes where the only value passes one half.
    victim = Victim(lambda x: torch.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5], 1), classes=2)
    pixels = torch.full((3, 1, 1, 1), 0.4)
    labels = np.zeros(3, np.int64)
    images = Images((pixels * 255).round().byte().numpy(), labels, ("low", "high"), "made up")
    plan = AuditPlan(eps=(0.3,), attacks=("apgd-ce",), pairs=0)
    found = attack_shard(victim, images, np.arange(3), plan, 0)
    assert found.worst.size == pytest.approx(0.1, abs=0.3 / 2**8 + 1e-6)


SEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "a ramp": lambda x: ((x - 0.45) / 0.1).clamp(0, 1),
    "rounded": lambda x: (x * 7).round() / 7,
    "compared": lambda x: (x > 0.5).to(x.dtype),
    "8 bits": lambda x: (x * 16).to(torch.uint8).to(x.dtype) / 16,
}
"""What a model sees of its pixels: never less of a brighter one."""


class Stepped(nn.Module):
    """A linear layer in two classes behind one of SEEN."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.seen = SEEN[name]
        self.weights = torch.randn(64, generator=torch.Generator().manual_seed(3))

    def forward(self, x: Tensor) -> Tensor:
        above = self.seen(x).flatten(1) @ self.weights.to(x)
        return torch.stack([torch.zeros_like(above), above], 1)

    def worst(self, pixels: Tensor, labels: Tensor, eps: Tensor | float) -> Tensor:
        """The least margin within eps: every pixel at that end of its interval which is worse."""
        side = (2 * labels - 1)[:, None] * self.weights.to(pixels)
        low, high = (self.seen((pixels + by).clamp(0, 1)).flatten(1) for by in (-eps, eps))
        return (torch.where(side > 0, low, high) * side).sum(1)


def stepped(name: str) -> tuple[Stepped, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    pixels = torch.where(torch.rand((60, 1, 8, 8), generator=generator) < 0.5, 0.28, 0.76)
    pixels = ((pixels + 0.04 * torch.rand(pixels.shape, generator=generator)) * 255).round() / 255
    model = Stepped(name)
    return model, pixels, model(pixels).argmax(1)


@pytest.mark.parametrize("name", SEEN)
def test_no_step_hides_anything_from_gradients(name: str) -> None:
    (model, pixels, labels), eps = stepped(name), 0.211 if name in ("a ramp", "compared") else 0.1
    standing = int((model.worst(pixels, labels, eps) > 0).sum())
    assert 5 < standing < 55
    found = unmask.audit(model, (pixels, labels), eps=eps, attacks="apgd-ce", pairs=0)
    assert found.robust(eps).count == standing
    kind = "thresholded_input" if name == "a ramp" else "quantised_input"
    assert [v.kind for v in found.preflight.verdicts] == [kind]
    # A note is no warning.
    assert found.figures()["warnings"] == (name != "a ramp")


def test_the_smallest_change_behind_a_threshold() -> None:
    model, pixels, labels = stepped("a ramp")
    low, high = torch.zeros(60, 1, 1, 1, dtype=torch.float64), torch.ones(60, 1, 1, 1).double()
    for _ in range(40):
        middle = (low + high) / 2
        stands = (model.worst(pixels.double(), labels, middle) > 0)[:, None, None, None]
        low, high = torch.where(stands, middle, low), torch.where(stands, high, middle)
    found = unmask.audit(model, (pixels, labels), eps=0.21, attacks="apgd-minimal", pairs=0)
    assert found.worst.size == pytest.approx(high.flatten().numpy(), rel=0.02)
