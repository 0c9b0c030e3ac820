"""Models and sizes that people give by mistake: one line, or one verdict, each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unmask
from unmask.data.images import Images
from unmask.errors import UserError
from unmask.fool.norms import Threat

NAMES = ("red", "green", "blue")
LITTLE = {"images": 12, "pairs": 0, "steps": 5, "queries": 10}


def coloured(n: int = 24, names: tuple[str, ...] = NAMES) -> Images:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    pixels = rng.integers(40, 120, (n, 3, 8, 8))
    pixels[np.arange(n), labels] += 90
    return Images(pixels.astype(np.uint8), labels.astype(np.int64), names, "colours")


class Means(nn.Module):
    """The mean of each channel, times 20, and of none beyond them."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))
        self.classes = classes

    def forward(self, pixels: Tensor) -> Tensor:
        logits = self.scale * pixels.mean((2, 3))
        beyond = [logits[:, :1] - 9] * (self.classes - 3)
        return torch.cat([logits, *beyond], 1)[:, : self.classes]


class Label(Means):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels).argmax(1)


class NotANumber(Means):
    def forward(self, pixels: Tensor) -> Tensor:
        logits = super().forward(pixels)
        return torch.where(pixels[:, :1, 0, 0] > 0.6, logits / 0, logits)


class Drifting(Means):
    calls = 0

    def forward(self, pixels: Tensor) -> Tensor:
        Drifting.calls += 1
        return super().forward(pixels) + 0.3 * Drifting.calls * pixels[:, :, 0, 0]


class Rooted(Means):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels + (pixels - pixels[:, :, :1, :1]).abs().sqrt())


@pytest.mark.parametrize("eps", [8, 8.0, 255, 1.01])
def test_a_size_in_steps_of_a_byte_is_named(eps: float) -> None:
    with pytest.raises(UserError, match=rf"above the whole range.*write {eps:g}/255"):
        Threat.of("linf", eps)
    with pytest.raises(UserError, match=rf"write {eps:g}/255"):
        unmask.check(Means(), coloured(), eps=eps)


def test_a_size_beyond_every_change_is_named() -> None:
    with pytest.raises(UserError, match=r"no change is longer than 13\.9 in L2"):
        unmask.audit(Means(), coloured(), norm="l2", eps=14, **LITTLE)


@pytest.mark.parametrize("classes", [2, 4])
def test_another_number_of_classes_is_named(classes: int) -> None:
    line = f"the model tells {classes} classes apart: got images of 3: red, green, blue"
    for ask in (
        lambda m, d: unmask.audit(m, d, **LITTLE),
        lambda m, d: unmask.shift(m, d, images=12),
        lambda m, d: unmask.certify(m, d, eps=0.01),
    ):
        with pytest.raises(UserError, match=line):
            ask(Means(classes), coloured())
    found = unmask.check(Means(classes), coloured(), minutes=0.1)
    assert [(v.kind, v.severity) for v in found.verdicts if line in v.message] == [
        ("unusable", "error")
    ]
    assert not found.healthy


def test_numbered_images_may_lack_the_last_classes() -> None:
    few = coloured(names=("0", "1", "2"))
    found = unmask.audit(Means(5), few, attacks=["fgsm"], **LITTLE)
    assert len(found.class_names) == 5
    assert found.clean.count == 12


def test_a_network_that_gives_the_class_alone_is_asked_by_classes() -> None:
    found = unmask.audit(Label(), coloured(), **{**LITTLE, "queries": 40})
    assert [r.name for r in found.records] == ["rays"]
    assert {v.kind for v in found.verdicts} == {"labels_only"}
    checked = unmask.check(Label(), coloured(), minutes=0.1)
    status = {p.name: p.status for p in checked.parts}
    assert status["audit"] == "done"
    assert status["flow"] == status["certificate"] == "skipped"
    assert not {v.kind for v in checked.verdicts} & {"underconfident", "probabilities"}


def test_logits_that_are_no_numbers_are_never_robust() -> None:
    found = unmask.audit(NotANumber(), coloured(), attacks=["apgd-ce"], eps=0.3, **LITTLE)
    logits = NotANumber()(torch.from_numpy(coloured().pixels).float() / 255)
    bad = ~logits.isfinite().all(1)
    assert 0 < int(bad.sum()) < 24
    assert found.clean.count <= int((~bad).sum())
    assert found.robust(0.3).count <= found.clean.count
    assert "not_finite" in {v.kind for v in found.verdicts}
    shifted = unmask.shift(NotANumber(), coloured(), corruptions=("contrast",), runtimes=False)
    (verdict,) = [v for v in shifted.verdicts if v.kind == "logits not finite"]
    assert verdict.severity == "error"
    assert verdict.evidence["images"] == int(bad.sum())


@pytest.mark.parametrize(
    ("model", "kind"), [(Drifting(), "random_output"), (Rooted(), "gradient_not_finite")]
)
def test_what_misleads_an_audit_is_named(model: nn.Module, kind: str) -> None:
    found = unmask.audit(model, coloured(), attacks=["fgsm"], **LITTLE)
    assert kind in {v.kind for v in found.verdicts}
