"""Draw a badge for a README: the largest speed-up within one point of top-1, and its loss."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.report.grouping import sections
from runtime.report.headline import best_within, drop
from runtime.report.html.templates import fill
from runtime.results.schema import Cell
from vitnla.common.errors import InputError

LABEL = "vitdeploy"
_CHARACTER, _PADDING = 7.0, 12.0
_GAIN, _NONE = "#1d7f5c", "#5c6570"


def to_badge(cells: Sequence[Cell]) -> str:
    """Return an SVG 20 pixels high.

    Raises:
        InputError: the cells are of several runs or machines, of which no one figure can be given.
    """
    groups = sections(cells)
    if len(groups) > 1:
        raise InputError(f"a badge is of one run on one machine, got {len(groups)}", "give it the results of one run")
    best = best_within(groups[0].cells)
    value, color = (_text(best, groups[0].cells), _GAIN) if best is not None else ("no speed-up within 1 point", _NONE)
    left, right = (round(_CHARACTER * len(text) + _PADDING) for text in (LABEL, value))
    return fill("badge.svg", label=LABEL, value=value, left=left, right=right, color=color)


def _text(cell: Cell, cells: Sequence[Cell]) -> str:
    lost, ratio = drop(cell, cells), cell.ratio
    if ratio is None or lost is None:
        raise ValueError(f"{cell.key} has no ratio or no top-1")
    return f"{ratio.value:.2f}× at {0.0 - round(100 * lost, 2):+.2f} points"
