"""Our attacks against Foolbox's, on the same network with the same budget.

Foolbox's FMN for L2 doesn't project onto its ball (its factor is a norm over itself), so that FMN
is compared for Linf alone. APGD and Square are not in Foolbox.
"""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from unmask.data.mnist import load_mnist
from unmask.fool.attacks import carlini_wagner, ddn, fgsm, fmn, pgd
from unmask.fool.goal import Goal
from unmask.fool.norms import Threat
from unmask.fool.outcome import Adversarials, judge
from unmask.fool.victim import Victim

foolbox = pytest.importorskip("foolbox", reason="Foolbox is compared with only where it is")
theirs = foolbox.attacks

COUNT = 100
SEARCH = {"steps": 100, "rate": 0.05, "searches": 3, "first_weight": 0.1, "stop_early": False}
MINIMAL = {
    "ddn": ("l2", partial(ddn, steps=100), theirs.DDNAttack(steps=100)),
    "fmn": ("linf", partial(fmn, steps=100), theirs.LInfFMNAttack(steps=100)),
    "cw": (
        "l2",
        partial(carlini_wagner, **SEARCH),
        theirs.L2CarliniWagnerAttack(
            binary_search_steps=3, steps=100, stepsize=0.05, initial_const=0.1, abort_early=False
        ),
    ),
}
BOUNDED = {
    "fgsm linf": ("linf:0.05", fgsm, theirs.LinfFastGradientAttack()),
    "fgsm l2": ("l2:0.8", fgsm, theirs.L2FastGradientAttack()),
    "pgd linf": (
        "linf:0.05",
        partial(pgd, steps=40, step=0.005),
        theirs.LinfPGD(abs_stepsize=0.005, steps=40),
    ),
    "pgd l2": (
        "l2:0.8",
        partial(pgd, steps=40, step=0.1),
        theirs.L2PGD(abs_stepsize=0.1, steps=40),
    ),
}


@pytest.fixture(scope="module")
def subject():
    """A small network that judges its images rightly, the images and their classes."""
    train, test = load_mnist()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 48), nn.ReLU(), nn.Linear(48, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    pixels = torch.from_numpy(train.pixels[:10_000]).float() / 255
    labels = torch.from_numpy(train.labels[:10_000])
    for _ in range(4):
        for rows in torch.randperm(len(labels)).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(pixels[rows]), labels[rows]).backward()
            optimizer.step()
    network.eval()
    pixels = torch.from_numpy(test.pixels[: 2 * COUNT]).float() / 255
    labels = torch.from_numpy(test.labels[: 2 * COUNT])
    right = network(pixels).argmax(1) == labels
    return network, pixels[right][:COUNT], labels[right][:COUNT]


def compared(subject, text, ours, foolboxs, targeted):
    """What the judge says of our adversarials and of Foolbox's."""
    network, pixels, labels = subject
    threat = Threat.parse(text)
    targets = (labels + 1 + torch.arange(len(labels)) % 9) % 10 if targeted else None
    goal = Goal(labels, targets)
    victim = Victim(network, classes=10)
    found = ours(victim, pixels, goal, threat, generator=torch.Generator().manual_seed(0))
    assert len(pixels) == COUNT
    aim = foolbox.TargetedMisclassification(targets) if targeted else labels
    torch.manual_seed(0)
    model = foolbox.PyTorchModel(network, bounds=(0, 1))
    _, other, _ = foolboxs(model, pixels, aim, epsilons=threat.eps)
    other = Adversarials(other, torch.zeros(COUNT))
    return (
        judge(victim, pixels, found, goal, threat),
        judge(victim, pixels, other, goal, threat),
    )


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("name", MINIMAL)
def test_the_smallest_change_is_foolboxs(subject, name, targeted):
    ours, other = compared(subject, *MINIMAL[name], targeted)
    size = "l2" if MINIMAL[name][0] == "l2" else "linf"
    assert abs(ours.reached.mean() - other.reached.mean()) <= 0.01
    median, expected = (np.median(getattr(o, size)[o.reached]) for o in (ours, other))
    assert median == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("name", BOUNDED)
def test_as_many_are_fooled_within_eps_as_by_foolbox(subject, name):
    targeted = name.startswith("pgd")
    for goal in {False, targeted}:
        ours, other = compared(subject, *BOUNDED[name], goal)
        assert 0.05 < other.reached.mean() < 0.95
        # Foolbox judges the last step alone; ours may also succeed on the way.
        assert -0.01 <= ours.reached.mean() - other.reached.mean() <= 0.01
