import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from unmask.data import mnist
from unmask.errors import UserError

# The MD5 sums of the four files of the canonical set, unpacked.
CANONICAL = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def idx(array: np.ndarray) -> bytes:
    """The array as an IDX file of unsigned bytes."""
    header = struct.pack(f">{1 + array.ndim}I", 0x0800 | array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def test_what_ships_is_the_canonical_set_bit_for_bit() -> None:
    train, test = mnist.load_mnist()
    arrays = (train.pixels[:, 0], train.labels, test.pixels[:, 0], test.labels)
    sums = [hashlib.md5(idx(a)).hexdigest() for a in arrays]
    assert sums == list(CANONICAL.values())
    assert train.pixels.shape == (60000, 1, 28, 28)
    assert train.class_names == test.class_names == tuple("0123456789")
    assert (train.name, test.name) == ("MNIST train", "MNIST test")


def test_the_licence_stands_beside_it() -> None:
    notice = Path(mnist.__file__).with_name("MNIST-LICENSE.txt").read_text()
    for said in ("CC BY-SA 3.0", "LeCun", "Cortes", "Burges", *CANONICAL.values()):
        assert said in notice


@pytest.mark.parametrize("place", [0, 5_000_000, -1])
def test_a_single_damaged_byte_is_noticed(
    place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(mnist._ARCHIVE.read_bytes())
    content[place] ^= 1
    damaged = tmp_path / "mnist.npz"
    damaged.write_bytes(content)
    monkeypatch.setattr(mnist, "_ARCHIVE", damaged)
    with pytest.raises(UserError, match=r"is damaged: got \d+ bytes .*; install unmask again"):
        mnist.load_mnist()


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "_ARCHIVE", tmp_path / "gone.npz")
    with pytest.raises(UserError, match=r"can't read .*gone\.npz: got No such file"):
        mnist.load_mnist()
