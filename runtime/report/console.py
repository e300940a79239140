"""The tables of the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from runtime.parity import ParityRow
from runtime.report.numbers import MISSING, percent
from runtime.report.tables import columns_for
from runtime.results import Cell

_COLUMNS = ("bundle", "runtime", "batch", "images_per_s", "p50", "p90", "ratio", "top1", "agreement", "peak_rss_mb", "model_mb")


def cells_table(cells: Sequence[Cell]) -> Group:
    """One row per cell; below it those that could not be run, with their reason, and what to beware of."""
    columns = columns_for(cells, _COLUMNS)
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column.heading, justify="right" if column.numeric else "left", overflow="fold")
    for cell in cells:
        if cell.error is None:
            table.add_row(*(column.text(cell) for column in columns))
    notes = [Text(f"{cell.key} could not be run: {cell.error}", style="red") for cell in cells if cell.error is not None]
    notes += [Text(f"{cell.key}: {warning}", style="dim") for cell in cells for warning in cell.warnings]
    return Group(table, *notes)


def parity_table(rows: Sequence[ParityRow]) -> Group:
    """One row per bundle and runtime: the largest relative difference of a logit, its tolerance, and the accuracy."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in ("Bundle", "Runtime", "Verdict"):
        table.add_column(heading, overflow="fold")
    for heading in ("Max rel. error", "Tolerance", "Top-1 %", "Agreement %", "Lost", "Gained"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.bundle, row.runtime, row.verdict, MISSING if row.max_rel is None else f"{row.max_rel:.1e}", f"{row.tolerance:.0e}",
            percent(row.top1), percent(row.agreement), _count(row.lost), _count(row.gained),
        )  # fmt: skip
    return Group(
        table, *(Text(f"{row.bundle} on {row.runtime}: {row.error}", style="red") for row in rows if row.error is not None)
    )


def _count(value: int | None) -> str:
    return MISSING if value is None else f"{value:,}"
