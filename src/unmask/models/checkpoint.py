"""Tensors on disk: safetensors, never pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.runtime import open_regular, write_atomically

# What torch.save writes: a zip, or in old versions a bare pickle of protocol 2 to 5.
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_FIRST_OPCODES = {b"(", b")", b"]", b"}", b"c", b"l", b"d"}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Any = None) -> None:
    """Write tensors and a header to one safetensors file, whole or not at all.

    Args:
        path: of the file.
        tensors: by name, on any device.
        header: plain values that JSON can hold, None for none.

    Raises:
        UserError: the file can't be written.
    """
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    # The format refuses views of one storage, so tensors that share memory are copied.
    seen: set[int] = set()
    for name, tensor in plain.items():
        if tensor.untyped_storage().data_ptr() in seen:
            plain[name] = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
    metadata = None if header is None else {"header": json.dumps(header)}
    content = save(plain, metadata)
    with write_atomically(path) as file:
        file.write(content)


class TensorFile:
    """A safetensors file opened for reading: names and shapes first, the tensors on request.

    Args:
        path: of the file.

    Attributes:
        shapes: of the tensors, by name.
        header: the plain values that write_tensors wrote, None without.

    Raises:
        UserError: the file is missing, damaged, or a pickle. A pickle can run any code, so it is
            recognised by its first bytes and never opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not str(path).isprintable() and not _is_utf8(path):
            raise UserError(
                "the name of a safetensors file must be UTF-8", got=path, do="rename the file"
            )
        try:
            if _is_pickle(path):
                raise UserError(
                    f"{path} is a pickle, which could run any code when opened",
                    got="a file of torch.save or pickle",
                    do="save the weights as safetensors, with safetensors.torch.save_file",
                )
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                self.shapes = {k: tuple(file.get_slice(k).get_shape()) for k in names}
                metadata = file.metadata() or {}
            self.header = json.loads(metadata["header"]) if "header" in metadata else None
        except FileNotFoundError:
            raise UserError(
                "there is no such file", got=path, do="give a .safetensors file"
            ) from None
        except UserError:
            raise
        except (OSError, ValueError, RecursionError, SafetensorError) as error:
            raise self._damaged(error) from error

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor, on the CPU."""
        try:
            with safe_open(self.path, framework="pt") as file:
                return {k: file.get_tensor(k) for k in self.shapes}
        except (OSError, SafetensorError) as error:
            raise self._damaged(error) from error

    def load_into(self, network: nn.Module) -> None:
        """Fill a network's parameters and buffers, which keep their own precision and layout.

        Args:
            network: filled in place.

        Raises:
            UserError: a tensor is missing, left over, of another shape or kind, or not finite; the
                message names the first.
        """
        self.match(network)
        tensors = self.tensors()
        wanted = network.state_dict()
        for name, tensor in tensors.items():
            if tensor.is_floating_point() != wanted[name].is_floating_point():
                raise UserError(
                    f"{self.path} holds another kind of number in {name} than the network, "
                    f"{_kind(wanted[name])}",
                    got=_kind(tensor),
                    do="give the weights that belong to this network",
                )
            # PyTorch has hardly any operation on 8-bit floats but a change of type.
            values = tensor.float() if tensor.itemsize == 1 else tensor
            if tensor.is_floating_point() and not bool(torch.isfinite(values).all()):
                raise UserError(
                    f"{self.path} holds numbers that are not finite", got=name, do="train it again"
                )
            wanted[name].copy_(values)

    def match(self, network: nn.Module) -> None:
        """Raise UserError unless the file's names and shapes are the network's."""
        wanted = {k: tuple(v.shape) for k, v in network.state_dict().items()}
        for name, problem in (
            (next(iter(wanted.keys() - self.shapes.keys()), None), "lacks the tensor"),
            (next(iter(self.shapes.keys() - wanted.keys()), None), "has a tensor too many:"),
        ):
            if name is not None:
                raise UserError(
                    f"{self.path} {problem} {name}",
                    got=f"{len(self.shapes)} tensors where the network has {len(wanted)}",
                    do="give the weights that belong to this network",
                )
        for name, shape in wanted.items():
            if self.shapes[name] != shape:
                raise UserError(
                    f"{self.path} has another shape of {name} than the network, {list(shape)}",
                    got=list(self.shapes[name]),
                    do="give the weights that belong to this network",
                )

    def sha256(self) -> str:
        """Return the file's SHA-256 in hex."""
        with open_regular(self.path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _damaged(self, error: Exception) -> UserError:
        return UserError(
            f"{self.path} is no readable safetensors file",
            got=str(error) or type(error).__name__,
            do="copy or train it again",
        )


def _is_utf8(path: Path) -> bool:
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


def _is_pickle(path: Path) -> bool:
    with open_regular(path) as file:
        start = file.read(9)
        if start.startswith(_PICKLE_STARTS):
            return True
        # Protocols 0 and 1 have no signature: they begin with an opcode and end with a full stop,
        # where a safetensors file has its header's brace as ninth byte.
        if start[:1] not in _FIRST_OPCODES or start[8:] == b"{":
            return False
        file.seek(-1, 2)
        return file.read(1) == b"."


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
