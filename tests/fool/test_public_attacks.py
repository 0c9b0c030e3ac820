"""unmask.attacks and unmask.audit: plain networks, tensors or arrays in, the same out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unmask
from unmask.errors import UserError
from unmask.fool.attacks import attack
from unmask.fool.audit.records import read_arrays, write_arrays
from unmask.fool.audit.result import Audit
from unmask.fool.goal import Goal
from unmask.fool.victim import Preprocessing, Victim, margin
from unmask.models.answer import as_logits


class Bright(nn.Module):
    """Predicts class 1 where the mean pixel exceeds 1/2."""

    def forward(self, pixels: Tensor) -> Tensor:
        above = 10 * (pixels.flatten(1).mean(1) - 0.5)
        return torch.stack([torch.zeros_like(above), above], 1)


IMAGES = torch.tensor([0.40, 0.45, 0.55, 0.70])[:, None, None, None].expand(4, 1, 6, 6).contiguous()
LABELS = torch.tensor([0, 0, 1, 1])
WITHIN = ("fgsm", "pgd", "apgd", "apgd_t", "square")
SMALLEST = ("ddn", "fmn", "carlini_wagner", "apgd_minimal")


@pytest.mark.parametrize("name", WITHIN)
def test_what_is_nearer_than_eps_falls_and_nothing_else(name: str) -> None:
    settings = {"queries": 200} if name == "square" else {}
    attack = getattr(unmask.attacks, name)
    found = attack(Bright(), IMAGES, LABELS, eps=0.12, **settings)
    assert (Bright()(found).argmax(1) != LABELS).tolist() == [True, True, True, False]
    assert float((found - IMAGES).abs().max()) <= 0.12 + 1e-6
    array = attack(Bright(), IMAGES.numpy(), LABELS.numpy(), eps=0.12, **settings)
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(array, found.numpy())


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_change_is_the_closed_form(name: str) -> None:
    settings = {"searches": 9, "steps": 100} if "wagner" in name else {}
    found = getattr(unmask.attacks, name)(Bright(), IMAGES, LABELS, **settings)
    size = (found - IMAGES).flatten(1)
    size = size.abs().amax(1) if name in ("fmn", "apgd_minimal") else size.norm(dim=1) / 6
    torch.testing.assert_close(size, torch.tensor([0.1, 0.05, 0.05, 0.2]), rtol=0.05, atol=1e-3)


def test_a_model_that_wants_normalised_images_is_attacked_in_0_to_1() -> None:
    class Centred(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            above = pixels.flatten(1).mean(1)
            return torch.stack([torch.zeros_like(above), above], 1)

    found = unmask.attacks.apgd(Centred(), IMAGES, LABELS, eps=0.12, mean=0.5, std=0.25)
    fooled = Centred()((found - 0.5) / 0.25).argmax(1) != LABELS
    assert fooled.tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"images": IMAGES * 255}, r"must lie in \[0, 1\]: got 102 to 102 in image 0"),
        ({"images": IMAGES[0]}, "images must be float"),
        ({"labels": torch.tensor([0, 0, 1, 2])}, "labels must lie between 0 and 1"),
        ({"labels": torch.tensor([0.0, 0, 1, 1])}, "labels must be one whole number an image"),
        ({"labels": [0, 1]}, "labels must be one whole number an image"),
        ({"targets": [0, 1, 0, 0]}, "true class"),
        ({"norm": "l7"}, "unknown norm"),
        ({"eps": None}, "how large a change"),
        ({"eps": -0.1}, "eps is no size"),
        ({"eps": "8/255"}, "write 8/255 without quotes"),
        ({"eps": [0.1, 0.2]}, "eps is one number here"),
        ({"steps": 0}, "setting steps must be a whole number"),
        ({"restarts": 1.5}, "setting restarts must be a whole number"),
        ({"batch_size": 0}, "setting batch_size must be a whole number"),
        ({"std": 0.0}, "std isn't usable"),
        ({"mean": (0.5, 0.5)}, "mean needs one number, or one a channel"),
        ({"model": lambda x: x.flatten(1)[:, :2]}, "needs gradients"),
    ],
)
def test_mistakes_get_one_line(change: dict[str, object], line: str) -> None:
    given = {"model": Bright(), "images": IMAGES, "labels": LABELS, "eps": 0.1, **change}
    with pytest.raises(UserError, match=line) as caught:
        unmask.attacks.apgd(given.pop("model"), given.pop("images"), given.pop("labels"), **given)
    assert "\n" not in str(caught.value)


def test_no_image_is_no_mistake_and_one_attack_needs_no_list() -> None:
    empty = unmask.attacks.pgd(Bright(), IMAGES[:0], LABELS[:0], eps=0.1)
    assert empty.shape == (0, 1, 6, 6)
    audits = [
        unmask.audit(Bright(), (IMAGES, LABELS), eps=0.12, attacks=attacks, images=4, steps=3)
        for attacks in ("pgd", ["pgd"])
    ]
    assert audits[0].figures() == audits[1].figures()


def test_an_attack_is_registered_once() -> None:
    with pytest.raises(UserError, match="the attack is already registered: got 'fgsm'"):
        attack("fgsm")(lambda: None)


LOGITS = torch.tensor([[0.1, 0.9, 0.3], [0.7, 0.2, 0.1]])


class ModelOutput:
    logits = LOGITS


@pytest.mark.parametrize(
    "answer",
    [
        LOGITS,
        LOGITS.numpy(),
        {"logits": LOGITS, "features": torch.zeros(2, 3)},
        {"out": LOGITS, "hidden": torch.zeros(2, 8, 4)},
        (LOGITS, torch.tensor(0.3)),
        LOGITS[:, :, None, None],
        ModelOutput(),
    ],
)
def test_logits_are_found_where_they_are_clear(answer: object) -> None:
    found, labels_only = as_logits(answer, 2, 3)
    torch.testing.assert_close(found, LOGITS)
    assert not labels_only


def test_a_single_logit_is_two_classes_and_a_class_alone_is_one_hot() -> None:
    found, _ = as_logits(torch.tensor([[2.0], [-1.0]]), 2, None)
    assert found.tolist() == [[0, 2], [0, -1]]
    found, labels_only = as_logits(np.array([2, 0]), 2, 3)
    assert found.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert labels_only
    for bad, line in (
        (np.array([3, 0]), "outside 0 to 2: got 0 to 3"),
        ((LOGITS, LOGITS), "isn't clear which"),
        ("cat", "got a str"),
        (torch.zeros(2, 4), "must return 3 logits"),
    ):
        with pytest.raises(UserError, match=line):
            as_logits(bad, 2, 3)


def test_preprocessing_is_what_it_says() -> None:
    pixels = torch.rand(2, 3, 4, 4)
    wanted = Preprocessing((0.1, 0.2, 0.3), (0.5, 0.5, 0.25), bgr=True, scale=2.0)
    expected = (2 * pixels.flip(1) - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor(
        [0.5, 0.5, 0.25]
    )[:, None, None]
    torch.testing.assert_close(wanted(pixels), expected)
    assert str(wanted) == (
        "channels in the order BGR and pixels in 0 to 2 and mean 0.1 0.2 0.3 and std 0.5 0.5 0.25"
    )


def test_a_gradient_that_is_not_finite_leads_nowhere_and_is_counted() -> None:
    victim = Victim(lambda x: torch.stack([x.flatten(1).sum(1).sqrt(), 0 * x[:, 0, 0, 0]], 1))
    goal = Goal(torch.tensor([0]))
    gradient = victim.gradient(torch.zeros(1, 1, 2, 2), goal, margin)[2]
    assert not gradient.any()
    assert victim.gradients_not_finite == 1


def test_an_audit_is_one_call_and_reads_what_0_1_saved(tmp_path: Path) -> None:
    done = unmask.audit(
        Bright(), (IMAGES, LABELS), eps=0.12, pairs=0, steps=20, queries=50, attacks=["apgd-ce"]
    )
    assert (done.clean.count, done.robust(0.12).count) == (4, 1)
    done.save(tmp_path / "new.npz")
    arrays, header = read_arrays(tmp_path / "new.npz")
    header["plan"]["pictures"] = header["plan"].pop("images")
    header["preflight"]["findings"] = [{"kind": "random_output", "message": "m", "do": "d"}]
    write_arrays(tmp_path / "old.npz", arrays, header)
    old = Audit.load(tmp_path / "old.npz")
    assert old.plan == done.plan
    assert [(v.kind, v.severity, v.fix) for v in old.preflight.verdicts] == [
        ("random_output", "warning", "d")
    ]
    assert old.as_dict()["warnings"][0]["do"] == "d"


def test_an_audit_reads_arrays_as_load_data_does() -> None:
    with pytest.raises(UserError, match=r"must lie in \[0, 1\]"):
        unmask.audit("mnist", (IMAGES.numpy() * 3, LABELS.numpy()))
    with pytest.raises(UserError, match="labels must be one whole number"):
        unmask.audit("mnist", (IMAGES.numpy(), LABELS.float().numpy()))
