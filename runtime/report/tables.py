"""Define the columns of a table of cells, and write the table as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from runtime.report.grouping import full_names, sections
from runtime.report.text import MISSING, percent, significant, times
from runtime.results.schema import Cell
from runtime.results.statistics import unsteadiness, variation

Value = str | float | None
INCONCLUSIVE_MARK = "?"
"""Follows a ratio whose interval is too wide to tell a difference."""


@dataclass(frozen=True)
class Column:
    """One column: its heading, how a cell is shown in it, and the number or text by which it sorts (None sorts last)."""

    key: str
    heading: str
    text: Callable[[Cell], str]
    value: Callable[[Cell], Value]
    numeric: bool = True


def _words(key: str, heading: str, value: Callable[[Cell], str]) -> Column:
    return Column(key, heading, value, value, numeric=False)


def _number(
    key: str, heading: str, value: Callable[[Cell], float | None], text: Callable[[float | None], str] = significant
) -> Column:
    return Column(key, heading, lambda cell: text(value(cell)), value)


def ratio_text(cell: Cell) -> str:
    """Return the speed against the baseline with its interval, `1.42× [1.38, 1.46]`."""
    return f"{times(cell.ratio.value)} [{cell.ratio.low:.2f}, {cell.ratio.high:.2f}]" if cell.ratio else MISSING


def is_inconclusive(cell: Cell) -> bool:
    """Return True if the interval of the cell's ratio is too wide to tell a difference."""
    return cell.ratio is not None and cell.ratio.verdict == "inconclusive"


def _marked_ratio_text(cell: Cell) -> str:
    return f"{ratio_text(cell)} {INCONCLUSIVE_MARK}" if is_inconclusive(cell) else ratio_text(cell)


def verdict_text(cell: Cell) -> str:
    """Return `faster`, `slower`, `no difference` or `inconclusive`."""
    return cell.ratio.verdict if cell.ratio else MISSING


def top1_half(cell: Cell) -> float | None:
    """Return half the width of the interval of top-1, a fraction."""
    return None if cell.top1_low is None or cell.top1_high is None else (cell.top1_high - cell.top1_low) / 2


def top1_text(cell: Cell) -> str:
    """Return top-1 in per cent with half the width of its interval."""
    half = top1_half(cell)
    return percent(cell.top1) if half is None else f"{percent(cell.top1)} ± {percent(half)}"


def bound_text(cell: Cell) -> str:
    """Return the bound on p99 in ms, and whether it was met."""
    if cell.server is None or cell.server.p99_bound_ms is None:
        return MISSING
    held = {True: "met", False: "missed", None: "not judged"}[cell.server.met]
    return f"{cell.server.p99_bound_ms:g}: {held}"


def unsteady_text(cell: Cell) -> str:
    """Return variation and drift of the measurement where they are over their limits, such as `CV 9.6 %, drift -12 %`."""
    if cell.server is not None:  # the arrivals are meant to vary
        return MISSING
    unsteady = unsteadiness(cell.samples_ms, cell.rounds_images_per_s)
    words = [] if unsteady.variation is None else [f"CV {percent(unsteady.variation, 1)} %"]
    words += [] if unsteady.drift is None else [f"drift {100 * unsteady.drift:+.0f} %"]
    return ", ".join(words) or MISSING


COLUMNS: dict[str, Column] = {
    column.key: column
    for column in (
        _words("bundle", "Bundle", lambda cell: cell.display_name),
        _words("runtime", "Runtime", lambda cell: cell.runtime),
        _words("precision", "Precision", lambda cell: cell.precision),
        Column(
            "activations", "Activations", lambda cell: cell.activations or MISSING, lambda cell: cell.activations, numeric=False
        ),
        _words("scenario", "Scenario", lambda cell: cell.scenario),
        _number("batch", "Batch", lambda cell: cell.batch, lambda value: f"{value:.0f}"),
        _number("rate", "Queries/s", lambda cell: cell.server.rate if cell.server else None),
        Column("bound", "p99 bound ms", bound_text, lambda cell: cell.server.p99_bound_ms if cell.server else None),
        _number(
            "utilisation",
            "Busy %",
            lambda cell: cell.server.utilisation if cell.server else None,
            lambda value: percent(value, 0),
        ),
        _number("images_per_s", "Images/s", lambda cell: cell.images_per_s),
        Column("ratio", "Speed vs baseline", _marked_ratio_text, lambda cell: cell.ratio.value if cell.ratio else None),
        _words("verdict", "Verdict", verdict_text),
        Column("top1", "Top-1 %", top1_text, lambda cell: cell.top1),
        _number("agreement", "Agree %", lambda cell: cell.agreement, percent),
        _number("p50", "p50 ms", lambda cell: cell.latency_ms.p50 if cell.latency_ms else None),
        _number("p90", "p90 ms", lambda cell: cell.latency_ms.p90 if cell.latency_ms else None),
        _number("p99", "p99 ms", lambda cell: cell.latency_ms.p99 if cell.latency_ms else None),
        _number("peak_rss_mb", "Peak MiB", lambda cell: cell.peak_rss_mb),
        _number("device_mb", "GPU MiB", lambda cell: cell.device_mb),
        _number("model_mb", "Model MiB", lambda cell: cell.model_mb),
        _number("load_s", "Load s", lambda cell: cell.load_s, lambda value: significant(value, 2)),
        _number("first_inference_ms", "First call ms", lambda cell: cell.first_inference_ms),
        _number("macs", "MACs", lambda cell: cell.macs.ratio if cell.macs else None, times),
        Column("unsteady", "Unsteady", unsteady_text, lambda cell: variation(cell.samples_ms or cell.rounds_images_per_s)),
    )
}


_UNIFORM = ("scenario", "precision", "activations")
"""Columns that say nothing where every cell has the same."""


def columns_for(
    cells: Sequence[Cell], keys: Iterable[str] = tuple(COLUMNS), columns: Mapping[str, Column] = COLUMNS
) -> list[Column]:
    """Return the named columns without those that no cell has a value for, and without those of `_UNIFORM` on which all cells agree."""
    constant = {key for key in _UNIFORM if len({COLUMNS[key].text(cell) for cell in cells}) <= 1}
    return [columns[key] for key in keys if key not in constant and any(columns[key].text(cell) != MISSING for cell in cells)]


def to_markdown(cells: Sequence[Cell]) -> str:
    """Return GitHub tables, one per run and machine; each is followed by full names of shortened bundles, and by failures.

    Raises:
        InputError: there are no cells.
    """
    parts = []
    groups = sections(cells)
    for group in groups:
        lines = [f"**{_markdown(group.run)}**, {_markdown(group.created)}\n"] if len(groups) > 1 else []
        if group.measured:
            columns = columns_for(group.measured)
            lines.append(_line(column.heading for column in columns))
            lines.append(_line("--:" if column.numeric else ":--" for column in columns))
            lines += [_line(column.text(cell) for column in columns) for cell in group.measured]
        lines += [f"\n{_markdown(label)}: {_markdown(name)}" for label, name in full_names(group.cells).items()]
        lines += [f"\n{_markdown(cell.display_key)} could not be run: {_markdown(cell.error or '')}" for cell in group.failed]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(_markdown(text) for text in texts)} |"


def _markdown(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("\\", "\\\\").replace("|", "\\|")
    return " ".join(escaped.split())


def to_csv(cells: Sequence[Cell]) -> str:
    """Return comma-separated values at full precision, one line per cell, failed ones included; accuracies are fractions.

    Raises:
        InputError: there are no cells.
    """
    sections(cells)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(_flat(cells[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(_flat(cell) for cell in cells)
    return stream.getvalue()


def _flat(cell: Cell) -> dict[str, Value]:
    ratio = cell.ratio
    return {
        "run": cell.run,
        "created": cell.created,
        "method": cell.method,
        **{key: column.value(cell) for key, column in COLUMNS.items()},
        "bundle": cell.bundle,
        "label": cell.label,
        "verdict": ratio.verdict if ratio else None,
        "ratio_low": ratio.low if ratio else None,
        "ratio_high": ratio.high if ratio else None,
        "baseline": ratio.baseline if ratio else None,
        "top1_low": cell.top1_low,
        "top1_high": cell.top1_high,
        "accuracy_images": cell.accuracy_images,
        "samples": len(cell.samples_ms),
        "unserved": cell.server.unserved if cell.server else None,
        "parameters": cell.parameters.ratio if cell.parameters else None,
        "warnings": "; ".join(cell.warnings),
        "error": cell.error,
    }
