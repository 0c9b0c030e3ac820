"""Classifiers: normalisation inside, saved and loaded, and files that don't belong together."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from unmask.data.mnist import load_mnist
from unmask.errors import UserError
from unmask.models.classifier import Classifier, shipped
from unmask.train.evaluation import evaluate


def classifier(seed: int = 0) -> Classifier:
    return Classifier.create(
        "block_cnn",
        {"widths": [4, 8]},
        class_names=("cat", "dog", "hen"),
        input_shape=(3, 8, 8),
        mean=(0.1, 0.2, 0.3),
        std=(0.5, 1.0, 2.0),
        seed=seed,
    )


def test_pixels_are_normalised_inside() -> None:
    model = classifier().eval()
    pixels = torch.rand(5, 3, 8, 8)
    expected = torch.stack(
        [(pixels[:, c] - m) / s for c, (m, s) in enumerate([(0.1, 0.5), (0.2, 1), (0.3, 2)])], 1
    )
    torch.testing.assert_close(model(pixels), model.network(expected))


def test_fresh_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = classifier(seed=3)
    assert torch.equal(torch.get_rng_state(), before), "the caller's random state is left alone"
    torch.manual_seed(2)
    second, other = classifier(seed=3), classifier(seed=4)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


@pytest.mark.parametrize("name", ["m", "m.safetensors", "m.json", "some.model"])
def test_what_is_saved_comes_back(tmp_path: Path, name: str) -> None:
    model = classifier().eval()
    model.card = replace(model.card, facts={"seed": 0})
    model.save(tmp_path / "deep" / name)
    back = Classifier.load(tmp_path / "deep" / name)
    pixels = torch.rand(4, 3, 8, 8)
    assert torch.equal(back(pixels), model(pixels))
    assert back.card == model.card
    assert back.class_names == ("cat", "dog", "hen")
    assert not back.training


def test_half_precision_halves_the_file_and_hardly_moves_the_logits(tmp_path: Path) -> None:
    model = Classifier.create(
        "block_cnn", {}, class_names="ab", input_shape=(1, 28, 28), mean=(0,), std=(1,), seed=0
    ).eval()
    model.save(tmp_path / "whole")
    model.save(tmp_path / "half", half=True)
    sizes = [(tmp_path / f"{n}.safetensors").stat().st_size for n in ("half", "whole")]
    assert sizes[0] < 0.53 * sizes[1]
    pixels = torch.rand(4, 1, 28, 28)
    # Half precision rounds each weight by 2^-11 at most.
    torch.testing.assert_close(
        Classifier.load(tmp_path / "half")(pixels), model(pixels), rtol=5e-3, atol=5e-3
    )


def test_a_network_of_ones_own_is_filled(tmp_path: Path) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))

    model = Classifier(make(), replace(classifier().card, architecture="custom", settings={}))
    model.save(tmp_path / "mine")
    back = Classifier.load(tmp_path / "mine", network=make())
    pixels = torch.rand(2, 3, 8, 8)
    assert torch.equal(back(pixels), model(pixels))
    with pytest.raises(UserError, match="unknown architecture"):
        Classifier.load(tmp_path / "mine")


def test_weights_with_another_checksum_than_the_cards_are_refused(tmp_path: Path) -> None:
    classifier(seed=0).save(tmp_path / "a")
    classifier(seed=1).save(tmp_path / "b")
    shutil.copy(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    with pytest.raises(UserError, match=r"b\.safetensors is not the file that its card describes"):
        Classifier.load(tmp_path / "b")


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"settings": {"widths": [4, 1 << 30]}}, "another shape"),
        ({"settings": {"widths": [1 << 40, 1 << 40]}}, "doesn't take these settings"),
        ({"class_names": ["cat", "dog"]}, "another shape"),
        ({"architecture": "whitened_cnn", "settings": {}}, "too small"),
        ({"settings": {"widths": [4, 8, 16]}}, "lacks the tensor"),
    ],
)
def test_a_card_of_another_network_is_refused_before_memory_is_taken(
    tmp_path: Path, changes: dict[str, object], wrong: str
) -> None:
    classifier().save(tmp_path / "x")
    entries = json.loads((tmp_path / "x.json").read_text())
    (tmp_path / "x.json").write_text(json.dumps(entries | changes))
    with pytest.raises(UserError, match=wrong):
        Classifier.load(tmp_path / "x")


def test_a_model_without_its_card_is_named(tmp_path: Path) -> None:
    classifier().save(tmp_path / "x")
    (tmp_path / "x.json").unlink()
    with pytest.raises(UserError, match="no card"):
        Classifier.load(tmp_path / "x")


def test_a_folder_is_no_model() -> None:
    with pytest.raises(UserError, match="a folder is no model"):
        Classifier.load(Path())


def test_a_pickle_is_told_whatever_its_suffix(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="is a pickle"):
        Classifier.load(tmp_path / "model.pt")


def test_a_card_nested_without_end_is_refused(tmp_path: Path) -> None:
    classifier().save(tmp_path / "model")
    (tmp_path / "model.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="no readable model card"):
        Classifier.load(tmp_path / "model")


def test_an_unknown_name_lists_the_models_there_are() -> None:
    with pytest.raises(UserError, match="unknown model"):
        Classifier.load("mnits")


def test_cards_are_plain_values(tmp_path: Path) -> None:
    card = classifier().save(tmp_path / "x")
    entries = json.loads((tmp_path / "x.json").read_text())
    assert entries == json.loads(json.dumps(card.as_dict()))


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_model_loads_and_is_small(name: str) -> None:
    model = Classifier.load(name)
    facts = model.card.facts
    assert {"data", "recipe", "seed", "figures", "licence", "command"} <= facts.keys()
    file = Path(__file__).parents[2] / "src/unmask/models/weights" / f"{name}.safetensors"
    assert file.stat().st_size < 6_000_000


@pytest.mark.slow
def test_the_mnist_model_has_the_accuracy_on_its_card() -> None:
    model = Classifier.load("mnist")
    found = evaluate(model, load_mnist()[1])
    figures = model.card.facts["figures"]
    # Another processor may round another way, which can turn an image or two.
    assert found.accuracy == pytest.approx(figures["test_accuracy"], abs=3e-4)
    assert found.accuracy >= 0.995
    assert found.loss == pytest.approx(figures["test_loss"], rel=1e-3)
