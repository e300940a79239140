"""The tables of the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from runtime.check.parity import ParityRow
from runtime.report import tables
from runtime.report.charts.style import Panel, panels
from runtime.report.grouped_warnings import notices
from runtime.report.numbers import MISSING, percent
from runtime.report.terminal.fit import Column, Fitted
from runtime.results.schema import Cell

_RANKS = {
    "bundle": 0, "runtime": 0, "precision": 0, "batch": 0, "rate": 1, "bound": 1, "images_per_s": 2, "ratio": 0, "top1": 0,
    "half": 5, "agreement": 3, "p50": 4, "p90": 8, "peak_rss_mb": 6, "device_mb": 6, "model_mb": 7, "utilisation": 9,
}  # fmt: skip
"""The columns in their order, and in which order a narrow terminal gives them up: the highest first, 0 never."""
_TOP1 = {
    "top1": tables.Column("top1", "Top-1 %", lambda cell: percent(cell.top1), lambda cell: cell.top1),
    "half": tables.Column("half", "±", lambda cell: percent(tables.top1_half(cell)), tables.top1_half),
}
"""Top-1 and half its interval, which can be given up by itself."""


def cells_table(cells: Sequence[Cell]) -> Group:
    """One row per cell, by batch size; below it those that could not be run, with their reason, and what to beware of."""
    measured = [cell for cell in cells if cell.error is None]
    groups = panels(measured)
    ordered = [cell for group in groups for cell in group.cells]
    parts: list[Fitted | Text] = []
    if ordered:
        runtimes = {cell.runtime for cell in ordered}
        shown = {"runtime": len(runtimes) > 1, "batch": any(cell.batch_search for cell in ordered)}
        keys = [key for key in _RANKS if shown.get(key, True)]
        columns = tables.columns_for(ordered, keys, tables.COLUMNS | _TOP1)
        fields = [Column(one.heading, [one.text(cell) for cell in ordered], one.numeric, _RANKS[one.key]) for one in columns]
        parts.append(Fitted(fields, _headings(groups, f" on {runtimes.pop()}" if len(runtimes) == 1 else "")))
    parts += [Text(f"{cell.key} could not be run: {cell.error}", style="red") for cell in cells if cell.error is not None]
    parts += [Text(f"{notice.text}: {notice.extent}", style="dim") for notice in notices(cells)]
    return Group(*parts)


def _headings(groups: Sequence[Panel], where: str) -> dict[int, str]:
    """The title of each group, before its first row."""
    firsts = itertools.accumulate((len(group.cells) for group in groups[:-1]), initial=0)
    return {first: group.title + where for first, group in zip(firsts, groups, strict=True)}


def parity_table(rows: Sequence[ParityRow]) -> Group:
    """One row per bundle and runtime: the largest relative difference of a logit, its tolerance, and the accuracy."""
    columns = [
        Column("Bundle", [row.bundle for row in rows], numeric=False),
        Column("Runtime", [row.runtime for row in rows], numeric=False),
        Column("Verdict", [row.verdict for row in rows], numeric=False),
        Column("Max rel.", [MISSING if row.max_rel is None else f"{row.max_rel:.1e}" for row in rows]),
        Column("Limit", [f"{row.tolerance:.0e}" for row in rows]),
        Column("Top-1 %", [percent(row.top1) for row in rows], rank=1),
        Column("Agree %", [percent(row.agreement) for row in rows], rank=2),
        Column("Lost", [_count(row.lost) for row in rows], rank=3),
        Column("Gained", [_count(row.gained) for row in rows], rank=4),
        Column("McNemar p", [_decimals(row.p_value, 3) for row in rows], rank=5),
        Column("KL", [MISSING if row.divergence is None else f"{row.divergence:.1e}" for row in rows], rank=6),
        Column("ECE %", [percent(row.calibration_error) for row in rows], rank=7),
        Column("Cosine", [_decimals(row.cosine, 4) for row in rows], rank=8),
    ]
    errors = [Text(f"{row.bundle} on {row.runtime}: {row.error}", style="red") for row in rows if row.error is not None]
    return Group(Fitted(columns, {}), *errors)


def _decimals(value: float | None, places: int) -> str:
    return MISSING if value is None else f"{value:.{places}f}"


def _count(value: int | None) -> str:
    return MISSING if value is None else f"{value:,}"
