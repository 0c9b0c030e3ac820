from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unmask.coursework.generator.attack import generator_attack
from unmask.coursework.generator.report_way import Adam, Training
from unmask.coursework.generator.smallest import smallest_change, soft_margin
from unmask.coursework.generator.stacked import Generators
from unmask.data.mnist import load_mnist
from unmask.errors import UserError
from unmask.fool.goal import Goal, every_target
from unmask.fool.norms import Threat
from unmask.fool.outcome import Adversarials, judge, saved
from unmask.fool.refinement import to_boundary, to_eight_bits
from unmask.fool.victim import Victim
from unmask.models.classifier import Classifier

SMALLEST = Threat.parse("l2")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(classes: int = 4, size: int = 64, seed: int = 0) -> tuple[Victim, Tensor]:
    """A linear classifier, and its weights, float64[classes, size]."""
    weights = torch.randn(classes, size, generator=seeded(seed), dtype=torch.float64)
    return Victim(lambda x: x.flatten(1).double() @ weights.T, classes=classes), weights


def middling(count: int, seed: int = 1) -> Tensor:
    """Images so far from 0 and 1 that the box doesn't matter."""
    return 0.4 + 0.2 * torch.rand(count, 1, 8, 8, generator=seeded(seed), dtype=torch.float64)


def goal_of(victim: Victim, pixels: Tensor) -> tuple[Tensor, Goal]:
    rows, goal = every_target(victim.logits(pixels).argmax(1), victim.classes)
    return pixels[rows], goal


@pytest.mark.parametrize(("norm", "within"), [("l2", 0.01), ("linf", 0.03)])
def test_a_linear_classifier_is_fooled_by_the_smallest_change(norm: str, within: float) -> None:
    victim, weights = linear(classes=2)
    pixels, goal = goal_of(victim, middling(20))
    assert goal.targets is not None
    gap = weights[goal.labels] - weights[goal.targets]
    missed = (gap * pixels.flatten(1)).sum(1)
    slope = gap.norm(dim=1) if norm == "l2" else gap.abs().sum(1)
    threat = Threat.parse(norm)
    made = Generators(len(pixels), 64, hidden=16, generator=seeded(), like=pixels)
    found, reached = smallest_change(victim, pixels, goal, threat, made, steps=100)
    assert bool(reached.all())
    near = to_boundary(victim, pixels, found.pixels, goal)
    ratio = threat.norm.size(near - pixels) / (missed / slope)
    assert float(ratio.min()) >= 1 - 1e-6
    assert float(ratio.max()) <= 1 + within


def test_with_more_classes_it_is_no_further_than_the_others_force_it() -> None:
    victim, weights = linear(classes=3)
    pixels, goal = goal_of(victim, middling(20))
    assert goal.targets is not None
    third = 3 - goal.labels - goal.targets
    x = pixels.flatten(1)
    rows = torch.stack([weights[goal.labels], weights[third]], 1) - weights[goal.targets][:, None]
    missed = torch.einsum("ncs,ns->nc", rows, x)
    # The nearest point of two half-spaces: on either border, or on both.
    alone = missed.clamp(min=0) / rows.norm(dim=2)
    both = torch.linalg.solve(rows @ rows.transpose(1, 2), missed[..., None])
    corner = (rows.transpose(1, 2) @ both).squeeze(2).norm(dim=1)
    single = [
        (
            alone[:, k],
            (
                missed
                - (rows @ rows[:, k, :, None]).squeeze(2)
                * (missed[:, k] / rows[:, k].norm(dim=1) ** 2)[:, None]
            ).amax(1)
            <= 1e-9,
        )
        for k in (0, 1)
    ]
    smallest = corner.clone()
    for size, allowed in single:
        smallest = torch.where(allowed & (missed.amax(1) > 0), size, smallest)
    made = Generators(len(pixels), 64, hidden=16, generator=seeded(), like=pixels)
    found, reached = smallest_change(victim, pixels, goal, SMALLEST, made, steps=200)
    assert bool(reached.all())
    near = to_boundary(victim, pixels, found.pixels, goal)
    ratio = SMALLEST.norm.size(near - pixels) / smallest
    assert float(ratio.min()) >= 1 - 1e-6
    assert float(ratio.max()) <= 1.02


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 1000),
    norm=st.sampled_from(["l2", "linf"]),
    classes=st.integers(2, 5),
)
def test_what_is_given_back_is_an_8_bit_picture_that_fools(
    seed: int, norm: str, classes: int
) -> None:
    victim, _ = linear(classes=classes, seed=seed)
    pixels, goal = goal_of(victim, saved(middling(4, seed)))
    threat = Threat.parse(norm)
    found = generator_attack(victim, pixels, goal, threat, generator=seeded(seed))
    assert bool((saved(found.pixels) == found.pixels).all())
    outcome = judge(victim, pixels, found, goal, threat)
    assert outcome.reached_saved.all()
    assert outcome.reached.all()


def test_rounding_costs_little_and_never_what_fools() -> None:
    victim, _ = linear(classes=3)
    pixels, goal = goal_of(victim, saved(middling(10)))
    made = Generators(len(pixels), 64, hidden=8, generator=seeded(), like=pixels)
    found, _ = smallest_change(victim, pixels, goal, SMALLEST, made, steps=60)
    near = to_boundary(victim, pixels, found.pixels, goal)
    rounded, good = to_eight_bits(victim, pixels, near, goal, SMALLEST)
    assert bool(good.all())
    assert bool(goal.reached(victim.logits(rounded)).all())
    before, after = (SMALLEST.norm.size(p - pixels) for p in (near, rounded))
    # Half a step in each of 64 values at the very most.
    assert float((after - before).max()) < 0.5 / 255 * 8


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_given_eps_is_enough_where_the_smallest_change_is_less(norm: str) -> None:
    victim, _ = linear()
    pixels, goal = goal_of(victim, saved(middling(10)))
    smallest = generator_attack(victim, pixels, goal, Threat.parse(norm), generator=seeded())
    sizes = Threat.parse(norm).norm.size(smallest.pixels - pixels)
    threat = Threat(Threat.parse(norm).norm, 1.05 * float(sizes.median()) + 1 / 255)
    found = generator_attack(victim, pixels, goal, threat, generator=seeded())
    outcome = judge(victim, pixels, found, goal, threat)
    assert outcome.reached_saved[(1.05 * sizes < threat.eps).numpy()].all()
    # One step less a pair at least: whoever is within eps is done.
    assert outcome.steps[outcome.reached].mean() < 60


@pytest.mark.parametrize("mode", ["fast", "course-report"])
def test_neither_chunks_nor_neighbours_change_a_result(mode: str) -> None:
    victim, _ = linear()
    pixels, goal = goal_of(victim, saved(middling(3)))
    training = Training(pretraining=50)

    def attack(rows: slice, chunk: int | None) -> Adversarials:
        return generator_attack(
            victim,
            pixels[rows],
            goal[rows],
            SMALLEST,
            generator=seeded(),
            mode=mode,
            training=training,
            chunk=chunk,
        )

    whole = attack(slice(None), None)
    alone = [attack(slice(i, i + 1), None) for i in range(len(pixels))]
    for parts in ([attack(slice(None), 5)], alone):
        found = torch.cat([p.pixels for p in parts])
        torch.testing.assert_close(found, whole.pixels, rtol=0, atol=1e-9)
        assert torch.equal(torch.cat([p.steps for p in parts]), whole.steps)


@pytest.mark.parametrize("mode", ["fast", "course-report"])
def test_the_same_seed_gives_the_same_bits(mode: str) -> None:
    victim, _ = linear()
    pixels, goal = goal_of(victim, saved(middling(2)).float())
    runs = [
        generator_attack(victim, pixels, goal, SMALLEST, generator=seeded(s), mode=mode).pixels
        for s in (3, 3, 4)
    ]
    assert torch.equal(runs[0], runs[1])
    assert mode == "fast" or not torch.equal(runs[0], runs[2])


def test_the_documents_way_learns_the_picture_and_then_the_class() -> None:
    victim, _ = linear()
    pixels, goal = goal_of(victim, middling(2))
    pretrained = generator_attack(
        victim,
        pixels,
        Goal(goal.targets, goal.labels),  # type: ignore[arg-type]
        SMALLEST,
        generator=seeded(),
        mode="course-report",
        training=Training(tolerance=1e-5),
        steps=1,
    )
    # The class to be said is the one it says: nothing happens after pre-training.
    error = (pretrained.pixels - pixels).square().flatten(1).mean(1)
    assert float(error.max()) <= 1e-5
    found = generator_attack(
        victim, pixels, goal, SMALLEST, generator=seeded(), mode="course-report"
    )
    assert judge(victim, pixels, found, goal, SMALLEST).reached.all()


def test_adam_is_torchs() -> None:
    like = torch.empty(0, dtype=torch.float64)
    made = Generators(2, 6, hidden=4, generator=seeded(), like=like)
    tensors = [t.clone().requires_grad_() for la in made.layers for t in (la.weight, la.bias)]
    theirs = torch.optim.Adam(tensors, lr=0.01, eps=1e-7)
    ours = Adam(made, 0.01)
    target = torch.rand(2, 6, dtype=torch.float64)
    for _ in range(10):
        ours.step(made() - target, torch.ones(2, dtype=torch.bool))
        w1, b1, w2, b2, w3, b3 = tensors
        hidden = (w1 + b1[:, None]).relu()
        hidden = (torch.bmm(hidden, w2) + b2[:, None]).relu()
        output = (torch.bmm(hidden, w3) + b3[:, None]).squeeze(1)
        theirs.zero_grad()
        ((output - target) ** 2 / 2).sum().backward()
        theirs.step()
    for layer, (weight, bias) in zip(
        made.layers, zip(tensors[::2], tensors[1::2], strict=True), strict=True
    ):
        torch.testing.assert_close(layer.weight, weight.detach(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(layer.bias, bias.detach(), rtol=1e-9, atol=1e-9)


def test_the_soft_margin_scales_with_the_logits_and_bounds_the_margin() -> None:
    logits = torch.randn(50, 7, generator=seeded(), dtype=torch.float64)
    labels = torch.zeros(50, dtype=torch.int64)
    goal = Goal(labels, labels + 3)
    soft = soft_margin(logits, goal)
    torch.testing.assert_close(soft_margin(logits * 1e-3, goal), soft * 1e-3)
    spread = logits.amax(1) - logits.amin(1)
    assert bool((soft >= goal.margin(logits)).all())
    assert bool((soft <= goal.margin(logits) + np.log(6) / 20 * spread).all())


def test_the_shipped_model_is_fooled_on_every_saved_picture() -> None:
    model = Classifier.load("mnist").requires_grad_(requires_grad=False)
    test = load_mnist()[1]
    rows = [3, 2, 1]
    pixels = torch.from_numpy(test.pixels[rows]).float() / 255
    labels = torch.from_numpy(test.labels[rows])
    index, goal = every_target(labels, 10)
    victim = Victim(model, classes=10)
    found = generator_attack(victim, pixels[index], goal, SMALLEST, generator=seeded(), steps=40)
    outcome = judge(victim, pixels[index], found, goal, SMALLEST)
    assert outcome.reached_saved.all()
    # Seen with Carlini and Wagner's full search on such images: about 1.
    assert outcome.l2.mean() < 1.25


def test_a_flat_classifier_gives_the_picture_back() -> None:
    network = nn.Linear(64, 3)
    nn.init.zeros_(network.weight)
    victim = Victim(lambda x: network(x.flatten(1)), classes=3)
    pixels = saved(middling(1)).float()
    said = victim.logits(pixels).argmax(1)
    goal = Goal(said, (said + 1) % 3)
    found = generator_attack(victim, pixels, goal, SMALLEST, generator=seeded(), steps=5)
    assert not judge(victim, pixels, found, goal, SMALLEST).reached.any()
    torch.testing.assert_close(found.pixels, pixels)


def test_what_is_already_taken_for_the_class_stays() -> None:
    victim, _ = linear()
    pixels = saved(middling(1))
    said = victim.logits(pixels).argmax(1)
    goal = Goal((said + 1) % 4, said)
    found = generator_attack(victim, pixels, goal, SMALLEST, generator=seeded())
    assert torch.equal(found.pixels, pixels)
    assert found.steps.tolist() == [1]


def test_without_a_target_it_finds_the_nearest_class() -> None:
    victim, _ = linear(classes=3)
    pixels, goal = goal_of(victim, saved(middling(6)))
    each = generator_attack(victim, pixels, goal, SMALLEST, generator=seeded())
    nearest = SMALLEST.norm.size(each.pixels - pixels).view(6, 2).amin(1)
    first = slice(0, None, 2)
    free = Goal(goal.labels[first])
    found = generator_attack(victim, pixels[first], free, SMALLEST, generator=seeded())
    assert judge(victim, pixels[first], found, free, SMALLEST).reached_saved.all()
    assert bool((SMALLEST.norm.size(found.pixels - pixels[first]) <= 1.03 * nearest).all())


def test_mistakes_are_told() -> None:
    victim, _ = linear()
    pixels, goal = goal_of(victim, middling(1))
    with pytest.raises(UserError, match="unknown mode"):
        generator_attack(victim, pixels, goal, SMALLEST, generator=seeded(), mode="fats")
    with pytest.raises(UserError, match="hidden units"):
        generator_attack(victim, pixels, goal, SMALLEST, generator=seeded(), hidden=0)
    with pytest.raises(UserError, match="needs steps"):
        generator_attack(victim, pixels, goal, SMALLEST, generator=seeded(), steps=0)


def test_no_pairs_are_no_mistake() -> None:
    victim, _ = linear()
    goal = Goal(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    found = generator_attack(victim, torch.empty(0, 1, 8, 8), goal, SMALLEST, generator=seeded())
    assert found.pixels.shape == (0, 1, 8, 8)
