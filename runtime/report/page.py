"""Assembles the report: what each section shows, as plain values that the template only lays out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from runtime.report import figures
from runtime.report.axes import accuracy_axis
from runtime.report.facts import Facts, machine_facts, machine_name, runtime_facts
from runtime.report.findings import Control, controls, headline, is_baseline, plottable
from runtime.report.forest import Whisker, whiskers
from runtime.report.numbers import percent
from runtime.report.sections import Section, sections
from runtime.report.style import Style, panels, style_of
from runtime.report.tables import Column, columns_for
from runtime.report.templates import asset, render
from runtime.results import Cell


@dataclass(frozen=True)
class Plot:
    """A figure with a heading, drawn by the page's script."""

    title: str
    data: dict[str, Any]

    @property
    def height(self) -> int:
        """Pixels to reserve, so that the page does not jump while it loads."""
        return int(self.data["layout"]["height"])


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


@dataclass(frozen=True)
class SectionView:
    """Everything the template needs about one run on one machine."""

    section: Section
    machine_name: str
    headline: str
    style: Style
    columns: list[Column]
    rows: list[Row]
    baselines: list[str]
    throughput: list[Plot]
    latency: list[Plot]
    memory: list[Plot]
    layers: list[LayerMaps]
    machine: Facts
    runtimes: list[tuple[str, Facts]]
    commands: list[str]
    controls: tuple[Control, ...]
    off_axis: list[str]
    warnings: dict[str, list[str]]


def render_page(cells: Sequence[Cell], title: str) -> str:
    """The whole HTML document.

    Raises:
        InputError: there are no cells.
    """
    return render(
        "report.html",
        title=title,
        views=[view(section) for section in sections(cells)],
        css=Markup(asset("report.css")),
        script=Markup(asset("report.js")),
        plotly=Markup(get_plotlyjs()),
    )


def view(section: Section) -> SectionView:
    """Work out what a section shows."""
    measured = section.measured
    style = style_of(section.cells)
    marks = whiskers(measured)
    groups = panels(measured)
    return SectionView(
        section=section,
        machine_name=machine_name(section.machine),
        headline=headline(section.cells),
        style=style,
        columns=columns_for(measured),
        rows=[Row(cell, is_baseline(cell, measured), marks.get(cell.key)) for cell in measured],
        baselines=sorted({cell.ratio.baseline for cell in measured if cell.ratio}),
        throughput=[_plot(panel.title, figures.throughput_figure(panel, style)) for panel in groups if plottable(panel.cells)],
        latency=[
            _plot(panel.title, figures.latency_figure(panel, style))
            for panel in groups
            if any(cell.samples_ms for cell in panel.cells)
        ],
        memory=list(_memory(measured, style)),
        layers=list(_layers(measured)),
        machine=machine_facts(section.machine),
        runtimes=runtime_facts(measured),
        commands=list(dict.fromkeys(cell.command for cell in section.cells)),
        controls=controls(section.cells),
        off_axis=list(
            dict.fromkeys(
                f"{cell.bundle} ({percent(cell.top1)} %)"
                for panel in groups
                for cell in accuracy_axis(plottable(panel.cells)).below
            )
        ),
        warnings=_warnings(measured),
    )


def _warnings(cells: Iterable[Cell]) -> dict[str, list[str]]:
    """Each warning with the cells that it concerns."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        for text in cell.warnings:
            found.setdefault(text, []).append(cell.key)
    return found


def _memory(cells: Sequence[Cell], style: Style) -> Iterator[Plot]:
    if any(cell.model_mb is not None for cell in cells):
        yield _plot("model size", figures.size_figure(cells, style))
    for panel in panels(cells):
        if any(cell.peak_rss_mb is not None for cell in panel.cells):
            yield _plot(f"peak memory, {panel.title}", figures.memory_figure(panel, style))


def _layers(cells: Iterable[Cell]) -> Iterator[LayerMaps]:
    decomposed = {
        cell.bundle: cell.layers for cell in cells if any(row.rank is not None or row.relative_error > 0 for row in cell.layers)
    }
    top = max((row.relative_error for rows in decomposed.values() for row in rows), default=1.0) or 1.0
    for bundle, rows in decomposed.items():
        yield LayerMaps(
            bundle, _plot("rank", figures.rank_figure(rows)), _plot("relative output error", figures.error_figure(rows, top))
        )


def _plot(title: str, figure: go.Figure) -> Plot:
    return Plot(title, json.loads(figure.to_json()))
