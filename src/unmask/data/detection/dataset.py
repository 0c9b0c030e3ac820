"""Images with boxes round objects, from the annotations of many tools."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.detection import coco, cvat, label_studio, voc, yolo
from unmask.data.detection.annotation import Annotation, Found, PathParts, PictureIndex
from unmask.data.detection.boxes import Boxes, area, clip
from unmask.data.detection.corrections import Correction, apply_corrections, read_corrections
from unmask.data.listing import PictureFile, list_pictures, read_file, skipped
from unmask.data.peek import upright_size
from unmask.data.picture import SUFFIXES, open_picture
from unmask.data.unpack import unpacked
from unmask.errors import UserError
from unmask.runtime import read_regular, sha256

FACE_CLASSES = ("with_mask", "without_mask", "mask_weared_incorrect")
# In this order: the first reader that finds annotations reads the whole folder.
_READERS: tuple[Callable[[list[PictureFile], PictureIndex, list[str]], Found], ...] = (
    voc.read_voc,
    cvat.read_cvat,
    coco.read_coco,
    label_studio.read_label_studio,
    yolo.read_yolo,
)
_KINDS = SUFFIXES | {voc.SUFFIX, coco.SUFFIX, yolo.SUFFIX, ".yaml", ".yml", ".names", ".labels"}


@dataclass(frozen=True, eq=False)
class AnnotatedImages:
    """Image files with the boxes in each; the arrays must not be changed afterwards.

    Args:
        paths: of n files; n may be 0.
        sizes: int64[n, 2], width and height in pixels, upright.
        boxes: n arrays float32[k, 4], xyxy in absolute pixels, half-open, inside the image and not
            empty; k may be 0.
        labels: n arrays int64[k], indices into class_names.
        class_names: distinct.
        name: where the images come from, in words.
        ignored: n arrays float32[j, 4], regions in which a detection is neither right nor wrong;
            none by default.

    Raises:
        UserError: when the parts don't fit one another.
    """

    paths: tuple[Path, ...]
    sizes: NDArray[np.int64]
    boxes: tuple[Boxes, ...]
    labels: tuple[NDArray[np.int64], ...]
    class_names: tuple[str, ...]
    name: str
    ignored: tuple[Boxes, ...] = ()

    def __post_init__(self) -> None:
        n, k = len(self.paths), len(self.class_names)
        if not self.ignored:
            none = tuple(np.zeros((0, 4), np.float32) for _ in self.paths)
            object.__setattr__(self, "ignored", none)
        if len(self.ignored) != n or any(b.shape[1:] != (4,) for b in self.ignored):
            raise UserError(f"ignored regions must be {n} arrays of boxes", got=len(self.ignored))
        if self.sizes.shape != (n, 2) or not len(self.boxes) == len(self.labels) == n:
            raise UserError(
                f"annotated images need a size, boxes and labels for each of {n} paths",
                got=f"{len(self.sizes)}, {len(self.boxes)} and {len(self.labels)}",
            )
        if not k or len(set(self.class_names)) != k:
            raise UserError("class names must be distinct", got=self.class_names)
        for path, boxes, labels in zip(self.paths, self.boxes, self.labels, strict=True):
            if boxes.shape != (len(labels), 4) or boxes.dtype != np.float32:
                raise UserError(
                    f"the boxes of {path.name} must be float32[{len(labels)}, 4], one a label",
                    got=f"{boxes.dtype}{list(boxes.shape)}",
                )
            if len(labels) and not 0 <= labels.min() <= labels.max() < k:
                raise UserError(
                    f"the labels of {path.name} must be 0 to {k - 1}", got=labels.tolist()
                )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: NDArray[np.integer[Any]] | Sequence[int]) -> AnnotatedImages:
        chosen = [int(i) for i in index]
        return AnnotatedImages(
            tuple(self.paths[i] for i in chosen),
            self.sizes[chosen].reshape(-1, 2),
            tuple(self.boxes[i] for i in chosen),
            tuple(self.labels[i] for i in chosen),
            self.class_names,
            self.name,
            tuple(self.ignored[i] for i in chosen),
        )

    @property
    def counts(self) -> NDArray[np.int64]:
        """The number of boxes of each class, int64[classes]."""
        labels = np.concatenate([np.zeros(0, np.int64), *self.labels])
        return np.bincount(labels, minlength=len(self.class_names)).astype(np.int64)

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """Return one image, upright, as uint8[height, width, 3].

        Args:
            index: 0 to n - 1.

        Raises:
            UserError: with the file's name, when it can't be read or is damaged.
        """
        path = self.paths[index]
        try:
            return np.asarray(open_picture(read_regular(path)))
        except (UserError, OSError) as error:
            raise UserError(f"can't read {path.name}", got=error) from error

    def named(self, class_names: Sequence[str]) -> AnnotatedImages:
        """Return the images with renamed classes; classes with the same new name become one.

        Args:
            class_names: one new name for each class.

        Raises:
            UserError: when there is another number of names.
        """
        if len(class_names) != len(self.class_names):
            raise UserError(f"{self.name} has {len(self.class_names)} classes", got=class_names)
        names = tuple(dict.fromkeys(class_names))
        places = np.array([names.index(name) for name in class_names])
        labels = tuple(places[labels].astype(np.int64) for labels in self.labels)
        return replace(self, labels=labels, class_names=names)

    def only(self, class_names: Sequence[str]) -> AnnotatedImages:
        """Return the images with only the boxes of the named classes; all classes stay known."""
        wanted = np.array([name in class_names for name in self.class_names])
        kept = [wanted[labels] for labels in self.labels]
        return replace(
            self,
            boxes=tuple(boxes[k] for boxes, k in zip(self.boxes, kept, strict=True)),
            labels=tuple(labels[k] for labels, k in zip(self.labels, kept, strict=True)),
        )

    def with_classes(self, class_names: Sequence[str]) -> AnnotatedImages:
        """Return the images with their labels numbered as in class_names.

        Args:
            class_names: every class that has a box, in the wanted order; others may be among them.

        Raises:
            UserError: when the images have boxes of another class.
        """
        counts = self.counts
        used = [name for name, count in zip(self.class_names, counts, strict=True) if count]
        if strange := sorted(set(used) - set(class_names)):
            raise UserError(
                f"{self.name} has boxes of classes that aren't known",
                got=", ".join(strange[:5]),
                do=f"name them as the model does: {', '.join(class_names[:12])}",
            )
        places = np.array(
            [class_names.index(name) if name in used else -1 for name in self.class_names]
        )
        labels = tuple(places[labels].astype(np.int64) for labels in self.labels)
        return replace(self, labels=labels, class_names=tuple(class_names))

    @functools.cached_property
    def sha256(self) -> str:
        """The SHA-256, in hex, of the files' contents, their boxes and labels and the classes."""
        header = json.dumps([self.class_names, self.sizes.tolist()]).encode()
        parts: list[bytes] = [header]
        for path, boxes, labels in zip(self.paths, self.boxes, self.labels, strict=True):
            try:
                parts.append(bytes.fromhex(sha256(read_regular(path))))
            except OSError as error:
                raise UserError(f"can't read {path}", got=error.strerror) from error
            parts += [boxes.astype("<f4").tobytes(), labels.astype("<i8").tobytes()]
        # Without regions to ignore the checksum is that of the versions that had no such regions.
        parts += [boxes.astype("<f4").tobytes() for boxes in self.ignored if len(boxes)]
        return sha256(*parts)

    def corrected(self, corrections: dict[str, list[Correction]] | None = None) -> AnnotatedImages:
        """Return the images with corrected annotations.

        Args:
            corrections: by the image's stem; by default those of the face mask set, which ship.

        Raises:
            UserError: when a correction names a box that isn't annotated or an unknown class.
        """
        known = read_corrections() if corrections is None else corrections
        made = [
            apply_corrections(boxes, labels, known.get(path.stem, ()), self.class_names)
            for path, boxes, labels in zip(self.paths, self.boxes, self.labels, strict=True)
        ]
        return replace(
            self,
            boxes=tuple(m.boxes for m in made),
            labels=tuple(m.labels for m in made),
            ignored=tuple(m.ignored for m in made),
        )


def read_annotated(
    folder: str | os.PathLike[str],
) -> tuple[AnnotatedImages, tuple[str, ...]]:
    """Return the annotated images of a folder or zip archive, and a line for each fault found.

    Annotations are PASCAL VOC, CVAT, COCO, Label Studio or YOLO files anywhere below the folder,
    recognised by their content. Classes may have any names, and come by number for COCO and YOLO
    and by name otherwise; YOLO's names may also stand in the folder above. Images come in the order
    of their paths. Boxes that reach out of the image are cut to it; boxes that are inverted, empty,
    infinite or outside the image are dropped. Files and images that can't be used are left out, and
    so are images without an annotation. Zip archives are unpacked into the cache.

    Args:
        folder: the folder or zip archive.

    Returns:
        The images, and the warnings.

    Raises:
        UserError: when there are no annotated images or none has a box.
    """
    root = Path(folder)
    above = _above(root)
    if root.is_file():
        root = unpacked(root, _KINDS)
    with list_pictures(root, _KINDS) as listing:
        pictures = [f for f in listing.files if Path(f.path[-1]).suffix.lower() in SUFFIXES]
        index = PictureIndex(pictures)
        found, warnings = _read(listing.files + above, index)
    if not found.annotations:
        seen = warnings[0] if warnings else f"{len(pictures)} images without any"
        raise UserError(
            f"no annotated images in {folder}",
            got=seen,
            do="give a folder with PASCAL VOC, CVAT, COCO, Label Studio or YOLO annotations and "
            "their images",
        )
    owner: dict[PathParts, PathParts] = {}
    kept: list[tuple[Path, tuple[int, int], Boxes, NDArray[np.int64]]] = []
    for annotation in sorted(found.annotations, key=lambda a: a.picture):
        picture = annotation.picture
        path = root.joinpath(*picture)
        try:
            if picture in owner:
                raise UserError(f"{'/'.join(owner[picture])!r} annotates its image already")
            size = _checked_size(path, annotation)
        except UserError as error:
            about = () if annotation.file[-1:] == picture[-1:] else (picture[-1],)
            warnings.append(skipped((*annotation.file, *about), str(error)))
            continue
        owner[picture] = annotation.file
        boxes, inside = _fitted(annotation, size, warnings)
        numbers = [found.class_names.index(name) for name in annotation.names]
        kept.append((path, size, boxes, np.array(numbers, np.int64)[inside]))
    if without := [f.path for f in pictures if f.path not in owner]:
        warnings.append(_passed_over(without))
    if not any(len(boxes) for _, _, boxes, _ in kept):
        raise UserError(
            f"no box can be used in {folder}", got=warnings[0] if warnings else "empty annotations"
        )
    return (
        AnnotatedImages(
            tuple(path for path, _, _, _ in kept),
            np.array([size for _, size, _, _ in kept], np.int64),
            tuple(boxes for _, _, boxes, _ in kept),
            tuple(labels for _, _, _, labels in kept),
            found.class_names,
            Path(folder).resolve().stem,
        ),
        tuple(warnings),
    )


def load_faces(folder: str | os.PathLike[str], *, corrected: bool = False) -> AnnotatedImages:
    """Return the face mask set from its folder or zip archive, with the classes FACE_CLASSES.

    Args:
        folder: where it is.
        corrected: whether to apply the corrections that ship, of faces that the annotators missed
            or labelled wrongly.

    Raises:
        UserError: as read_annotated, with_classes and corrected do.
    """
    faces = read_annotated(folder)[0].with_classes(FACE_CLASSES)
    return faces.corrected() if corrected else faces


def readable(annotated: AnnotatedImages) -> tuple[AnnotatedImages, tuple[str, ...]]:
    """Return the images that can be decoded, and a line for each of the others.

    Args:
        annotated: the images; every file is decoded once.

    Raises:
        UserError: when none can be decoded.
    """
    kept, warnings = [], []
    for i, path in enumerate(annotated.paths):
        try:
            annotated.pixels(i)
        except UserError as error:
            warnings.append(skipped((path.name,), str(error)))
        else:
            kept.append(i)
    if not kept:
        raise UserError(f"no image of {annotated.name} can be read", got=(*warnings, "none")[0])
    return annotated[kept], tuple(warnings)


def left_out(warnings: tuple[str, ...]) -> bool:
    """Return whether any of the warnings is about a file that was left out, not only a box."""
    return any(" skipped: " in line for line in warnings)


# The names that exports give the folders of their parts.
_PARTS = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "val": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


def given_parts(annotated: AnnotatedImages) -> dict[str, NDArray[np.int64]]:
    """Return the training, validation and test images by the folders that they lie in.

    Args:
        annotated: n images.

    Returns:
        int64 arrays of indices for "train", "validation" and "test"; an empty dictionary unless
        every image lies in the folder of one part and there are both training and validation
        images.
    """
    names = []
    for path in annotated.paths:
        parts = [_PARTS[part.lower()] for part in path.parts[:-1] if part.lower() in _PARTS]
        names.append(parts[-1] if parts else "")
    found = {
        name: np.flatnonzero(np.array(names) == name) for name in ("train", "validation", "test")
    }
    whole = "" not in names and len(found["train"]) and len(found["validation"])
    return found if whole else {}


def _above(root: Path) -> list[PictureFile]:
    """Return the files above a folder that may name YOLO's classes, as of one part of an export."""
    if not root.is_dir():
        return []
    parent = root.resolve().parent
    return [
        PictureFile((yolo.ABOVE, name), functools.partial(read_file, parent / name))
        for name in yolo.NAME_FILES
        if (parent / name).is_file()
    ]


def _read(files: list[PictureFile], index: PictureIndex) -> tuple[Found, list[str]]:
    told: list[str] = []
    for reader in _READERS:
        warnings: list[str] = []
        found = reader(files, index, warnings)
        if found.annotations:
            return found, warnings
        told += warnings
    return Found([], ()), told


def _checked_size(path: Path, annotation: Annotation) -> tuple[int, int]:
    size = upright_size(path)
    if annotation.size not in (None, size):
        assert annotation.size
        raise UserError(
            "it is of an image of another size",
            got="{} x {} there and {} x {} here".format(*annotation.size, *size),
        )
    return size


def _fitted(
    annotation: Annotation, size: tuple[int, int], warnings: list[str]
) -> tuple[Boxes, NDArray[np.bool_]]:
    """Return the usable boxes, in pixels and cut to the image, and a mask of those among all."""
    scale = np.array([*size, *size]) if annotation.relative else np.ones(4)
    # Values beyond the range of float32 become infinite, and are then dropped as not finite.
    with np.errstate(over="ignore", invalid="ignore"):
        boxes = (annotation.boxes * scale).astype(np.float32)
    finite = np.asarray(np.isfinite(boxes).all(axis=1), np.bool_)
    upright = finite & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    cut = clip(np.where(finite[:, None], boxes, np.float32(0)), *size)
    inside = upright & (area(cut) > 0)
    # Boxes given as fractions of the sides reach the edge with rounding errors.
    reaches_out = inside & (np.abs(cut - boxes) > 0.01).any(axis=1)
    amiss = {
        "dropped as not finite": ~finite,
        "dropped as inverted or empty": finite & ~upright,
        "dropped as outside the image": upright & ~inside,
        "cut to the image": reaches_out,
    }
    for words, which in amiss.items():
        if count := int(np.count_nonzero(which)):
            boxes_said = "1 box" if count == 1 else f"{count} boxes"
            warnings.append(f"{'/'.join(annotation.file)!r}: {boxes_said} {words}")
    return cut[inside], inside


def _passed_over(pictures: list[PathParts]) -> str:
    first = "/".join(pictures[0])
    return f"images passed over as not annotated: {len(pictures)}, the first {first!r}"
