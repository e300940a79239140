"""A table that fits the width of the terminal: it drops its least important columns, and breaks names, but never a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from runtime.report.text import NAME_CHARACTERS, fold


@dataclass(frozen=True)
class Column:
    """A column of texts, one per row."""

    heading: str
    texts: Sequence[str]
    numeric: bool = True
    rank: int = 0
    """Columns are dropped from the highest rank down; those of rank 0 never."""
    dim: frozenset[int] = frozenset()
    """Rows whose text is dimmed."""

    @property
    def width(self) -> int:
        """Characters of the widest text."""
        return max(map(len, [self.heading, *self.texts]))


@dataclass(frozen=True)
class FittedTable:
    """A table at most as wide as the terminal. The first column holds names; only they may take several lines."""

    columns: Sequence[Column]
    headings: dict[int, str]
    """Titles of groups, by the index of the row that they precede."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names, *others = fit_columns(self.columns, options.max_width)
        width = max(1, options.max_width - sum(column.width + 1 for column in others))
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False, header_style="bold")
        for column in (names, *others):
            table.add_column(Text(column.heading), justify="right" if column.numeric else "left", no_wrap=True)
        for row, name in enumerate(names.texts):
            if row in self.headings:
                table.add_row(Text(self.headings[row], style="bold"))
            table.add_row(
                Text("\n".join(fold(name, width))),
                *(Text(column.texts[row], style="dim" if row in column.dim else "") for column in others),
            )
        yield table


def fit_columns(columns: Sequence[Column], width: int) -> list[Column]:
    """Return the columns that fit into `width` characters.

    Columns are dropped, highest rank first, until the others fit with names of up to `NAME_CHARACTERS`, or only rank 0 is left.
    """
    kept = list(columns)
    for column in sorted((column for column in columns if column.rank), key=lambda column: column.rank, reverse=True):
        names, *others = kept
        if min(names.width, NAME_CHARACTERS) + sum(other.width + 1 for other in others) <= width:
            break
        kept.remove(column)
    return kept
