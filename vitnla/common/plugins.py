"""Built-in things and those that installed packages add as entry points, in one registry."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from vitnla.common.errors import MissingDependencyError
from vitnla.common.registry import Registry


def plugins(kind: str, group: str, built_in: Mapping[str, str]) -> Registry[EntryPoint]:
    """Return a registry of everything that can be loaded: the built-in first, then what packages add, in the order found.

    It is read anew each time: that is quick, and there is no cache to go stale when the path changes.

    Args:
        kind: what they are, for messages.
        group: of the entry points.
        built_in: name -> `module:attribute`.

    Raises:
        ValueError: two of them have one name.
    """
    found: Registry[EntryPoint] = Registry(kind)
    for name, value in built_in.items():
        found.add(name, EntryPoint(name, value, group))
    for entry in entry_points(group=group):
        found.add(entry.name, entry)
    return found


def load_plugin(kind: str, entry: EntryPoint) -> Any:
    """Import what an entry point names.

    Raises:
        MissingDependencyError: the module that defines it cannot be imported.
    """
    try:
        return entry.load()
    except ImportError as error:
        message = f"{kind} '{entry.name}' cannot be imported from {entry.value}: {error}"
        raise MissingDependencyError(message, "install the package that it names") from error
