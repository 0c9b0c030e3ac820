"""PASCAL VOC: one XML file for each image, boxes in pixels."""

from __future__ import annotations

from pathlib import PurePosixPath
from xml.etree import ElementTree
from xml.parsers import expat

from unmask.data.detection.annotation import Annotation, Found, PictureIndex, box_array, class_name
from unmask.data.listing import PictureFile, skipped
from unmask.errors import UserError

SUFFIX = ".xml"
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_MAX_BYTES = 1 << 26


def read_voc(files: list[PictureFile], pictures: PictureIndex, warnings: list[str]) -> Found:
    """Return the annotations of PASCAL VOC's XML files (Everingham et al., 2010).

    Boxes are taken as they stand, half-open. The image is the one with the XML's own stem, or else
    the one it names. Files that are no annotation, or whose image is missing, are named in
    warnings. CVAT's XML is left to read_cvat.

    Args:
        files: all files of the tree; those that end in .xml are read.
        pictures: its images.
        warnings: gets one line for each thing left out.
    """
    annotations: list[Annotation] = []
    for file in files:
        if not file.path[-1].lower().endswith(SUFFIX):
            continue
        try:
            found = _annotation(file, pictures)
        except UserError as error:
            warnings.append(skipped(file.path, str(error)))
        else:
            annotations += [found] if found else []
    return Found(annotations, tuple(sorted({name for a in annotations for name in a.names})))


def _annotation(file: PictureFile, pictures: PictureIndex) -> Annotation | None:
    root = parse_xml(file.read())
    if root.tag == "annotations":
        return None
    if root.tag != "annotation":
        raise UserError("no PASCAL VOC annotation", got=f"<{root.tag[:40]}> on the outside")
    boxes, names = [], []
    for thing in root.iter("object"):
        names.append(class_name(thing.findtext("name")))
        x1, y1, x2, y2 = (_number(thing.findtext(f"bndbox/{side}"), side) for side in _SIDES)
        boxes.append((x1, y1, x2, y2))
    width, height = (root.findtext(f"size/{side}") for side in ("width", "height"))
    size = (int(_number(width, "width")), int(_number(height, "height"))) if width else None
    own = PurePosixPath(file.path[-1]).stem
    name = own if own in pictures else root.findtext("filename") or own
    picture = pictures.find(file.path, name)
    # Some tools leave the size at 0 x 0.
    stated = size if size and all(size) else None
    return Annotation(file.path, picture, box_array(boxes), tuple(names), stated)


def parse_xml(data: bytes) -> ElementTree.Element:
    """Return the outermost element of an XML text.

    A document type is refused, since it can declare entities, with which a small file can fill the
    memory or read other files.

    Args:
        data: at most 64 MiB.

    Raises:
        UserError: for a document type, for a larger text, and for what is no XML.
    """
    if len(data) > _MAX_BYTES:
        raise UserError("the file is too large", do=f"the limit is {_MAX_BYTES} bytes")
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    except UserError:
        raise
    except (expat.ExpatError, LookupError, ValueError, AssertionError) as error:
        raise UserError("no XML", got=str(error) if data.strip() else "an empty file") from error


def _refuse(*_: object) -> None:
    raise UserError("it declares a document type, which is refused as unsafe")


def _number(text: str | None, name: str) -> float:
    try:
        number = float(text or "")
        # NaN and infinities stay in boxes, which are checked together; a size can't hold them.
        return number if name in _SIDES else float(int(number))
    except (ValueError, OverflowError) as error:
        raise UserError(f"its {name} is no number", got=repr(text)) from error
