"""What detectors of folds find in images that they were not trained on, and in harder copies.

Each fold's detector is quantised as it ships and looks at the images that its training left out: as
they are, in the dark, turned, blurred, far away; at the hard set of hard_faces; and all folds look
at images without a face, none of which were trained on. What is found goes, uncalibrated, into
FOLDS/fold-K/wild.json, from which benchmarks.release.detector_card makes its figures.

    python -m benchmarks.mask.wild FACES --folds runs/mask-folds --samples SCIKIT-IMAGE-WHEEL
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.mask.hard_faces import BARE, LEAST_SIDE, compose
from benchmarks.release.train_detector import SAMPLES
from PIL import Image, ImageFilter

from unmask.data.detection.boxes import area, clip
from unmask.data.detection.corrections import read_copies
from unmask.data.detection.dataset import AnnotatedImages, load_faces
from unmask.mask.evaluate.confidence import FLOOR
from unmask.mask.evaluate.folds import folds
from unmask.mask.evaluate.matching import face_sides
from unmask.mask.runtime.calibration import Calibration
from unmask.mask.runtime.detector import MaskDetector
from unmask.mask.training.cross_validation import write_onnx
from unmask.mask.training.export import export_detector
from unmask.mask.training.network import load_detector
from unmask.mask.training.scenes import texture
from unmask.runtime import seeded, write_atomically

COUNT, SCALE = 5, 1.6
_STREAM = 41
# Of each fold's left-out images, for the copies that are turned or changed.
COPIES = 25
# And so many of those that show a large bare face, for the hard set.
HARD = 16
# scikit-image's samples that show people, or that were trained on.
_FACES = {"astronaut.png", "camera.png", "multipage.tif", "multipage_rgb.tif"}
TEXTURES = 30


@dataclass
class Entry:
    """An image, what is on it, and which of its faces it is about."""

    pixels: Any
    boxes: Any
    labels: Any
    ignored: Any
    about: Any
    name: str = ""


def _entry(annotated: AnnotatedImages, i: int, change: Callable[[Any], Any] | None = None) -> Entry:
    pixels = annotated.pixels(i)
    boxes = annotated.boxes[i]
    return Entry(
        pixels if change is None else change(pixels),
        boxes,
        annotated.labels[i],
        annotated.ignored[i],
        np.ones(len(boxes), bool),
        annotated.paths[i].stem,
    )


def darkened(pixels: Any, factor: float = 0.1) -> Any:
    """Return an image of that fraction of its brightness, rounded down."""
    return (pixels * factor).astype(np.uint8)


def blurred(pixels: Any) -> Any:
    """Return an image out of focus by two pixels."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)))


def turned(annotated: AnnotatedImages, i: int, degrees: float) -> Entry:
    """Return an image turned about its middle on a canvas that holds it whole."""
    image = Image.fromarray(annotated.pixels(i))
    made = image.rotate(degrees, Image.Resampling.BILINEAR, expand=True, fillcolor=(114,) * 3)
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))

    def moved(boxes: Any) -> Any:
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2 - np.array(image.size) / 2
        x, y = middle.T
        at = np.stack([x * cos + y * sin, y * cos - x * sin], 1) + np.array(made.size) / 2
        wide, high = ((boxes[:, 2:] - boxes[:, :2]) / 2).T
        half = np.stack([np.hypot(wide * cos, high * sin), np.hypot(wide * sin, high * cos)], 1)
        return np.concatenate([at - half, at + half], 1).astype(np.float32)

    boxes = moved(annotated.boxes[i])
    cut = clip(boxes, *made.size)
    inside = area(cut) > 0
    return Entry(
        np.asarray(made),
        cut[inside],
        annotated.labels[i][inside],
        clip(moved(annotated.ignored[i]), *made.size),
        np.ones(int(inside.sum()), bool),
    )


def far(annotated: AnnotatedImages, i: int) -> Entry:
    """Return an image at four tenths of its size: faces too small to judge among them."""
    entry = _entry(annotated, i)
    image = Image.fromarray(entry.pixels)
    size = tuple(max(1, round(side * 0.4)) for side in image.size)
    factor = np.array([size[0] / image.width, size[1] / image.height] * 2, np.float32)
    entry.pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0))
    entry.boxes, entry.ignored = entry.boxes * factor, entry.ignored * factor
    return entry


def sets(
    annotated: AnnotatedImages, fold: int, most: int, copies: int
) -> Iterator[tuple[str, Iterator[Entry]]]:
    """Yield each set's name and its images."""
    order = seeded(fold, _STREAM).permutation(len(annotated)).tolist()
    chosen = order[:copies]
    yield "as they are", (_entry(annotated, i) for i in order[:most])
    yield "dark", (_entry(annotated, i, darkened) for i in chosen)
    yield "blurred", (_entry(annotated, i, blurred) for i in chosen)
    yield "far", (far(annotated, i) for i in chosen)
    yield from hard_sets(annotated, fold, order)
    for degrees in (45, 30, 15, 90):
        yield f"turned {degrees}", (turned(annotated, i, degrees) for i in chosen)


def hard_sets(
    annotated: AnnotatedImages, fold: int, order: list[int]
) -> Iterator[tuple[str, Iterator[Entry]]]:
    """Yield the kinds of the hard set, made of images that show a large bare face."""
    bare = annotated.class_names.index(BARE)
    rich = [
        i
        for i in order
        if (face_sides(annotated.boxes[i][annotated.labels[i] == bare]) >= LEAST_SIDE).any()
    ][:HARD]
    none = np.zeros((0, 4), np.float32)
    for kind, images in compose(annotated[rich], fold).items():
        yield kind, (Entry(p.pixels, p.boxes, p.labels, none, p.about) for p in images)


def without_faces(samples: Path | None, cifar: Path | None) -> Iterator[tuple[str, Any]]:
    """Yield the name and the pixels of images without a face, none of them trained on."""
    if samples is not None:
        with zipfile.ZipFile(samples) as wheel:
            for name in wheel.namelist():
                own = Path(name).name
                known = own in SAMPLES or own in _FACES
                image = name.startswith("skimage/data/") and own.endswith((".png", ".jpg", ".gif"))
                if image and not known:
                    opened = Image.open(io.BytesIO(wheel.read(name)))
                    yield own, np.asarray(opened.convert("RGB"))
    if cifar is not None:
        sheet = np.asarray(Image.open(cifar / "test_00.webp").convert("RGB"))
        cells = sheet.reshape(25, 32, 40, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)
        for k in range(40):
            # Six animals and things side by side, each ten times as large.
            own = cells[k * 6 : k * 6 + 6].reshape(2, 3, 32, 32, 3)
            tiled = own.transpose(0, 2, 1, 3, 4).reshape(64, 96, 3)
            yield f"cifar-{k}", np.asarray(Image.fromarray(tiled).resize((480, 320), 3))
    for k in range(TEXTURES):
        yield f"texture-{k}", texture((320, 420), seeded(k, _STREAM, 1))


def without_copies(annotated: AnnotatedImages, fold: Any) -> Any:
    """Return bool[n]: which images have no copy in another fold than their own."""
    place = {path.stem: i for i, path in enumerate(annotated.paths)}
    alone = np.ones(len(annotated), bool)
    for copies in read_copies():
        own = [place[stem] for stem in copies if stem in place]
        if len(set(fold[own].tolist())) > 1:
            alone[own] = False
    return alone


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--folds", type=Path, default=Path("runs/mask-folds"))
    parser.add_argument("--only", type=int, nargs="*", default=list(range(COUNT + 1)))
    parser.add_argument("--pack", type=Path, help="what they were trained on, for its folds")
    parser.add_argument("--images", type=int, help="of those left out, so many; all by default")
    parser.add_argument("--copies", type=int, default=COPIES, help="changed, so many of each kind")
    parser.add_argument("--empty", type=int, default=1, help="every so many images without a face")
    parser.add_argument("--floating", action="store_true", help="in floating point, not 8 bits")
    parser.add_argument("--samples", type=Path, help="scikit-image's wheel")
    parser.add_argument("--cifar", type=Path, help="a folder with CIFAR-10's sheets")
    told = parser.parse_args()
    annotated = load_faces(told.faces, corrected=True)
    if told.pack is None:
        fold = np.zeros(len(annotated), np.int64)
        for k, (_, held) in enumerate(folds(annotated, COUNT)):
            fold[held] = k
    else:
        with zipfile.ZipFile(told.pack) as archive:
            entries = json.loads(archive.read("facts.json"))["images"]
        dealt = {entry["name"]: entry["fold"] for entry in entries}
        fold = np.array([dealt[path.stem] for path in annotated.paths])
    with write_atomically(told.folds / "dealt.json") as file:
        alone = without_copies(annotated, fold)
        measured = np.where(alone, fold, -1).tolist()
        stems = [path.stem for path in annotated.paths]
        file.write(json.dumps(dict(zip(stems, measured, strict=True))).encode())
    for k in told.only:
        seen, held = np.flatnonzero(fold != k), np.flatnonzero((fold == k) & alone)
        out = told.folds / f"fold-{k}"
        onnx = out / ("float32.onnx" if told.floating else "int8.onnx")
        if not onnx.exists() and told.floating:
            network, card = load_detector(out / "detector.safetensors")
            export_detector(network, card, onnx, calibration=Calibration(), scale=SCALE)
        elif not onnx.exists():
            difference, agreement = write_onnx(onnx, out, annotated[seen], k, Calibration(), SCALE)
            print(f"fold {k}: ONNX within {difference:.1e}, 8 bits {agreement}", flush=True)
        detector = MaskDetector.load(onnx).uncalibrated()
        found: dict[str, Any] = {}
        empty = without_faces(told.samples, told.cifar) if len(held) else ()
        found["without a face"] = [
            {"name": name, "found": detector.detect(pixels, threshold=FLOOR).as_dict()}
            for name, pixels in islice(empty, k % told.empty, None, told.empty)
        ]
        for name, entries in (
            sets(annotated[held], k, told.images, told.copies) if len(held) else ()
        ):
            found[name] = [
                {
                    "name": e.name,
                    "found": detector.detect(e.pixels, threshold=FLOOR).as_dict(),
                    "boxes": e.boxes.tolist(),
                    "labels": e.labels.tolist(),
                    "ignored": e.ignored.tolist(),
                    "about": e.about.tolist(),
                }
                for e in entries
            ]
            # After every set: what was found until then is there when it is stopped.
            with write_atomically(out / "wild.json") as file:
                file.write(json.dumps(found).encode())
        print(f"fold {k}: done", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
