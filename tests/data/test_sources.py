"""Images by name, from folders, and CIFAR-10 from where it may lie."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from unmask.data import sources
from unmask.data.cards import DatasetCard
from unmask.data.cifar10 import CLASSES
from unmask.errors import UserError


def tree(root: Path, parts: tuple[str, ...], classes: tuple[str, ...], size: int = 20) -> Path:
    for part in parts:
        for k, name in enumerate(classes):
            folder = root / part / name
            folder.mkdir(parents=True)
            Image.new("RGB", (size, size), (k * 20, 0, 0)).save(folder / "0.png")
    return root


def test_mnist_has_training_and_test_pictures_and_a_licence() -> None:
    found = sources.load_source("mnist")
    assert found.kind == "mnist"
    assert len(found.train) == 60_000
    assert found.test is not None
    assert len(found.test) == 10_000
    assert "CC BY-SA" in found.licence


def test_a_folder_is_read_at_its_natural_shape_or_the_one_asked_for(tmp_path: Path) -> None:
    root = tree(tmp_path, ("train", "test"), ("cat", "dog"))
    found = sources.load_source(str(root))
    assert found.kind == "pictures"
    assert found.train.pixels.shape == (2, 3, 20, 20)
    assert found.test is not None
    assert found.validation is None
    asked = sources.load_source(str(root), shape=(1, 8, 9))
    assert asked.train.pixels.shape == (2, 1, 8, 9)


def test_cifar10_is_fetched_where_it_is_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    root = tree(tmp_path / "fetched", ("train", "test"), CLASSES, 32)

    def fetch(card: DatasetCard, *, progress: object = None) -> tuple[Path, ...]:
        asked.append(card.name)
        return (root,)

    monkeypatch.setattr(sources, "fetch_dataset", fetch)
    monkeypatch.setenv("UNMASK_DATA", str(tmp_path))
    assert len(sources.load_source("cifar10").train) == 10
    assert asked == ["cifar10-binary"]
    asked.clear()
    assert len(sources.load_source("cifar10", source=root).train) == 10
    assert asked == [], "nothing is fetched when a source is given"


def test_what_is_not_there_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such images: got mnits"):
        sources.load_source("mnits")
    with pytest.raises(UserError, match="a source is for cifar10 alone: got mnist"):
        sources.load_source("mnist", source=tmp_path)
