"""Branch and bound against the exact minimum, and what certify makes of it."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from nets import minimum_by_milp, mlp, within
from torch import Tensor, nn

from unmask.data.images import Images
from unmask.errors import UserError
from unmask.fool.certify import run as run_module
from unmask.fool.certify.bounds import crown, differences
from unmask.fool.certify.branch import branch
from unmask.fool.certify.network import Network
from unmask.fool.certify.region import Region
from unmask.fool.certify.result import STATUSES, Certification, CertifyPlan
from unmask.fool.certify.run import FILE, certify, certify_victim
from unmask.fool.victim import Victim


@pytest.mark.slow
def test_splitting_closes_most_of_the_gap_and_never_passes_the_minimum() -> None:
    closed = []
    for seed in (0, 2):
        net = mlp(seed, (4, 6, 6, 3))
        x = torch.rand(1, 1, 2, 2, generator=torch.Generator().manual_seed(seed)).double()
        region = Region(x, 0.3)
        relaxed = crown(Network.of(net, (1, 2, 2)), region)
        c = differences(torch.tensor([0]), 3, x)[:, :1]
        box = region.box
        exact = minimum_by_milp(
            net, box.lower.flatten().numpy(), box.upper.flatten().numpy(), c[0, 0].numpy()
        )
        start = branch(relaxed, c, until=0.0, goal=1e9).bound
        until = time.perf_counter() + 60
        found = branch(relaxed, c, until=until, goal=1e9, steps=20, most=90)
        assert start <= found.bound <= exact + 1e-9
        closed.append((found.bound - start) / (exact - start))
        # What is below the minimum can be proved, what is above it never.
        assert branch(relaxed, c, until=until, goal=start - 0.01).finished
        above = branch(relaxed, c, until=until, goal=exact + 1e-6, most=20)
        assert not above.bound > exact + 1e-6
    assert max(closed) > 0.8


def test_filters_stored_with_channels_last_are_split_too() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        layers = nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(75, 2)
        net = nn.Sequential(*layers).eval()
        x = torch.rand(1, 1, 5, 5, dtype=torch.float64)
    region = Region(x, 0.2)
    c = differences(torch.tensor([0]), 2, x)
    found = []
    for form in (torch.contiguous_format, torch.channels_last):
        relaxed = crown(Network.of(net.to(memory_format=form), (1, 5, 5)), region)
        until = time.perf_counter() + 60
        found.append(branch(relaxed, c, until=until, goal=1e9, steps=3, most=12))
    assert found[0].domains == found[1].domains > 2
    assert found[0].bound == pytest.approx(found[1].bound, abs=1e-6)


class Plane(nn.Module):
    """Two logits whose difference is a weighted sum of the pixels: its margin is known."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.layer = nn.Linear(16, 2)
        self.layer.weight.data = torch.randn(2, 16, generator=generator)
        self.layer.bias.data = -self.layer.weight.data.sum(1) / 2

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x.flatten(1))
        return logits


def plane_images(count: int = 60, wrong: int = 5) -> Images:
    pixels = np.random.default_rng(1).integers(96, 160, (count, 1, 4, 4)).astype(np.uint8)
    with torch.no_grad():
        labels = Plane()(torch.from_numpy(pixels).float() / 255).argmax(1).numpy()
    labels[:wrong] = 1 - labels[:wrong]
    return Images(pixels, labels.astype(np.int64), ("a", "b"), "planes")


def distances(images: Images, norm: str) -> np.ndarray:
    """The exact size of the smallest change that moves each image to the other class."""
    layer = Plane().layer
    weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    logits = images.pixels.reshape(len(images), 16) / 255 @ weight.T + bias
    own = logits[np.arange(len(images)), images.labels]
    apart = weight[0] - weight[1]
    size = np.abs(apart).sum() if norm == "linf" else np.linalg.norm(apart)
    return (own - logits[np.arange(len(images)), 1 - images.labels]) / size


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_of_a_linear_model_every_image_is_decided(norm: str) -> None:
    images = plane_images()
    known = distances(images, norm)
    eps = float(np.median(known))
    found = certify(Plane().eval(), images, eps=eps, norm=norm, minutes=1, images=60)
    # An attack comes near the border, a bound within its margin of it.
    sure = np.abs(known - eps) > 0.01 * eps
    status = np.array(STATUSES)[found.status]
    assert (status[:5] == "wrong").all()
    assert (status[sure & (known > eps)] == "proved").all()
    assert (status[sure & (known > 0) & (known < eps)] == "attacked").all()
    f = found.figures()
    assert f["clean"] == 55 / 60
    assert f["robust_low"] == f["proved"] <= f["robust_high"]
    assert {v.kind for v in found.verdicts()} >= {"attacked"}
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["counts"]["wrong"] == 5


@pytest.mark.slow
def test_no_image_is_both_proved_and_fooled_by_sampling() -> None:
    net = mlp(0, (4, 8, 8, 3)).float()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 2, 2)).astype(np.uint8)
    with torch.no_grad():
        labels = net(torch.from_numpy(pixels).float() / 255).argmax(1).numpy()
    images = Images(pixels, labels.astype(np.int64), ("a", "b", "c"), "noise")
    found = certify(net, images, eps=0.06, minutes=0.5, images=40)
    assert found.count("proved") > 5
    assert found.count("attacked") > 2
    assert found.count("open") <= 2
    assert sum(count for name, count in found.stages() if name != "ibp") > 2
    points = within(Region(torch.from_numpy(pixels).double() / 255, 0.06), 400)
    with torch.no_grad():
        classes = torch.stack([net.double()(p).argmax(1) for p in points]).numpy()
    held = (classes == labels).all(0)
    assert held[found.status == STATUSES.index("proved")].all()


def test_what_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, victim = plane_images(), Victim.of(Plane().eval())
    plan = CertifyPlan(eps=0.01, minutes=1, images=60)
    whole = certify_victim(victim, images, plan)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module._Work, "_attacked", stopped)
        with pytest.raises(KeyboardInterrupt):
            certify_victim(victim, images, plan, out=tmp_path)
    kept = Certification.load(tmp_path / FILE)
    assert kept.count("proved") == whole.count("proved") > 0
    resumed = certify_victim(victim, images, plan, out=tmp_path, resume=True)
    assert (resumed.status == whole.status).all()
    other = CertifyPlan(eps=0.02, minutes=1, images=60)
    with pytest.raises(UserError, match="of another certification"):
        certify_victim(victim, images, other, out=tmp_path, resume=True)


class Turned(nn.Module):
    """A plane behind a rotation, of which intervals prove little."""

    def __init__(self) -> None:
        super().__init__()
        plane = Plane().layer
        turn = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0)))[0]
        self.first = nn.Linear(16, 16, bias=False)
        self.first.weight.data = turn
        self.last = nn.Linear(16, 2)
        self.last.weight.data = plane.weight.data @ turn.T
        self.last.bias.data = plane.bias.data

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(nn.functional.relu(self.first(x.flatten(1)) + 10) - 10)
        return logits


def test_the_time_is_kept_and_what_is_left_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    images = plane_images(100, wrong=0)
    eps = float(np.quantile(distances(images, "linf"), 0.4))
    # A clock that a tick moves, so that no processor is too fast or too slow for the test.
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: 0.04 * next(ticks))
    found = certify(Turned().eval(), images, eps=eps, minutes=1 / 60, images=100)
    assert 0.04 * next(ticks) < 2
    assert found.count("open") > 0
    assert found.count("attacked") + found.count("proved") > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"eps": 0.0}, "eps is no size"),
        ({"eps": 8.0}, "write 8/255"),
        ({"eps": 0.1, "norm": "l1"}, "linf or l2"),
        ({"eps": 0.1, "minutes": 0}, "no time"),
        ({"eps": 0.1, "images": 0}, "number of images"),
    ],
)
def test_a_plan_that_cant_be_is_refused(changes: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        CertifyPlan(**changes)  # type: ignore[arg-type]
