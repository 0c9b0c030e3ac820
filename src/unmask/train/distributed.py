"""Several processes that train one model together, as torchrun starts them.

Each holds the whole model and every image, and trains on its part of each batch.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from unmask.errors import UserError
from unmask.train.device import pick_device


@dataclass(frozen=True)
class Processes:
    """This process's place among those that train together.

    Args:
        rank: from 0 to count - 1.
        count: how many there are.
    """

    rank: int
    count: int

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Return this process's part of count rows; all parts differ by at most one row."""
        return slice(count * self.rank // self.count, count * (self.rank + 1) // self.count)

    def learner(self, model: nn.Module) -> nn.Module:
        """Return the module to call on this process's part of a batch.

        Its gradients are averaged over all processes.

        Args:
            model: the network, whose weights become those of the first process.
        """
        return model if self.count == 1 else DistributedDataParallel(model)

    def summed(self, tensor: Tensor) -> Tensor:
        """Return the sum of all processes' tensors."""
        if self.count == 1:
            return tensor
        there = tensor.to(_place(), copy=True)
        distributed.all_reduce(there)
        return there.to(tensor.device)

    def gathered(self, part: Tensor, count: int) -> Tensor:
        """Return all rows, of which each process has its part.

        Args:
            part: [own rows, ...], this process's.
            count: how many rows there are in all.
        """
        if self.count == 1:
            return part
        rows = part.new_zeros(count, *part.shape[1:])
        rows[self.part(count)] = part
        return self.summed(rows)

    def agree(self, digest: str, about: str) -> None:
        """Raise UserError unless this process's digest is the first one's.

        Args:
            digest: of what must be equal.
            about: what that is, for the error.
        """
        if self._from_first(digest.encode()) != digest.encode():
            raise UserError(
                f"process {self.rank} of {self.count} has other {about} than the first",
                do="give every machine the same files and the same command",
            )

    @contextlib.contextmanager
    def copy_of(self, file: Path) -> Iterator[Path | None]:
        """Give the path of a copy of the first process's file.

        Args:
            file: of the first process; its copy is removed when the block ends.

        Yields:
            The path; None in the first process and where there is no file.
        """
        if self.count == 1:
            yield None
            return
        held = file.read_bytes() if self.first and file.exists() else b""
        sent = self._from_first(held)
        if self.first or not sent:
            yield None
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / file.name
            copy.write_bytes(sent)
            yield copy

    @contextlib.contextmanager
    def first_on_machine(self) -> Iterator[None]:
        """Run the block in one process of each machine before the others, such as a download."""
        waits = os.environ.get("LOCAL_RANK", "0") != "0"
        if self.count > 1 and waits:
            distributed.barrier()
        yield
        if self.count > 1 and not waits:
            distributed.barrier()

    def _from_first(self, data: bytes) -> bytes:
        if self.count == 1:
            return data
        size = torch.tensor([len(data)], device=_place())
        distributed.broadcast(size, 0)
        held = np.frombuffer(data, np.uint8) if self.first else np.empty(int(size), np.uint8)
        there = torch.from_numpy(held.copy()).to(_place())
        distributed.broadcast(there, 0)
        return there.cpu().numpy().tobytes()


def processes() -> Processes:
    """Return this process's place among those that train together; alone unless it has joined."""
    if distributed.is_available() and distributed.is_initialized():
        return Processes(distributed.get_rank(), distributed.get_world_size())
    return Processes(0, 1)


@contextlib.contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the processes that torchrun started, if it did, and give the name of this one's device.

    They communicate by NCCL on GPUs, one each, and by gloo on CPUs. Ctrl-C reaches only the first.
    Of several that fail, only the earliest raises its error; the others fail because of it and exit
    without a message.

    Args:
        device: auto, cpu, cuda or cuda:N, as on the command line.

    Raises:
        UserError: there are more processes than GPUs, or another process was lost.
    """
    if not (distributed.is_available() and distributed.is_torchelastic_launched()):
        yield device
        return
    # Builds of PyTorch without the package lack this module too.
    from torch.distributed.rendezvous import rendezvous

    store, rank, count = next(rendezvous("env://"))
    if rank:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        own = _own_device(device)
        distributed.init_process_group(
            "nccl" if own.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=count,
            device_id=own if own.type == "cuda" else None,
        )
        yield str(own)
        if not rank:
            # Processes that Ctrl-C cuts off in mid-work then report no error.
            _earliest(store)
    except Exception as error:
        if not _earliest(store):
            raise SystemExit(1) from None
        if _is_lost(error):
            raise UserError(
                "another process of this training was lost",
                got=str(error).splitlines()[0],
                do="run the command again with --resume",
            ) from error
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _own_device(name: str) -> torch.device:
    device = pick_device(name)
    if device.type != "cuda":
        return device
    local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if device.index is not None or local >= gpus:
        raise UserError(
            "each process needs a GPU of its own",
            got=f"{name} for process {local + 1} on a machine with {gpus}",
            do=f"use --device cuda and torchrun --nproc-per-node {gpus}",
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _place() -> torch.device:
    return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")


def _earliest(store: Any) -> bool:
    try:
        return bool(store.add("unmask/failed", 1) == 1)
    except RuntimeError:
        # The process that held the store is gone, so it failed before.
        return False


def _is_lost(error: Exception) -> bool:
    return isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )
