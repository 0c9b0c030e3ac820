"""Each broken model gets its warning, whole ones none, and what can't be judged a clear line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from broken import BROKEN
from linear import Linear
from torch import Tensor, nn

from unmask.data.mnist import load_mnist
from unmask.errors import UserError
from unmask.fool.attacks import ATTACKS
from unmask.fool.audit.diagnosis import diagnose
from unmask.fool.audit.plan import AuditPlan
from unmask.fool.audit.preflight import preflight
from unmask.fool.audit.shard import as_tensors
from unmask.fool.goal import Goal
from unmask.fool.outcome import Adversarials
from unmask.fool.victim import Preprocessing, Victim
from unmask.models.classifier import Classifier, shipped


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    test = load_mnist()[1]
    return as_tensors(test, np.arange(64), Victim(lambda x: x, classes=10))


def looked_at(module: nn.Module, digits: tuple[Tensor, Tensor]):
    return preflight(Victim.of(module).fresh(10), *digits)


@pytest.mark.parametrize("due", BROKEN)
def test_each_broken_model_gets_its_own_warning(due: str, digits: tuple[Tensor, Tensor]) -> None:
    found = looked_at(BROKEN[due](Classifier.load("mnist")), digits)
    assert [f.kind for f in found.verdicts] == [due]


@pytest.mark.parametrize("name", [n for n in shipped() if n.startswith("mnist")])
def test_models_that_ship_get_none(name: str, digits: tuple[Tensor, Tensor]) -> None:
    model = Classifier.load(name)
    found = looked_at(model, digits)
    ramp = model.card.settings.get("threshold")
    # A threshold is told, and hides no gradient.
    assert [f.kind for f in found.verdicts] == ([] if ramp is None else ["thresholded_input"])
    if ramp is not None:
        assert found.visible == pytest.approx((ramp - 0.05, ramp + 0.05), abs=1e-3)
    assert found.accuracy > 0.95
    assert found.no_gradient == found.no_margin_gradient == 0.0


def test_pixels_in_0_to_255_are_noticed(digits: tuple[Tensor, Tensor]) -> None:
    inner = Classifier.load("mnist")

    class Dim(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return inner(pixels / 255)

    found = looked_at(Dim(), digits)
    assert [f.kind for f in found.verdicts] == ["clean_accuracy"]
    assert found.accuracy_255 > 0.95 > found.accuracy


def test_the_gradients_of_a_quantised_model_fail_even_without_a_bound(
    digits: tuple[Tensor, Tensor],
) -> None:
    module = BROKEN["quantised_input"](Classifier.load("mnist"))
    plan = AuditPlan(attacks=("fgsm",))
    found = diagnose(Victim.of(module).fresh(10), digits[0][:8], digits[1][:8], plan)
    assert found.unconstrained is not None
    assert found.unconstrained < 0.95
    assert "unconstrained_fails" in [f.kind for f in found.verdicts]


def test_an_attack_that_hides_its_success_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_pixel(pixels: Tensor) -> Tensor:
        above = pixels[:, 0, 0, 0] - 0.5
        return torch.stack([torch.zeros_like(above), above], 1)

    def forgetful(victim, pixels, goal, threat, *, generator):
        victim.logits((pixels + threat.bound).clamp(0, 1))
        return Adversarials(pixels, torch.ones(len(pixels), dtype=torch.int64))

    monkeypatch.setitem(ATTACKS, "fgsm", replace(ATTACKS["fgsm"], function=forgetful))
    pixels = torch.eye(12).reshape(12, 1, 3, 4).repeat(1, 1, 1, 2)
    pixels[:, 0, 0, 0] = 0.4
    plan = AuditPlan(attacks=("fgsm",), eps=(0.2,))
    labels = torch.zeros(12, dtype=torch.int64)
    found = diagnose(Victim(first_pixel, classes=2), pixels, labels, plan)
    assert (found.watched[0].silent, found.watched[0].fooled) == (12, 0)
    assert [f.kind for f in found.verdicts] == ["silent_success"]


class Answers(nn.Module):
    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, pixels: Tensor) -> object:
        return self.answer(pixels) if callable(self.answer) else self.answer


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (lambda x: (x.flatten(1)[:, :10],) * 2, "isn't clear which of the model's outputs"),
        (lambda x: x.flatten(1)[:, :9], "must return 10 logits an image"),
        (lambda x: x.flatten(1)[:, :10].mean(), "must return 10 logits an image"),
        (lambda x: x.flatten(1)[:, :10] / 0, "not finite"),
        (
            lambda x: nn.functional.conv2d(x, torch.zeros(1, 3, 3, 3)),
            "can't take images of shape",
        ),
    ],
)
def test_what_cannot_be_judged_gets_a_clear_line(
    answer: object, line: str, digits: tuple[Tensor, Tensor]
) -> None:
    with pytest.raises(UserError, match=line) as caught:
        looked_at(Answers(answer), digits)
    assert "\n" not in str(caught.value)


def test_a_black_box_has_no_gradients_to_look_at(digits: tuple[Tensor, Tensor]) -> None:
    model = Classifier.load("mnist")
    box = Victim(model, classes=10, differentiable=False)
    found = preflight(box, *digits)
    assert (found.no_gradient, found.no_margin_gradient, found.verdicts) == (None, None, ())
    assert box.cost.backwards == 0


def test_the_margin_of_the_watched_pictures_is_theirs() -> None:
    linear = Linear(3)
    found = diagnose(linear.victim(), linear.pixels, linear.labels, AuditPlan(attacks=("fgsm",)))
    smallest = Goal(linear.labels).margin(linear(linear.pixels))
    assert bool((smallest > 0).all())
    assert found.watched[0].pictures == len(linear.pixels)
    assert found.unconstrained == 1.0


WANTED = {
    "mean and std": Preprocessing((0.1307,), (0.3081,)),
    "0 to 255": Preprocessing(scale=255),
    "-1 to 1": Preprocessing((0.5,), (0.5,)),
}


@pytest.mark.parametrize("name", WANTED)
def test_a_model_that_wants_its_images_otherwise_says_how(name: str) -> None:
    wanted = WANTED[name]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(60, 1, 6, 6, generator=generator)
    labels = (pixels.flatten(1).mean(1) > 0.5).long()
    bar = float(wanted(torch.full((1, 1, 1, 1), 0.5)))

    def bright(given: Tensor) -> Tensor:
        above = given.flatten(1).mean(1) - bar
        # Below its range it is sure of class 1, above it of class 0.
        return torch.stack([torch.zeros_like(above), above], 1)

    found = preflight(Victim(bright, classes=2), pixels, labels)
    if abs(float(found.accuracy) - 1) < 0.2:
        pytest.skip("the convention makes no difference to this model")
    assert found.convention == str(wanted)
    (verdict,) = [v for v in found.verdicts if v.kind == "clean_accuracy"]
    assert f"{found.convention_accuracy:.1%} with {wanted}" in verdict.message


def test_the_order_of_the_channels_is_tried() -> None:
    pixels = torch.rand(60, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    labels = (pixels[:, 0].flatten(1).mean(1) > pixels[:, 2].flatten(1).mean(1)).long()

    def redder(given: Tensor) -> Tensor:
        apart = given[:, 2].flatten(1).mean(1) - given[:, 0].flatten(1).mean(1)
        return torch.stack([torch.zeros_like(apart), apart], 1)

    found = preflight(Victim(redder, classes=2), pixels, labels)
    assert "BGR" in found.convention
    assert found.convention_accuracy == 1


def test_no_preprocessing_is_advised_to_a_model_that_draws_at_random() -> None:
    pixels = torch.rand(60, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    labels = (pixels[:, 0].flatten(1).mean(1) > pixels[:, 2].flatten(1).mean(1)).long()
    noise = torch.Generator().manual_seed(1)

    def redder(given: Tensor) -> Tensor:
        apart = given[:, 2].flatten(1).mean(1) - given[:, 0].flatten(1).mean(1)
        # Values of 0 to 255 drown the noise.
        drawn = apart + torch.randn(len(given), generator=noise)
        return torch.stack([torch.zeros_like(drawn), drawn], 1)

    found = preflight(Victim(redder, classes=2), pixels, labels)
    assert found.convention == ""
    assert "random_output" in {v.kind for v in found.verdicts}


def test_nothing_is_advised_to_a_model_that_is_right(digits: tuple[Tensor, Tensor]) -> None:
    assert looked_at(Classifier.load("mnist"), digits).convention == ""


def test_logits_that_are_clamped_or_not_numbers_are_named(digits: tuple[Tensor, Tensor]) -> None:
    inner = Classifier.load("mnist")

    class Clamped(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return inner(pixels).clamp(-2, 2)

    class Broken(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            logits = inner(pixels)
            return torch.where(pixels[:, :, 14, 14] > 0.5, logits / 0, logits)

    kinds = [v.kind for v in looked_at(Clamped(), digits).verdicts]
    assert "clamped_logits" in kinds
    verdicts = {v.kind: v for v in looked_at(Broken(), digits).verdicts}
    assert verdicts["not_finite"].severity == "error"
    assert "count as misclassified" in verdicts["not_finite"].message


def test_gradients_that_are_not_finite_are_counted_once_an_image(
    digits: tuple[Tensor, Tensor],
) -> None:
    class Root(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            # The slope of a square root at 0, where most pixels are.
            return pixels.sqrt().flatten(1)[:, :10] + pixels.flatten(1)[:, 300:310]

    found = preflight(Victim.of(Root()).fresh(10), digits[0][:8], digits[1][:8])
    assert 0 < found.not_finite <= 2 * found.pictures
