"""The one card of a model, classifier or detector: JSON beside its weights. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from unmask.errors import UserError
from unmask.runtime import read_regular, sha256, write_atomically

CLASSIFIER: Literal["unmask-classifier/1"] = "unmask-classifier/1"
DETECTOR: Literal["unmask-detector/2"] = "unmask-detector/2"
_LIMIT = 1 << 20
_TUPLES = ("input_shape", "mean", "std", "class_names")
# Two older formats of detectors left out what all detectors have in common.
_OLD_DETECTORS = ("unmask-mask-detector/1", "unmask-detector/1")
_OLD_DEFAULTS: dict[str, Any] = {
    "architecture": "face_network",
    "input_shape": (3, 32, 32),
    "mean": (0.45,) * 3,
    "std": (0.27,) * 3,
}


@dataclass(frozen=True)
class ModelCard:
    """What a model is, in plain values.

    Args:
        architecture: a name in cnn.ARCHITECTURES, "face_network" for a detector of faces, or
            "custom" for your own network.
        settings: its keyword arguments.
        input_shape: channels, height and width of the images; of a detector, the height and width
            of which those of its inputs are multiples.
        mean: one number a channel, for pixels in [0, 1].
        std: the same, positive.
        class_names: in the order of the logits.
        facts: whatever else is known, such as data, recipe, seed, figures, licence and command.
        weights_sha256: of the safetensors file, in hex.
        onnx_sha256: of the ONNX file beside it, in hex, "" where there is none.
        format: what kind of model this is, and the version of its card.

    Raises:
        UserError: when the parts don't fit one another.
    """

    architecture: str
    settings: dict[str, Any]
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    facts: dict[str, Any]
    weights_sha256: str = ""
    onnx_sha256: str = ""
    format: Literal["unmask-classifier/1", "unmask-detector/2"] = CLASSIFIER

    def __post_init__(self) -> None:
        least = 1 if self.format == DETECTOR else 2
        for name, got, good, wanted in (
            (
                "format",
                self.format,
                self.format in (CLASSIFIER, DETECTOR),
                f"{CLASSIFIER!r} or {DETECTOR!r}",
            ),
            ("architecture", self.architecture, isinstance(self.architecture, str), "a name"),
            ("settings", self.settings, isinstance(self.settings, dict), "keyword arguments"),
            ("facts", self.facts, isinstance(self.facts, dict), "names and values"),
            (
                "input_shape",
                self.input_shape,
                len(self.input_shape) == 3
                and all(type(v) is int and 0 < v <= 4096 for v in self.input_shape),
                "channels, height, width",
            ),
            ("mean", self.mean, _numbers(self.mean, self.input_shape[0]), "one number a channel"),
            (
                "std",
                self.std,
                _numbers(self.std, self.input_shape[0]) and all(v > 0 for v in self.std),
                "one positive number a channel",
            ),
            (
                "class_names",
                self.class_names,
                len(self.class_names) >= least
                and all(isinstance(c, str) for c in self.class_names),
                "two names or more" if least == 2 else "a name or more",
            ),
        ):
            if not good:
                raise UserError(f"a model card's {name} must be {wanted}", got=repr(got))

    def as_dict(self) -> dict[str, Any]:
        """Return the card as plain values; onnx_sha256 is left out where there is no ONNX file."""
        entries = asdict(self)
        if not self.onnx_sha256:
            del entries["onnx_sha256"]
        return entries

    @staticmethod
    def from_dict(entries: Mapping[str, Any]) -> ModelCard:
        """Return the card from what as_dict returned, or from an older format of a detector's card.

        Args:
            entries: the fields by name.

        Raises:
            TypeError: when an entry is of another type.
            UserError: when an entry is missing, unknown or doesn't fit the others.
        """
        given = dict(entries)
        if given.get("format") in _OLD_DETECTORS:
            shape = given.pop("shape", {})
            given = {**_OLD_DEFAULTS, **given, "settings": shape, "format": DETECTOR}
        if given.get("format", CLASSIFIER) not in (CLASSIFIER, DETECTOR):
            raise UserError("no format of a model card is so called", got=given["format"])
        known = {entry.name: entry.default is MISSING for entry in fields(ModelCard)}
        for problem, names in (
            ("lacks", [name for name, needed in known.items() if needed and name not in given]),
            ("has the unknown entry", sorted(given.keys() - known.keys())),
        ):
            if names:
                raise UserError(f"a model card {problem} {names[0]}", got=sorted(given))
        for name in _TUPLES:
            given[name] = tuple(given[name])
        return ModelCard(**given)

    def write(self, path: Path) -> None:
        """Write the card as JSON, whole or not at all."""
        with write_atomically(path) as file:
            file.write((json.dumps(self.as_dict(), indent=2) + "\n").encode())

    @staticmethod
    def read(path: Path) -> ModelCard:
        """Return the card that write wrote.

        Args:
            path: of the JSON file, at most 1 MiB.

        Raises:
            UserError: when it is missing, damaged or no model card.
        """
        try:
            return ModelCard.from_dict(json.loads(read_regular(path, _LIMIT)))
        except FileNotFoundError:
            raise UserError(
                "the model has no card beside it",
                got=path,
                do="copy both files together, or name the network that the weights are of, as in "
                "timm:resnet18@FILE.safetensors",
            ) from None
        except (
            OSError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
            UserError,
        ) as error:
            raise UserError(
                f"{path} is no readable model card",
                got=str(error),
                do="copy or train the model again",
            ) from error

    def check_onnx(self, content: bytes, file: Path) -> None:
        """Check an ONNX file against the card.

        Args:
            content: of the file.
            file: its path, for the error.

        Raises:
            UserError: it is another file than the card describes.
        """
        _same(sha256(content), self.onnx_sha256, file)

    def check_weights(self, found: str, file: Path) -> None:
        """Check a weights file against the card.

        Args:
            found: its SHA-256 in hex.
            file: its path, for the error.

        Raises:
            UserError: it is another file than the card describes.
        """
        _same(found, self.weights_sha256, file)


def _same(found: str, stated: str, file: Path) -> None:
    if found != stated:
        raise UserError(
            f"{file.name} is not the file that its card describes",
            got=f"SHA-256 {found}",
            do=f"copy {file.name} and its .json together",
        )


def _numbers(values: tuple[Any, ...], count: int) -> bool:
    return len(values) == count and all(
        isinstance(v, (int, float)) and abs(v) < float("inf") for v in values
    )
