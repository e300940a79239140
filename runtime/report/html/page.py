"""Assemble the report: the content of each section as plain values, which the template only lays out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from runtime.report.charts import figures
from runtime.report.charts.plotting import Plot, plot_of
from runtime.report.charts.scatter import Area, Scatter, charts
from runtime.report.charts.style import Style, style_of
from runtime.report.facts import Facts, machine_facts, machine_name, runtime_facts
from runtime.report.grouped_warnings import WarningGroup, group_warnings
from runtime.report.grouping import Section, display_baseline, panels, sections
from runtime.report.headline import Control, controls, headline, is_baseline, role
from runtime.report.html.templates import render
from runtime.report.loss_attribution import LossAttribution, attribute_losses, attributed_steps
from runtime.report.tables import COLUMNS, Column, columns_for
from runtime.report.text import percent
from runtime.results.schema import Cell
from vitnla.common.measures import LayerRow, LossStage

_CHART = Area(width=420, height=310)
"""The area for which labels are placed: the narrowest usual one on a desktop, so that they fit wider ones too."""
_SHOWN_ELSEWHERE = ("scenario", "verdict", "load_s", "first_inference_ms")
"""Columns that the table omits: the titles of groups name the scenario, the ratio's colour the verdict, a second table the start."""
_START = ("bundle", "runtime", "precision", "batch", "load_s", "first_inference_ms", "peak_rss_mb", "device_mb", "model_mb")
_WHISKER_WIDTH = 96.0
_WHISKER_EDGE = 4.0


@dataclass(frozen=True)
class Whisker:
    """Horizontal positions in a drawing 96 units wide: the interval, its middle, and the ratio 1."""

    low: float
    middle: float
    high: float
    unity: float


@dataclass(frozen=True)
class LayerMaps:
    """The two per-layer maps of one decomposed bundle, and the numbers behind them."""

    bundle: str
    ranks: Plot
    errors: Plot
    rows: tuple[LayerRow, ...]


@dataclass(frozen=True)
class Losses:
    """The losses of accuracy: by step and runtime, and the figures of each step of an export."""

    attributions: list[LossAttribution]
    steps: list[str]
    chart: Plot | None
    colors: dict[str, str]
    exports: dict[str, tuple[LossStage, ...]]
    """By the display name of the bundle."""


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    cell: Cell
    baseline: bool
    whisker: Whisker | None
    baseline_key: str
    """Display key of the cell that its ratio is relative to; empty without a ratio."""
    role: str | None


@dataclass(frozen=True)
class RowGroup:
    """The rows that may be compared: those of one batch size and scenario."""

    title: str
    rows: list[Row]


@dataclass(frozen=True)
class SectionView:
    """All that the template shows of one run on one machine."""

    section: Section
    machine_name: str
    headline: str
    style: Style
    columns: list[Column]
    start: list[Column]
    groups: list[RowGroup]
    shared: str
    throughput: list[Plot]
    latency: list[Plot]
    memory: list[Plot]
    layers: list[LayerMaps]
    losses: Losses
    machine: Facts
    runtimes: list[tuple[str, Facts]]
    commands: list[str]
    controls: tuple[Control, ...]
    off_axis: list[str]
    warnings: list[WarningGroup]


def render_page(cells: Sequence[Cell], title: str) -> str:
    """Return the whole HTML document.

    Raises:
        InputError: there are no cells.
    """
    return render("report.html", title=title, views=[view(section) for section in sections(cells)])


def view(section: Section) -> SectionView:
    """Return the content of a section."""
    measured = section.measured
    style = style_of(measured)
    marks = whiskers(measured)
    groups = panels(measured)
    scatters = charts(measured, style, _CHART)
    return SectionView(
        section=section,
        machine_name=machine_name(section.machine),
        headline=headline(section.cells),
        style=style,
        columns=columns_for(measured, _keys(measured)),
        start=columns_for(measured, _START),
        groups=[RowGroup(panel.title, [_row(cell, section, marks) for cell in panel.cells]) for panel in groups],
        shared=", ".join(_shared(measured)),
        throughput=[plot_of(chart.title, figures.throughput_figure(chart)) for chart in scatters],
        latency=[
            plot_of(panel.title, figures.latency_figure(panel, style))
            for panel in groups
            if any(cell.samples_ms for cell in panel.cells)
        ],
        memory=list(_memory(measured, style)),
        layers=list(_layers(measured)),
        losses=_losses(measured),
        machine=machine_facts(section.machine),
        runtimes=runtime_facts(measured),
        commands=list(dict.fromkeys(cell.command for cell in section.cells)),
        controls=controls(section.cells),
        off_axis=list(dict.fromkeys(_off_axis(scatters))),
        warnings=group_warnings(section.cells),
    )


def _keys(cells: Sequence[Cell]) -> list[str]:
    """Return the columns of the table: titles of groups name the batch size, but for searched ones each row has its own."""
    omitted = _SHOWN_ELSEWHERE if any(cell.batch_search for cell in cells) else (*_SHOWN_ELSEWHERE, "batch")
    return [key for key in COLUMNS if key not in omitted]


def _shared(cells: Sequence[Cell]) -> Iterator[str]:
    """Yield the precision and the scenario that every cell has, which the table omits."""
    for values in ({cell.precision for cell in cells}, {cell.scenario for cell in cells}):
        if len(values) == 1:
            yield from values


def _off_axis(scatters: Iterable[Scatter]) -> Iterator[str]:
    for chart in scatters:
        yield from (f"{point.cell.display_name} ({percent(point.cell.top1)} %)" for point in chart.points if point.below)


def _memory(cells: Sequence[Cell], style: Style) -> Iterator[Plot]:
    if any(cell.model_mb is not None for cell in cells):
        yield plot_of("size of the ONNX model", figures.size_figure(cells, style))
    for panel in panels(cells):
        if any(cell.peak_rss_mb is not None for cell in panel.cells):
            yield plot_of(f"peak memory, {panel.title}", figures.memory_figure(panel, style))


def _row(cell: Cell, section: Section, marks: Mapping[str, Whisker]) -> Row:
    baseline_key = "" if cell.ratio is None else display_baseline(cell.ratio, section.cells)
    return Row(cell, is_baseline(cell, section.measured), marks.get(cell.key), baseline_key, role(cell, section.cells))


def _losses(cells: Sequence[Cell]) -> Losses:
    attributions = attribute_losses(cells)
    steps = attributed_steps(attributions)
    chart = (
        plot_of("change of top-1 by step", figures.losses_figure(attributions))
        if figures.has_visible_losses(attributions)
        else None
    )
    exports = {cell.display_name: cell.losses for cell in cells if cell.losses}
    return Losses(attributions, steps, chart, {step: figures.LOSS_COLORS[step] for step in steps}, exports)


def _layers(cells: Iterable[Cell]) -> Iterator[LayerMaps]:
    decomposed = {
        cell.display_name: cell.layers
        for cell in cells
        if any(row.kept is not None or row.relative_error > 0 for row in cell.layers)
    }
    top = max((row.relative_error for rows in decomposed.values() for row in rows), default=1.0) or 1.0
    for bundle, rows in decomposed.items():
        yield LayerMaps(
            bundle,
            plot_of("rank or width", figures.rank_figure(rows)),
            plot_of("relative output error", figures.error_figure(rows, top)),
            rows,
        )


def whiskers(cells: Iterable[Cell]) -> dict[str, Whisker]:
    """Return positions by cell key, on one logarithmic scale for all cells, so that 2× and 0.5× lie equally far from 1."""
    ratios = {cell.key: cell.ratio for cell in cells if cell.ratio and cell.ratio.low > 0}
    if not ratios:
        return {}
    low = math.log(min(1.0, *(ratio.low for ratio in ratios.values())))
    high = math.log(max(1.0, *(ratio.high for ratio in ratios.values())))
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return round(_WHISKER_EDGE + (_WHISKER_WIDTH - 2 * _WHISKER_EDGE) * (math.log(value) - low) / span, 2)

    return {key: Whisker(place(ratio.low), place(ratio.value), place(ratio.high), place(1.0)) for key, ratio in ratios.items()}
