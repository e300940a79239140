"""Assembles the report: what each section shows, as plain values that the template only lays out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from runtime.report import figures
from runtime.report.facts import Facts, machine_facts, machine_name, runtime_facts
from runtime.report.findings import Control, control_kind, controls, headline, is_baseline
from runtime.report.forest import Whisker, whiskers
from runtime.report.losses import Journey, journeys
from runtime.report.notices import Notice, notices
from runtime.report.numbers import percent
from runtime.report.plotting import Plot, plot_of
from runtime.report.scatter import Area, Scatter, charts
from runtime.report.sections import Section, sections
from runtime.report.style import Style, panels, style_of
from runtime.report.tables import COLUMNS, Column, columns_for
from runtime.report.templates import render
from runtime.results import Cell

_CHART = Area(width=420, height=310)
"""Where the labels of a chart are laid out: the narrowest that it usually is on a desktop, so that they fit wider ones too."""
_COLUMNS = [key for key in COLUMNS if key not in ("batch", "scenario", "verdict")]
"""Batch and scenario are the heading of a group of rows, and the verdict is the colour of the ratio."""


@dataclass(frozen=True)
class LayerMaps:
    """The two per-layer maps of one decomposed bundle."""

    bundle: str
    ranks: Plot
    errors: Plot


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    cell: Cell
    baseline: bool
    whisker: Whisker | None
    control: str | None


@dataclass(frozen=True)
class RowGroup:
    """The lines that may be compared: those of one batch size and scenario."""

    title: str
    rows: list[Row]


@dataclass(frozen=True)
class SectionView:
    """Everything the template needs about one run on one machine."""

    section: Section
    machine_name: str
    headline: str
    style: Style
    columns: list[Column]
    groups: list[RowGroup]
    shared: str
    throughput: list[Plot]
    latency: list[Plot]
    memory: list[Plot]
    layers: list[LayerMaps]
    losses: list[Journey]
    machine: Facts
    runtimes: list[tuple[str, Facts]]
    commands: list[str]
    controls: tuple[Control, ...]
    off_axis: list[str]
    notices: list[Notice]


def render_page(cells: Sequence[Cell], title: str) -> str:
    """The whole HTML document.

    Raises:
        InputError: there are no cells.
    """
    return render("report.html", title=title, views=[view(section) for section in sections(cells)])


def view(section: Section) -> SectionView:
    """Work out what a section shows."""
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
        columns=columns_for(measured, _COLUMNS),
        groups=[
            RowGroup(
                panel.title,
                [
                    Row(cell, is_baseline(cell, measured), marks.get(cell.key), control_kind(cell, section.cells))
                    for cell in panel.cells
                ],
            )
            for panel in groups
        ],
        shared=", ".join(_shared(measured)),
        throughput=[plot_of(chart.title, figures.throughput_figure(chart)) for chart in scatters],
        latency=[
            plot_of(panel.title, figures.latency_figure(panel, style))
            for panel in groups
            if any(cell.samples_ms for cell in panel.cells)
        ],
        memory=list(_memory(measured, style)),
        layers=list(_layers(measured)),
        losses=journeys(measured),
        machine=machine_facts(section.machine),
        runtimes=runtime_facts(measured),
        commands=list(dict.fromkeys(cell.command for cell in section.cells)),
        controls=controls(section.cells),
        off_axis=list(dict.fromkeys(_off_axis(scatters))),
        notices=notices(section.cells),
    )


def _shared(cells: Sequence[Cell]) -> Iterator[str]:
    """What the table leaves out because every cell has the same."""
    for values in ({cell.precision for cell in cells}, {cell.scenario for cell in cells}):
        if len(values) == 1:
            yield from values


def _off_axis(scatters: Iterable[Scatter]) -> Iterator[str]:
    for chart in scatters:
        yield from (f"{point.cell.bundle} ({percent(point.cell.top1)} %)" for point in chart.points if point.below)


def _memory(cells: Sequence[Cell], style: Style) -> Iterator[Plot]:
    if any(cell.model_mb is not None for cell in cells):
        yield plot_of("size of the ONNX model", figures.size_figure(cells, style))
    for panel in panels(cells):
        if any(cell.peak_rss_mb is not None for cell in panel.cells):
            yield plot_of(f"peak memory, {panel.title}", figures.memory_figure(panel, style))


def _layers(cells: Iterable[Cell]) -> Iterator[LayerMaps]:
    decomposed = {
        cell.bundle: cell.layers for cell in cells if any(row.kept is not None or row.relative_error > 0 for row in cell.layers)
    }
    top = max((row.relative_error for rows in decomposed.values() for row in rows), default=1.0) or 1.0
    for bundle, rows in decomposed.items():
        yield LayerMaps(
            bundle,
            plot_of("rank or width", figures.rank_figure(rows)),
            plot_of("relative output error", figures.error_figure(rows, top)),
        )
