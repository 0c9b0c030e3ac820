from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from unmask.errors import UserError
from unmask.fool.grid import Grid, class_index, fool_grid
from unmask.fool.norms import Threat
from unmask.fool.outcome import Adversarials, saved
from unmask.fool.victim import Victim, require_images


def network(channels: int = 1, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * 64, 3))


def pictures(count: int, channels: int = 1) -> torch.Tensor:
    drawn = torch.rand(count, channels, 8, 8, generator=torch.Generator().manual_seed(5))
    return saved(drawn)


def made(labels: torch.Tensor | None = None, **settings: object) -> Grid:
    given = {"names": ["a", "b"], "title": "made up", "threat": Threat.parse("l2"), "stamp": {}}
    return fool_grid(Victim.of(network()), pictures(2), labels, **{**given, **settings})  # type: ignore[arg-type]


def test_every_other_class_is_reached_on_values_that_a_file_can_hold() -> None:
    grid = made()
    assert grid.rows.tolist() == [0, 0, 1, 1]
    assert all(t != grid.labels[r] for r, t in zip(grid.rows, grid.targets, strict=True))
    assert (grid.predicted == grid.labels).all()
    logits = network()(torch.from_numpy(grid.changed))
    assert (logits.argmax(1).numpy() == grid.targets).all()
    assert grid.outcome.reached_saved.all()
    levels = grid.changed * 255
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
    assert grid.cost.backwards >= len(grid.rows)


def test_the_best_attack_comes_close_to_the_boundary_of_a_linear_model() -> None:
    grid = made()
    weight, bias = (p.detach().double() for p in network().parameters())
    for row, target, length in zip(grid.rows, grid.targets, grid.outcome.l2, strict=True):
        start, own = torch.from_numpy(grid.originals[row]).double().flatten(), grid.labels[row]
        # A lower bound: the hyperplane's distance, without the bounds of pixels and 8 bits.
        apart = weight[own] - weight[target]
        least = float((apart @ start + bias[own] - bias[target]) / apart.norm())
        assert least <= length <= 1.1 * least + 0.01


def test_an_attack_of_ones_own_makes_the_grid() -> None:
    def black(victim, pixels, goal, threat, *, generator):  # type: ignore[no-untyped-def]
        return Adversarials(torch.zeros_like(pixels), torch.ones(len(pixels), dtype=torch.int64))

    grid = made(attack=black, mode="black")
    assert grid.mode == "black"
    assert not grid.changed.any()


def test_a_misjudged_picture_is_still_shown() -> None:
    right = made().labels
    labels = torch.from_numpy(right).clone()
    labels[0] = (labels[0] + 1) % 3
    grid = made(labels)
    assert grid.misjudged.tolist() == [0]
    already = np.flatnonzero((grid.rows == 0) & (grid.targets == right[0]))
    assert grid.outcome.l2[already] == pytest.approx(0, abs=1e-6)
    assert grid.as_dict()["pictures"][0]["said"] == str(right[0])


def test_classes_may_be_chosen() -> None:
    own = made().labels
    both = next(str(k) for k in range(3) if k not in own)
    grid = made(targets=[both])
    assert grid.targets.tolist() == [int(both)] * 2


def test_mistakes_are_told() -> None:
    own = str(made().labels[0])
    with pytest.raises(UserError, match="the class to pass for is the image's own"):
        made(targets=[own])
    with pytest.raises(UserError, match="unknown class"):
        made(targets=["frog"])
    with pytest.raises(UserError, match="a grid knows no l1"):
        made(threat=Threat.parse("l1"))
    threat = Threat.parse("l2")
    black_box = Victim(network(), differentiable=False, name="m.onnx")
    with pytest.raises(UserError, match="needs gradients"):
        fool_grid(black_box, pictures(1), None, names="a", title="", threat=threat, stamp={})
    twice = nn.Sequential(network())
    twice.register_forward_hook(lambda module, given, answer: (answer, answer))
    with pytest.raises(UserError, match="isn't clear which of the model's outputs"):
        fool_grid(Victim.of(twice), pictures(1), None, names="a", title="", threat=threat, stamp={})
    assert class_index("b", ("a", "b")) == 1


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (torch.full((1, 1, 8, 8), 1.01), r"must lie in \[0, 1\]: got 1.01"),
        (torch.full((1, 1, 8, 8), -0.5), r"must lie in \[0, 1\]: got -0.5"),
        (torch.full((1, 1, 8, 8), float("nan")), "not finite: got nan"),
        (
            torch.zeros(1, 3, 8, 8),
            "another number of channels .*, 1 x 8 x 8: got 3 x 8",
        ),
        (torch.zeros(1, 1, 8, 9), "another size than the model takes, 1 x 8 x 8: got 1 x 8 x 9"),
        (torch.zeros(1, 8, 8), "must be float"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), r"got uint8\[1, 1, 8, 8\]"),
    ],
)
def test_pictures_that_no_attack_may_start_from(pixels: torch.Tensor, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        require_images(pixels, (1, 8, 8))
    assert "\n" not in str(caught.value)


def test_good_pictures_pass() -> None:
    require_images(pictures(3), (1, 8, 8))
    require_images(pictures(3), None)
