"""Words and colours for what a face wears; the words tell classes apart without the colours."""

from __future__ import annotations

from collections.abc import Sequence

from unmask.errors import UserError
from unmask.mask.runtime.detections import NOT_JUDGED_NAME

Colour = tuple[int, int, int]

GREEN, RED, AMBER, GREY = (26, 152, 80), (215, 38, 38), (255, 176, 0), (128, 128, 128)

WITH, WITHOUT, IMPROPER = "with_mask", "without_mask", "mask_weared_incorrect"
# What is drawn beside a box, and its colour.
_SHORT = {
    WITH: ("mask", GREEN),
    WITHOUT: ("no mask", RED),
    IMPROPER: ("worn wrong", AMBER),
    NOT_JUDGED_NAME: ("can't tell", GREY),
}
_LONG = {
    WITH: "with mask",
    WITHOUT: "without mask",
    IMPROPER: "mask worn improperly",
    NOT_JUDGED_NAME: "not clear enough to judge",
}
# For the classes of your own detector; distinct for people who can't distinguish red from green
# (Okabe and Ito, 2008).
_OTHERS: tuple[Colour, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (204, 121, 167),
    (86, 180, 233),
    (240, 228, 66),
    (213, 94, 0),
)


def renamed(
    names: tuple[str, ...], given: Sequence[str], *, merge: bool = False
) -> tuple[str, ...]:
    """Return class names by the names that the gate and the drawings know.

    Args:
        names: as a detector or annotations have them.
        given: "with=Mask", "without=No Mask", "improper=...": which of names is which.
        merge: whether several names may become one kind, for annotations with many kinds of masks.

    Raises:
        UserError: a text of another form, a name that isn't there, or two classes of one name.
    """
    kinds = {"with": WITH, "without": WITHOUT, "improper": IMPROPER}
    new = dict(zip(names, names, strict=True))
    for text in given:
        kind, _, name = text.partition("=")
        if kind not in kinds or name not in names:
            raise UserError(
                "--classes takes with=NAME, without=NAME and improper=NAME",
                got=text,
                do=f"the names are {', '.join(names[:12])}",
            )
        new[name] = kinds[kind]
    if len(set(new.values())) != len(new) and not merge:
        raise UserError("--classes gives two classes one name", got=" ".join(given))
    return tuple(new.values())


def short_words(name: str) -> str:
    """Return the words that are drawn beside a face of this class."""
    return _SHORT[name][0] if name in _SHORT else name.replace("_", " ")


def plain_words(name: str) -> str:
    """Return the name of the class in words, for summaries."""
    return _LONG.get(name, name.replace("_", " "))


def colour_of(name: str, class_names: tuple[str, ...]) -> Colour:
    """Return the colour of a class: red, green and blue, 0 to 255.

    Args:
        name: of the class, or NOT_JUDGED_NAME.
        class_names: all names of the detector.
    """
    if name in _SHORT:
        return _SHORT[name][1]
    return _OTHERS[class_names.index(name) % len(_OTHERS)]
