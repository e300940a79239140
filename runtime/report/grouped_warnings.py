"""Group the warnings of cells by kind: texts that differ only in numbers are one kind, and the numbers become ranges."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runtime.results.schema import Cell

# A number that stands by itself, so that digits inside names (`svd-0.65`, `fp32`) do not count.
_NUMBER = re.compile(r"(?<![\w.,/:+-])[+-]?\d+(?:,\d{3})*(?:\.\d+)?%?(?=[\s,;:)]|$)")
_FEW = 2


@dataclass(frozen=True)
class WarningGroup:
    """One kind of warning."""

    text: str
    """With a range in place of each number that differs: `latency varies by 19.6% to 43.9%, above 2.5%`."""
    cells: dict[str, str]
    """Display keys of the cells concerned, each with its own numbers where these differ."""
    everywhere: bool
    """True if it concerns every cell."""

    @property
    def extent(self) -> str:
        """The cells concerned: all, their keys where they are few, or their count."""
        if self.everywhere and len(self.cells) > _FEW:
            return f"all {len(self.cells)} cells"
        return ", ".join(self.cells) if len(self.cells) <= _FEW else f"{len(self.cells)} cells"


def group_warnings(cells: Sequence[Cell]) -> list[WarningGroup]:
    """Return the kinds of warnings of the cells that ran, in order of first appearance."""
    groups: dict[str, dict[str, list[str]]] = {}
    ran = [cell for cell in cells if cell.error is None]
    for cell in ran:
        for text in cell.warnings:
            groups.setdefault(_NUMBER.sub("\0", text), {})[cell.display_key] = _NUMBER.findall(text)
    return [_group(stem.split("\0"), numbers, len(numbers) == len(ran)) for stem, numbers in groups.items()]


def _group(fixed: Sequence[str], numbers: dict[str, list[str]], everywhere: bool) -> WarningGroup:
    columns = list(zip(*numbers.values(), strict=True))
    differing = [index for index, column in enumerate(columns) if len(set(column)) > 1]
    text = "".join(part + number for part, number in zip(fixed, [*map(_range, columns), ""], strict=True))
    return WarningGroup(text, {key: ", ".join(own[index] for index in differing) for key, own in numbers.items()}, everywhere)


def _range(numbers: Iterable[str]) -> str:
    ordered = sorted(set(numbers), key=lambda number: float(number.replace(",", "").rstrip("%")))
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"
