"""Lay out charts of throughput against accuracy as plain values, which the page draws with Plotly and the picture as SVG."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from runtime.report.charts.axes import AccuracyAxis, accuracy_axis, rate_range
from runtime.report.charts.label_placement import Box, Side, line_boxes, place_labels
from runtime.report.charts.style import Marker, Style
from runtime.report.grouping import Panel, panels
from runtime.report.headline import frontier, plottable
from runtime.report.text import percent
from runtime.results.schema import Cell

Position = tuple[float, float]
_MARKER_PX = 7.0
_CROWDED = 10
"""A chart of more cells than this is split by runtime, if there are several."""
_LABEL_CHARACTERS = 20
"""Longer names appear in the legend only."""


@dataclass(frozen=True)
class Area:
    """The size of a plot area in pixels, for which labels are placed."""

    width: float
    height: float


@dataclass(frozen=True)
class Point:
    """A cell in the chart. One below the axis is drawn at its foot, without an interval and with its top-1 in the label."""

    cell: Cell
    x: float
    y: float
    low: float | None
    high: float | None
    below: bool
    color: str
    marker: Marker
    label: str
    side: Side | None
    """Side of the point on which the label is written; None where there is no room for it."""


@dataclass(frozen=True)
class SeriesLine:
    """A line through the cells of one series on one runtime, from the largest budget to the smallest."""

    color: str
    positions: tuple[Position, ...]


@dataclass(frozen=True)
class Scatter:
    """One chart: images per second on x, top-1 in per cent on y."""

    title: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    points: tuple[Point, ...]
    series_lines: tuple[SeriesLine, ...]
    frontier: tuple[Position, ...]
    """Corners of the step line of the Pareto frontier, slowest first."""


def charts(cells: Iterable[Cell], style: Style, area: Area) -> list[Scatter]:
    """Return a chart per batch size and scenario of the cells that have both measures, all with one accuracy axis.

    A crowded one is split by runtime; its parts share the throughput axis, so that they can still be compared.
    """
    drawable = plottable(cells)
    axis = accuracy_axis(drawable)
    return [
        _scatter(part, rate_range(panel.cells), axis, style, area)
        for panel in panels(drawable)
        for part in (_by_runtime(panel, style) if len(panel.cells) > _CROWDED else [panel])
    ]


def _by_runtime(panel: Panel, style: Style) -> list[Panel]:
    groups: dict[str, list[Cell]] = {}
    for cell in panel.cells:
        groups.setdefault(style.runtime(cell), []).append(cell)
    if len(groups) == 1:
        return [panel]
    return [Panel(f"{panel.title}, {runtime}", tuple(members)) for runtime, members in groups.items()]


def _scatter(panel: Panel, x_range: tuple[float, float], axis: AccuracyAxis, style: Style, area: Area) -> Scatter:
    positions = {cell.key: _position(cell, axis) for cell in panel.cells}
    bare = Scatter(
        title=panel.title,
        x_range=x_range,
        y_range=(axis.low, axis.high),
        points=tuple(_point(cell, positions[cell.key], style, cell in axis.below) for cell in panel.cells),
        series_lines=tuple(_series_lines(panel.cells, style, positions)),
        frontier=tuple(_frontier_steps([positions[cell.key] for cell in frontier(panel.cells) if cell not in axis.below])),
    )
    return replace(bare, points=tuple(_labelled(bare, area)))


def _point(cell: Cell, position: Position, style: Style, below: bool) -> Point:
    bounds = (None, None) if below else (cell.top1_low, cell.top1_high)
    low, high = (None if bound is None else 100 * bound for bound in bounds)
    name = style.label(cell)
    words = ["answer:"] if cell.answer else []
    words += [name] if len(name) <= _LABEL_CHARACTERS else []
    words += [f"({percent(cell.top1, 1)} %)"] if below else []
    return Point(cell, *position, low, high, below, style.color(cell), style.marker(cell), " ".join(words), side=None)


def _labelled(chart: Scatter, area: Area) -> Iterator[Point]:
    """Yield the points with a side for each label, clear of markers, intervals and lines."""

    def pixels(position: Position) -> Position:
        (left, right), (low, high) = chart.x_range, chart.y_range
        return area.width * (position[0] - left) / (right - left), area.height * (high - position[1]) / (high - low)

    centres = [pixels((point.x, point.y)) for point in chart.points]
    obstacles = [Box(x - _MARKER_PX, y - _MARKER_PX, x + _MARKER_PX, y + _MARKER_PX) for x, y in centres]
    lines: list[Sequence[Position]] = [chart.frontier, *(line.positions for line in chart.series_lines)]
    lines += [
        ((point.x, point.low), (point.x, point.high))
        for point in chart.points
        if point.low is not None and point.high is not None
    ]
    for line in lines:
        for start, end in itertools.pairwise(line):
            obstacles += line_boxes(pixels(start), pixels(end))
    sides = place_labels(centres, [point.label for point in chart.points], obstacles, Box(0, 0, area.width, area.height))
    for point, side in zip(chart.points, sides, strict=True):
        yield replace(point, side=side)


def _position(cell: Cell, axis: AccuracyAxis) -> Position:
    foot = axis.low + 0.05 * (axis.high - axis.low)
    return cell.images_per_s or 0.0, foot if cell in axis.below else 100 * (cell.top1 or 0.0)


def _frontier_steps(positions: Sequence[Position]) -> Iterator[Position]:
    """Yield the corners of the frontier: from each cell down to the accuracy of the next faster one, then across to it."""
    for index, (x, y) in enumerate(positions):
        if index:
            yield positions[index - 1][0], y
        yield x, y


def _series_lines(cells: Sequence[Cell], style: Style, positions: dict[str, Position]) -> Iterator[SeriesLine]:
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((style.series[cell.display_name].name, style.runtime(cell)), []).append(cell)
    for members in groups.values():
        series = style.series[members[0].display_name]
        if series.connected and len(members) > 1:
            order = list(series.labels)
            ordered = sorted(members, key=lambda cell: order.index(cell.display_name))
            yield SeriesLine(style.color(members[0]), tuple(positions[cell.key] for cell in ordered))
