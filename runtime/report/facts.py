"""List the recorded facts of the machine and of each runtime as lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from runtime.results.schema import Cell

Facts = list[tuple[str, str]]
_NAMES = ("gpu", "cpu", "cpu_model", "processor", "platform", "os")


def machine_name(machine: dict[str, Any]) -> str:
    """Return a short name: its GPU, else its processor, else its platform or system."""
    return next((str(machine[key]) for key in _NAMES if machine.get(key)), "machine not described")


def machine_facts(machine: dict[str, Any]) -> Facts:
    """Return every recorded fact; nested ones have dotted names."""
    return list(_lines(machine))


def runtime_facts(cells: Iterable[Cell]) -> list[tuple[str, Facts]]:
    """Return the facts of each runtime and precision. Where its cells differ in a fact, all values are listed."""
    runtimes: dict[str, dict[str, dict[str, None]]] = {}
    for cell in cells:
        facts = runtimes.setdefault(f"{cell.runtime}, {cell.precision}", {})
        for name, text in _lines(cell.facts):
            facts.setdefault(name, {})[text] = None
    return [(runtime, [(name, " · ".join(values)) for name, values in facts.items()]) for runtime, facts in runtimes.items()]


def _lines(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _lines(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(item)


def _text(item: Any) -> str:
    if isinstance(item, (list, tuple)):
        return ", ".join(map(_text, item)) or "none"
    if isinstance(item, bool):
        return "yes" if item else "no"
    return "unknown" if item is None else str(item)
