"""Warnings grouped by kind: those that differ only in their numbers are one, and its numbers become ranges."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runtime.results.schema import Cell

# A number that stands by itself, so that digits inside names (`svd-0.65`, `fp32`) do not count.
_NUMBER = re.compile(r"(?<![\w.,/:+-])[+-]?\d+(?:,\d{3})*(?:\.\d+)?%?(?=[\s,;:)]|$)")
_FEW = 2


@dataclass(frozen=True)
class Notice:
    """One kind of warning."""

    text: str
    """With a range in place of each number that differs: `latency varies by 19.6% to 43.9%, above 2.5%`."""
    cells: dict[str, str]
    """The keys of the cells concerned, each with its own numbers where these differ."""
    whole: bool
    """Whether it concerns every cell."""

    @property
    def extent(self) -> str:
        """Whom it concerns: every cell, their names where they are few, or their count."""
        if self.whole and len(self.cells) > _FEW:
            return f"all {len(self.cells)} cells"
        return ", ".join(self.cells) if len(self.cells) <= _FEW else f"{len(self.cells)} cells"


def notices(cells: Sequence[Cell]) -> list[Notice]:
    """Group the warnings of the cells that ran, in order of first appearance."""
    groups: dict[str, dict[str, list[str]]] = {}
    ran = [cell for cell in cells if cell.error is None]
    for cell in ran:
        for text in cell.warnings:
            groups.setdefault(_NUMBER.sub("\0", text), {})[cell.key] = _NUMBER.findall(text)
    return [_notice(stem.split("\0"), found, len(found) == len(ran)) for stem, found in groups.items()]


def _notice(fixed: Sequence[str], found: dict[str, list[str]], whole: bool) -> Notice:
    columns = list(zip(*found.values(), strict=True))
    differing = [place for place, numbers in enumerate(columns) if len(set(numbers)) > 1]
    text = "".join(part + number for part, number in zip(fixed, [*map(_range, columns), ""], strict=True))
    return Notice(text, {key: ", ".join(numbers[place] for place in differing) for key, numbers in found.items()}, whole)


def _range(numbers: Iterable[str]) -> str:
    ordered = sorted(set(numbers), key=lambda number: float(number.replace(",", "").rstrip("%")))
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"
