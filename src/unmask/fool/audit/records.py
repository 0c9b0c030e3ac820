"""The results of an audit's attacks, by image, and the files that hold them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask import saved_state
from unmask.runtime import write_atomically
from unmask.saved_state import check_array, check_keys, damaged, parse_json, reading

# The names of columns in files, where they differ from today's.
_SAVED_AS = {"predicted": "said", "confidence": "certainty"}


@dataclass(frozen=True)
class AttackRecord:
    """The result of one attack at one size, and its cost.

    Args:
        name: of the attack.
        eps: None for the smallest change.
        needs_gradient: whether the attack uses gradients.
        tried: the number of images attacked.
        fooled: of them, by the judge.
        nearer: for how many its change is the smallest of the attacks so far.
        forwards: images in forward passes.
        backwards: images in backward passes.
    """

    name: str
    eps: float | None
    needs_gradient: bool
    tried: int
    fooled: int
    nearer: int
    forwards: int
    backwards: int

    def __add__(self, other: AttackRecord) -> AttackRecord:
        counts = ("tried", "fooled", "nearer", "forwards", "backwards")
        sums = {k: getattr(self, k) + getattr(other, k) for k in counts}
        return AttackRecord(self.name, self.eps, self.needs_gradient, **sums)


@dataclass(frozen=True)
class Worst:
    """The nearest adversarial image, as judged, of each of n images, each array [n].

    Args:
        rows: the image's place among those given.
        labels: the true class.
        clean: the class predicted for the unchanged image.
        size: of the smallest change in the audit's norm; 0 where the unchanged image is
            misclassified and infinity where no attack succeeded.
        predicted: the class predicted for the adversarial image, -1 where there is none.
        confidence: the confidence of that prediction, NaN where there is none.
        l2: the size of its change in L2, likewise.
        linf: the size of its change in Linf, likewise.
        similarity: its SSIM with the original, likewise.
        saved: whether it still fools as an 8-bit image.
        by: the attack, as an index into the records, -1 where there is none.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    clean: NDArray[np.int64]
    size: NDArray[np.float64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    l2: NDArray[np.float64]
    linf: NDArray[np.float64]
    similarity: NDArray[np.float64]
    saved: NDArray[np.bool_]
    by: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @staticmethod
    def joined(parts: list[Worst]) -> Worst:
        """Return the concatenated parts."""
        return Worst(**_columns(parts))

    def check(self, attacks: int, path: Path) -> None:
        """Raise UserError where an image names an attack that isn't among those recorded."""
        if len(self) and not -1 <= self.by.min() <= self.by.max() < attacks:
            raise damaged(path, f"an attack that isn't among the {attacks}")

    def as_arrays(self) -> dict[str, Any]:
        """Return the columns under the names that files hold."""
        return {f"worst_{_SAVED_AS.get(k, k)}": v for k, v in self.__dict__.items()}

    @staticmethod
    def from_arrays(arrays: Mapping[str, Any], path: Path) -> Worst:
        """Return what as_arrays gave, after checking each column.

        Args:
            arrays: those of a file, others among them.
            path: of the file.

        Raises:
            UserError: when a column is missing, unknown or of another kind or length.
        """
        today = {old: new for new, old in _SAVED_AS.items()}
        found = {k.removeprefix("worst_"): v for k, v in arrays.items() if k[:6] == "worst_"}
        columns = {today.get(k, k): v for k, v in found.items()}
        _check_columns(columns, Worst, path)
        return Worst(**columns)


@dataclass(frozen=True)
class Pairs:
    """The smallest change of an image towards each other class, each array [pairs].

    Args:
        rows: the image's place among those given.
        labels: the true class.
        targets: the target class.
        reached: whether it was reached.
        reached_saved: whether the 8-bit image reaches it too.
        l2: the size of the change in L2.
        linf: the size of the change in Linf.
        similarity: the SSIM with the original.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    targets: NDArray[np.int64]
    reached: NDArray[np.bool_]
    reached_saved: NDArray[np.bool_]
    l2: NDArray[np.float64]
    linf: NDArray[np.float64]
    similarity: NDArray[np.float64]

    @staticmethod
    def joined(parts: list[Pairs]) -> Pairs:
        """Return the concatenated parts."""
        return Pairs(**_columns(parts))

    @staticmethod
    def from_arrays(columns: dict[str, Any], path: Path) -> Pairs:
        """Return the columns of a file as a table, after checking each.

        Args:
            columns: by their names.
            path: of the file.

        Raises:
            UserError: when a column is missing, unknown or of another kind or length.
        """
        _check_columns(columns, Pairs, path)
        return Pairs(**columns)


@dataclass(frozen=True)
class Shard:
    """The result of attacking some of the images.

    Args:
        worst: the nearest adversarial images.
        records: one for each attack and eps.
        unstable: how many adversarial images get another prediction in another pass.
        examples: the nearest adversarial image of each class that has one, uint8[k, c, h, w].
        example_rows: the images that these come from, int64[k].
    """

    worst: Worst
    records: tuple[AttackRecord, ...]
    unstable: int
    examples: NDArray[np.uint8]
    example_rows: NDArray[np.int64]

    def save(self, path: Path) -> None:
        """Write the shard, whole or not at all."""
        header = {"records": [asdict(r) for r in self.records], "unstable": self.unstable}
        arrays = self.worst.as_arrays()
        arrays |= {"examples": self.examples, "example_rows": self.example_rows}
        write_arrays(path, arrays, header)

    @staticmethod
    def load(path: Path) -> Shard:
        """Read what save wrote.

        Args:
            path: of the NPZ file.

        Raises:
            UserError: when the file is missing or damaged.
        """
        arrays, header = read_arrays(path)
        check_keys(header, ("records", "unstable"), path)
        worst = Worst.from_arrays(arrays, path)
        others = {k: v for k, v in arrays.items() if k[:6] != "worst_"}
        check_keys(others, ("examples", "example_rows"), path, "it")
        with reading(path):
            records = tuple(AttackRecord(**r) for r in header["records"])
            for record in records:
                numbers = [record.tried, record.fooled, record.nearer]
                numbers += [record.forwards, record.backwards, header["unstable"]]
                if not all(type(v) is int and v >= 0 for v in numbers):
                    raise ValueError(f"the record of {record.name} isn't whole numbers")
        worst.check(len(records), path)
        rows = check_array(others, "example_rows", path, dtype=np.int64, shape=(None,))
        shape = (len(rows), None, None, None)
        check_array(others, "examples", path, dtype=np.uint8, shape=shape)
        return Shard(worst, records, header["unstable"], others["examples"], rows)


def write_arrays(path: Path, arrays: dict[str, Any], header: Any) -> None:
    """Write arrays and a header of plain values as NPZ, whole or not at all."""
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, header=text, **arrays)
    with write_atomically(path) as file:
        file.write(buffer.getvalue())


def read_arrays(path: Path) -> tuple[dict[str, Any], Any]:
    """Return what write_arrays wrote.

    Args:
        path: of the NPZ file.

    Raises:
        UserError: when the file is missing or damaged.
    """
    arrays: dict[str, Any] = saved_state.read_arrays(path)
    with reading(path):
        header = arrays.pop("header").tobytes()
    return arrays, parse_json(header, path)


def read_pairs(path: Path) -> Pairs:
    """Return the pairs that write_arrays wrote.

    Args:
        path: of the NPZ file.

    Raises:
        UserError: when the file is missing or damaged.
    """
    arrays, _ = read_arrays(path)
    return Pairs.from_arrays(arrays, path)


def _columns(parts: Sequence[Worst | Pairs]) -> dict[str, Any]:
    """Return each array of some tables of one kind, concatenated."""
    names = [f.name for f in fields(parts[0])]
    return {name: np.concatenate([getattr(p, name) for p in parts]) for name in names}


def _check_columns(arrays: dict[str, Any], kind: type[Worst | Pairs], path: Path) -> None:
    check_keys(arrays, [f.name for f in fields(kind)], path, "it")
    rows: NDArray[np.int64] = check_array(arrays, "rows", path, dtype=np.int64, shape=(None,))
    if len(rows) and rows.min() < 0:
        raise damaged(path, f"it names the image {rows.min()}")
    for f in fields(kind):
        # The annotations read NDArray[np.int64].
        dtype = np.dtype(str(f.type).removeprefix("NDArray[np.").strip("]_"))
        check_array(arrays, f.name, path, dtype=dtype, shape=(len(rows),))
