"""Labelled images: sets that ship, sets that are downloaded, and folders of your own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmask.data.cards import CARDS, DatasetCard
    from unmask.data.fetch import fetch_dataset
    from unmask.data.folder import PictureFolder, load_folder
    from unmask.data.images import Images
    from unmask.data.mnist import load_mnist

_HOMES = {
    "CARDS": "unmask.data.cards",
    "DatasetCard": "unmask.data.cards",
    "Images": "unmask.data.images",
    "PictureFolder": "unmask.data.folder",
    "fetch_dataset": "unmask.data.fetch",
    "load_folder": "unmask.data.folder",
    "load_mnist": "unmask.data.mnist",
}

__all__ = [
    "CARDS",
    "DatasetCard",
    "Images",
    "PictureFolder",
    "fetch_dataset",
    "load_folder",
    "load_mnist",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unmask.data' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
