"""Bundles that are steps of one series: the same method at several budgets, told by names that differ only in numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_NUMBER = re.compile(r"(?<![^-_ ])\d+(?:\.\d+)?(?![^-_ ])")


@dataclass(frozen=True)
class Series:
    """Bundles whose names differ only in numbers, largest number first; a bundle without such a sibling is a series by itself."""

    name: str
    """With braces around what differs: `svd-{0.8,0.65,0.5}`."""
    labels: dict[str, str]
    """What to write beside each bundle's point: the numbers in which it differs, or its name where it stands alone."""
    connected: bool
    """Whether one number alone differs, so that a line through the bundles has a meaning."""


def series_of(bundles: Iterable[str]) -> list[Series]:
    """Group names by all but their numbers, in order of first appearance. A number is set apart by hyphens, underscores or blanks."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(bundles):
        groups.setdefault(_NUMBER.sub("\0", name), []).append(name)
    return [_series(stem.split("\0"), names) for stem, names in groups.items()]


def _series(fixed: Sequence[str], names: list[str]) -> Series:
    if len(names) == 1:
        return Series(names[0], {names[0]: names[0]}, connected=False)
    numbers = {name: _NUMBER.findall(name) for name in names}
    ordered = sorted(names, key=lambda name: [float(number) for number in numbers[name]], reverse=True)
    columns = [list(dict.fromkeys(column)) for column in zip(*(numbers[name] for name in ordered), strict=True)]
    differing = [place for place, values in enumerate(columns) if len(values) > 1]
    written = [f"{{{','.join(values)}}}" if len(values) > 1 else values[0] for values in columns]
    return Series(
        name="".join(text + number for text, number in zip(fixed, [*written, ""], strict=True)),
        labels={name: ", ".join(numbers[name][place] for place in differing) for name in ordered},
        connected=len(differing) == 1,
    )
