"""What the detector that ships says of itself: JSON beside the ONNX file, and the same in words."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from unmask.errors import UserError
from unmask.runtime import read_regular, sha256, write_atomically

_LIMIT = 1 << 20


@dataclass(frozen=True)
class ShippedCard:
    """What a detector is, in plain values.

    class_names: in the order of the probabilities. onnx_sha256, weights_sha256: of the ONNX and the
    safetensors file, in hex. facts: whatever else there is to know, such as data, recipe, figures
    and where it fails.
    """

    class_names: tuple[str, ...]
    onnx_sha256: str
    weights_sha256: str
    facts: dict[str, Any] = field(default_factory=dict)
    format: Literal["unmask-mask-detector/1"] = "unmask-mask-detector/1"

    def __post_init__(self) -> None:
        if self.format != "unmask-mask-detector/1":
            raise UserError("this is no card of a mask detector", got=self.format)

    def write(self, path: Path) -> None:
        """Write the card as JSON, whole or not at all."""
        with write_atomically(path) as file:
            file.write((json.dumps(asdict(self), indent=2) + "\n").encode())

    @staticmethod
    def read(path: Path) -> ShippedCard:
        """Read what write wrote. Raises UserError when it is missing, damaged or no such card."""
        try:
            entries = json.loads(read_regular(path, _LIMIT))
            entries["class_names"] = tuple(entries["class_names"])
            return ShippedCard(**entries)
        except FileNotFoundError:
            raise UserError(
                "the detector has no card beside it", got=path, do="install unmask again"
            ) from None
        except (OSError, ValueError, TypeError, KeyError, RecursionError, UserError) as error:
            raise UserError(
                f"{path} is no readable card of a detector",
                got=str(error),
                do="install unmask again",
            ) from error

    def check(self, content: bytes, file: Path) -> None:
        """Raise UserError unless content is the ONNX file that the card describes."""
        if (found := sha256(content)) != self.onnx_sha256:
            raise UserError(
                f"{file.name} is not the file that its card describes",
                got=f"SHA-256 {found}",
                do="install unmask again",
            )
