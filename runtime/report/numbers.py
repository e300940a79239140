"""How numbers are written, everywhere: in the page, in Markdown and in the terminal."""

from __future__ import annotations

MISSING = "–"


def significant(value: float | None, digits: int = 3) -> str:
    """At least `digits` significant digits without an exponent, thousands grouped: 1,234; 56.7; 0.0123."""
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    decimals = max(0, digits - len(f"{abs(value):.0f}")) if abs(value) >= 1 else digits
    return f"{value:,.{decimals}f}"


def percent(fraction: float | None, decimals: int = 2) -> str:
    """A fraction as a percentage, without the sign."""
    return MISSING if fraction is None else f"{100 * fraction:.{decimals}f}"


def times(ratio: float | None) -> str:
    """A ratio, with two decimals and a multiplication sign."""
    return MISSING if ratio is None else f"{ratio:.2f}×"
