"""Format numbers and break long names, for the page, Markdown and the terminal alike."""

from __future__ import annotations

import re

MISSING = "–"
"""Shown for a value that was not measured."""
NAME_CHARACTERS = 28
"""Longer names of bundles are replaced by a derived label, or broken."""
_BREAKS = re.compile(r"(?<=[-_/ ])")


def significant(value: float | None, digits: int = 3) -> str:
    """Return at least `digits` significant digits without an exponent, thousands grouped: 1,234; 56.7; 0.0123."""
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    decimals = max(0, digits - len(f"{abs(value):.0f}")) if abs(value) >= 1 else digits
    return f"{value:,.{decimals}f}"


def percent(fraction: float | None, decimals: int = 2) -> str:
    """Return a fraction as a percentage, without the % sign."""
    return MISSING if fraction is None else f"{100 * fraction:.{decimals}f}"


def times(ratio: float | None) -> str:
    """Return a ratio with two decimals and a multiplication sign."""
    return MISSING if ratio is None else f"{ratio:.2f}×"


def fold(name: str, width: int) -> list[str]:
    """Break a name into lines of at most `width` characters.

    Lines end after hyphens, underscores, slashes and blanks; a part between two of these is broken only where it is longer than a line.
    """
    lines = [""]
    for part in _BREAKS.split(name):
        if len(lines[-1] + part.rstrip()) > width and lines[-1]:
            lines.append("")
        lines[-1] += part
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return [line.rstrip() for line in lines]
