"""What the readers of annotations have in common: what they return, how they find images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from unmask.data.listing import PictureFile
from unmask.errors import UserError

PathParts = tuple[str, ...]
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Annotation:
    """What a file states about one image, not yet checked against the image.

    Args:
        file: the annotation file's path below the root.
        picture: the image's path below the root.
        boxes: float64[k, 4], xyxy in pixels, or as fractions of the image's sides where relative.
        names: the class of each of the k boxes.
        size: (width, height) in pixels as stated, None where it isn't.
        relative: whether the boxes are fractions of the sides.
    """

    file: PathParts
    picture: PathParts
    boxes: NDArray[np.float64]
    names: tuple[str, ...]
    size: tuple[int, int] | None = None
    relative: bool = False


@dataclass(frozen=True)
class Found:
    """The annotations that a reader found.

    Args:
        annotations: one for each annotated image.
        class_names: the classes, in their order.
    """

    annotations: list[Annotation]
    class_names: tuple[str, ...]


class PictureIndex:
    """Images found by the names that annotations use.

    The stem decides, since sets are often converted to other image formats while their annotations
    stay. Of several images with the stem, the one with that very name is taken, and among those the
    one that shares most folders with the annotation.

    Args:
        files: the image files of the tree.
    """

    def __init__(self, files: Sequence[PictureFile]) -> None:
        self._by_stem: dict[str, list[PathParts]] = {}
        self.paths = tuple(file.path for file in files)
        for file in files:
            self._by_stem.setdefault(PurePosixPath(file.path[-1]).stem, []).append(file.path)

    def __contains__(self, stem: str) -> bool:
        return stem in self._by_stem

    def find(self, file: PathParts, name: str) -> PathParts:
        """Return the path of the image that an annotation refers to.

        Args:
            file: the annotation file's path below the root.
            name: the image's name in it, with or without folders and suffix.

        Raises:
            UserError: when there is no such image.
        """
        called = PurePosixPath(name.replace("\\", "/"))
        near = {*file[:-1], *called.parts[:-1]}
        candidates = self._by_stem.get(called.name, []) + self._by_stem.get(called.stem, [])
        if not candidates:
            raise UserError("its image is missing", got=repr(name))
        return max(candidates, key=lambda p: (p[-1] == called.name, len(near & {*p[:-1]})))


def class_name(text: object) -> str:
    """Return the name of a class without the space around it.

    Args:
        text: what stands in the annotation.

    Raises:
        UserError: unless it is a text of 1 to 100 printable characters.
    """
    name = text.strip() if isinstance(text, str) else ""
    if not name or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise UserError(
            f"a class is named in 1 to {_LONGEST_NAME} characters", got=repr(text)[:_LONGEST_NAME]
        )
    return name


def box_round(across: Sequence[float], down: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the box round points: left, top, right, bottom."""
    return min(across), min(down), max(across), max(down)


def box_array(boxes: list[tuple[float, float, float, float]]) -> NDArray[np.float64]:
    """Return boxes as float64[k, 4], also where there are none."""
    return np.array(boxes, np.float64).reshape(-1, 4)
