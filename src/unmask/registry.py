"""Tables by name that other packages can add to, such as activations, attacks and data sets."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import cache
from importlib import metadata
from typing import TypeVar

from unmask.errors import UserError

T = TypeVar("T")

# A package that adds to a table names a module under this group; the module registers on import.
PLUGINS = "unmask.plugins"


@cache
def load_plugins() -> None:
    """Import every module that an installed package names under the entry-point group, once.

    A module that can't be imported is named in a warning and left out.
    """
    for entry in metadata.entry_points(group=PLUGINS):
        try:
            entry.load()
        except Exception as error:  # a plugin may raise anything, and the rest must go on
            warnings.warn(
                f"the plugin {entry.name} ({entry.value}) can't be loaded: {error}", stacklevel=2
            )


class Registry(MutableMapping[str, T]):
    """A table by name, in the order of registration, that installed packages can add to.

    Args:
        kind: what the entries are, in messages, such as "attack".
        entries: those that come with Unmask.
    """

    def __init__(self, kind: str, entries: Mapping[str, T] | None = None) -> None:
        self.kind = kind
        self._entries: dict[str, T] = dict(entries or {})

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that adds what it decorates under the name.

        Args:
            name: what users write, such as "apgd-ce".

        Raises:
            UserError: the name is taken by something else.
        """

        def add(entry: T) -> T:
            if self._entries.get(name, entry) is not entry:
                raise UserError(f"the {self.kind} is already registered", got=repr(name))
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            load_plugins()
        return self._entries[name]

    def __setitem__(self, name: str, entry: T) -> None:
        self._entries[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        load_plugins()
        return iter(self._entries)

    def __len__(self) -> int:
        load_plugins()
        return len(self._entries)
