"""The tables of `vitdeploy bench` for the terminal, and the losses by step of an export."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.text import Text

from runtime.report import tables
from runtime.report.grouped_warnings import group_warnings
from runtime.report.grouping import Panel, full_names, panels, with_labels
from runtime.report.terminal.fit import Column, FittedTable
from runtime.report.text import MISSING, percent
from runtime.results.schema import Cell
from vitnla.common.measures import LossStage

_RANKS = {
    "bundle": 0, "runtime": 0, "precision": 0, "batch": 0, "rate": 1, "bound": 1, "images_per_s": 2, "ratio": 0, "top1": 0,
    "half": 5, "agreement": 3, "p50": 4, "p90": 8, "peak_rss_mb": 6, "device_mb": 6, "model_mb": 7, "utilisation": 9,
}  # fmt: skip
"""The columns in order, and the rank by which a narrow terminal drops them: the highest first, 0 never."""
_TOP1 = {
    "top1": tables.Column("top1", "Top-1 %", lambda cell: percent(cell.top1), lambda cell: cell.top1),
    "half": tables.Column("half", "±", lambda cell: percent(tables.top1_half(cell)), tables.top1_half),
}
"""Top-1, and half its interval as a column that can be dropped by itself."""

_NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"
_INCONCLUSIVE = (
    f"{tables.INCONCLUSIVE_MARK} inconclusive: the interval is too wide to tell a difference; give a longer --duration"
)


def cells_table(cells: Sequence[Cell]) -> Group:
    """Return one row per cell, by batch size; below it full names of shortened bundles, failures with their reason, and warnings."""
    cells = with_labels(cells)
    measured = [cell for cell in cells if cell.error is None]
    groups = panels(measured)
    ordered = [cell for group in groups for cell in group.cells]
    parts: list[FittedTable | Text] = []
    if ordered:
        runtimes = {cell.runtime for cell in ordered}
        shown = {"runtime": len(runtimes) > 1, "batch": any(cell.batch_search for cell in ordered)}
        keys = [key for key in _RANKS if shown.get(key, True)]
        columns = tables.columns_for(ordered, keys, tables.COLUMNS | _TOP1)
        unclear = frozenset(row for row, cell in enumerate(ordered) if tables.is_inconclusive(cell))
        fields = [
            _ratio_column(column, ordered, unclear) if column.key == "ratio" and unclear
            else Column(column.heading, [column.text(cell) for cell in ordered], column.numeric, _RANKS[column.key])
            for column in columns
        ]  # fmt: skip
        parts.append(FittedTable(fields, _headings(groups, f" on {runtimes.pop()}" if len(runtimes) == 1 else "")))
    if any(map(tables.is_inconclusive, ordered)):
        parts.append(Text(_INCONCLUSIVE, style="dim"))
    parts += [Text(f"{label}: {name}", style="dim") for label, name in full_names(cells).items()]
    parts += [Text(f"{cell.display_key} could not be run: {cell.error}", style="red") for cell in cells if cell.error is not None]
    parts += [Text(f"{group.text}: {group.extent}", style="dim") for group in group_warnings(cells)]
    return Group(*parts)


def _ratio_column(column: tables.Column, cells: Sequence[Cell], unclear: frozenset[int]) -> Column:
    """Return the column of ratios with the inconclusive rows dimmed, and the others padded so that digits stay aligned."""
    padding = _NO_BREAK_SPACE * (1 + len(tables.INCONCLUSIVE_MARK))
    texts = [column.text(cell) + ("" if row in unclear else padding) for row, cell in enumerate(cells)]
    return Column(column.heading, texts, column.numeric, _RANKS[column.key], unclear)


def _headings(groups: Sequence[Panel], suffix: str) -> dict[int, str]:
    """Return the title of each group by the index of its first row."""
    firsts = itertools.accumulate((len(group.cells) for group in groups[:-1]), initial=0)
    return {first: group.title + suffix for first, group in zip(firsts, groups, strict=True)}


def losses_table(losses: Mapping[str, Sequence[LossStage]]) -> Group:
    """Return one row per bundle and step of its export; bundles without recorded steps have none."""
    rows = [(name, stage) for name, stages in losses.items() for stage in stages]
    columns = [
        Column("Bundle", [name for name, _ in rows], numeric=False),
        Column("Lost by", [stage.stage for _, stage in rows], numeric=False),
        Column("Change", [points(stage) for _, stage in rows]),
        Column("Top-1 %", [percent(stage.top1) for _, stage in rows], rank=5),
        Column("Lost", [_count(stage.lost) for _, stage in rows], rank=2),
        Column("Gained", [_count(stage.gained) for _, stage in rows], rank=3),
        Column("Flips", [f"{stage.flips:,}" for _, stage in rows], rank=1),
        Column("Margin", [MISSING if stage.flip_margin is None else f"{stage.flip_margin:.3f}" for _, stage in rows], rank=4),
        Column("Logits by", [f"{100 * stage.logit_error:.1f} %" for _, stage in rows], rank=6),
    ]
    return Group(Text("\nLoss by step of the export", style="bold"), FittedTable(columns, {}))


def points(stage: LossStage) -> str:
    """Return the change of top-1 in points, with its sign: a loss is negative."""
    return MISSING if stage.lost_points is None else f"{0.0 - round(stage.lost_points, 2):+.2f}"


def _count(number: int | None) -> str:
    return MISSING if number is None else f"{number:,}"
