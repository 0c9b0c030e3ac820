"""Which nets are trained together: each alone, or as many as fit into a stack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from unmask.sweep.spec import NetSpec
from unmask.sweep.trainer import Outcome, Task, train_net, train_stack


class Nets(Protocol):
    """Nets by number from 0: a list of them, or what makes one when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> NetSpec: ...


def lots(task: Task, nets: Nets, indices: Iterable[int]) -> list[list[int]]:
    """Return the nets of the indices in lots that train_lot takes."""
    if task.engine != "stacked":
        return [[i] for i in indices]
    from unmask.sweep.stacked import most_in_a_stack, stackable

    alike: dict[object, list[int]] = {}
    for i in indices:
        alike.setdefault(stackable(nets[i]), []).append(i)
    found = []
    for members in alike.values():
        size = most_in_a_stack(nets[members[0]], task.train.pixels.shape[1])
        found += [members[i : i + size] for i in range(0, len(members), size)]
    return found


def train_lot(
    specs: Sequence[NetSpec], task: Task, epoch_done: Callable[[NetSpec], None]
) -> list[Outcome]:
    """Train the nets of a lot and return their outcomes in turn; see train_net."""
    if task.engine == "stacked":
        return train_stack(specs, task, epoch_done)
    return [train_net(spec, task, epoch_done) for spec in specs]
