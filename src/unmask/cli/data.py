"""The verb data: a dataset fetched unless it is there, and checked to be complete."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from unmask.cli.streams import say
from unmask.data.cards import CARDS, DatasetCard
from unmask.errors import UserError, unknown

if TYPE_CHECKING:
    from unmask.data.images import Images

NOT_WHOLE = 1
_CIFAR10_EACH = 6000
_WARNINGS_SHOWN = 5


@dataclass(frozen=True)
class _Found:
    """The images found, the number there should be, and the problems with the files.

    place is where they lie, in words; things is the word for what is counted by class.
    """

    card: DatasetCard
    place: str
    pictures: int
    things: str
    counts: dict[str, int]
    wanted_pictures: int
    wanted: dict[str, int]
    warnings: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        return (self.pictures, self.counts) == (self.wanted_pictures, self.wanted)


def data(
    name: Annotated[str, Parameter(help="faces, mnist, cifar10 or all")],
    /,
    *,
    source: Annotated[
        Path | None, Parameter(help="where faces or cifar10 is: a folder, a zip or an archive")
    ] = None,
    sheets: Annotated[
        Path | None, Parameter(help="also write cifar10 as lossless WebP sheets into this folder")
    ] = None,
    json: Annotated[bool, Parameter(help="print what was found as JSON")] = False,
) -> int:
    """Fetch a dataset that is not there yet, and check that it is complete.

    The exit status is 1 when the images or labels aren't as many as they were published.
    """
    kinds: dict[str, Callable[[Path | None], _Found]] = {
        "faces": _faces,
        "mnist": _mnist,
        "cifar10": partial(_cifar10, sheets=sheets),
    }
    if name not in (*kinds, "all"):
        raise unknown("dataset", name, [*kinds, "all"])
    if sheets is not None and name != "cifar10":
        raise UserError("sheets hold cifar10 alone", got=name, do="leave --sheets out")
    if name == "all" and source is not None:
        raise UserError("a source is of one dataset", got="all", do="leave --source out")
    chosen = kinds if name == "all" else {name: kinds[name]}
    found: list[_Found] = []
    missing: list[str] = []
    for each, fetch in chosen.items():
        try:
            found.append(fetch(source))
        except UserError as error:
            if name != "all":
                raise
            # The other data sets are still worth having.
            missing.append(each)
            _say(f"{each}: {error}")
    if json:
        told = [_as_dict(dataset) for dataset in found]
        print(json_module.dumps(told if name == "all" else told[0]))
    for dataset in found:
        _tell(dataset, figures=not json)
    if missing:
        raise UserError(
            f"{len(missing)} of {len(chosen)} datasets are not here",
            got=f"all but {', '.join(missing)}",
            do="the lines above say how to get them",
        )
    return 0 if all(dataset.whole for dataset in found) else NOT_WHOLE


def _tell(found: _Found, *, figures: bool) -> None:
    for line in found.warnings[:_WARNINGS_SHOWN]:
        _say(line)
    if (more := len(found.warnings) - _WARNINGS_SHOWN) > 0:
        _say(f"{more} more lines like these; --json holds them all")
    if figures:
        say(f"{found.card.title}: {_counted(found.pictures, found.things, found.counts)}")
        say(f"at: {found.place}")
        say(f"licence: {found.card.licence}")
        say(f"cite: {found.card.citation}")
    if not found.whole:
        _say(
            "this is not the complete set, which holds "
            + _counted(found.wanted_pictures, found.things, found.wanted)
        )


def _faces(source: Path | None) -> _Found:
    from unmask.data.detection.dataset import FACE_CLASSES, read_annotated
    from unmask.data.kaggle import CARD, FACES, PICTURES, find_faces

    place = source or find_faces()
    read, warnings = read_annotated(place)
    faces = read.with_classes(FACE_CLASSES)
    counts = dict(zip(faces.class_names, faces.counts.tolist(), strict=True))
    return _Found(CARD, str(place), len(faces), "faces", counts, PICTURES, FACES, warnings)


def _mnist(source: Path | None) -> _Found:
    from unmask.data.mnist import load_mnist

    if source is not None:
        raise UserError("MNIST ships inside the package", got=source, do="leave --source out")
    # Its bytes are checked when it is loaded, so it is complete.
    counts = _by_class(load_mnist())
    n = sum(counts.values())
    return _Found(CARDS["mnist"], "inside the package", n, "labels", counts, n, counts)


def _cifar10(source: Path | None, sheets: Path | None) -> _Found:
    from unmask.cli.console import Console
    from unmask.cli.progress import load_shown
    from unmask.data.cifar10 import CLASSES
    from unmask.data.sheets import write_sheets

    read = load_shown(Console(stderr=True), "cifar10", source, None)
    assert read.test is not None
    if sheets is not None:
        parts = (("train", read.train), ("test", read.test))
        write_sheets(sheets, {name: (part.pixels, part.labels) for name, part in parts})
    counts = _by_class((read.train, read.test))
    wanted = dict.fromkeys(CLASSES, _CIFAR10_EACH)
    return _Found(
        CARDS["cifar10-binary"],
        read.train.name,
        sum(counts.values()),
        "labels",
        counts,
        sum(wanted.values()),
        wanted,
    )


def _by_class(parts: tuple[Images, Images]) -> dict[str, int]:
    import numpy as np

    names = parts[0].class_names
    counts = sum(np.bincount(part.labels, minlength=len(names)) for part in parts)
    return dict(zip(names, np.asarray(counts).tolist(), strict=True))


def _counted(pictures: int, things: str, counts: dict[str, int]) -> str:
    from unmask.mask.runtime.classes import plain_words

    each = ", ".join(f"{count:,} {plain_words(name)}" for name, count in counts.items())
    return f"{pictures:,} images, {sum(counts.values()):,} {things}: {each}"


def _as_dict(found: _Found) -> dict[str, object]:
    return {
        "name": found.card.name,
        "place": found.place,
        "pictures": found.pictures,
        found.things: found.counts,
        "whole": found.whole,
        "licence": found.card.licence,
        "citation": found.card.citation,
        "warnings": list(found.warnings),
    }


def _say(line: str) -> None:
    say(f"warning: {' '.join(line.split())}", file=sys.stderr)


app = App(
    name="data",
    help="Fetch the face mask set, MNIST or CIFAR-10; audit any set for leaks and wrong labels.",
    help_format="plaintext",
    default_parameter=Parameter(negative=()),
)
app.default(data)
app.command(
    "unmask.cli.data_audit:audit",
    name="audit",
    help="Look for duplicates, leaks, wrong labels, starved classes and shortcuts.",
)
