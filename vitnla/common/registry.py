"""One registry per kind of thing, keyed by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Generic, TypeVar

from vitnla.common.errors import unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to things of one kind. A duplicate raises; an unknown name lists the choices."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def add(self, name: str, item: T) -> T:
        """Register `item`; a name that is taken is a bug, hence a ValueError."""
        if name in self._items:
            raise ValueError(f"{self.kind} '{name}' is registered twice")
        self._items[name] = item
        return item

    def __getitem__(self, name: str) -> T:
        try:
            return self._items[name]
        except KeyError:
            raise unknown_name(self.kind, name, self._items) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class LazyRegistry(Registry[T]):
    """A registry of known names, in their order, each added by a module that is imported when its name is first looked up.

    Args:
        kind: how errors call an item.
        homes: the module of each name.
    """

    def __init__(self, kind: str, homes: Mapping[str, str]) -> None:
        super().__init__(kind)
        self._homes = dict(homes)

    def __getitem__(self, name: str) -> T:
        if name in self._homes:
            import_module(self._homes[name])
        elif name not in self._items:
            raise unknown_name(self.kind, name, list(self))
        return super().__getitem__(name)

    def __iter__(self) -> Iterator[str]:
        return iter([*self._homes, *(name for name in self._items if name not in self._homes)])

    def __len__(self) -> int:
        return len(self._homes.keys() | self._items.keys())
