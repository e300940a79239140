"""Draw throughput against accuracy as a static SVG picture for a README."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from runtime.report.charts.axes import ticks
from runtime.report.charts.label_placement import CHARACTER_PX
from runtime.report.charts.scatter import Area, Position, Scatter, charts
from runtime.report.charts.style import MARKERS, Marker, style_of
from runtime.report.facts import machine_name
from runtime.report.grouping import Section, sections
from runtime.report.headline import headline, plottable
from runtime.report.html.templates import fill
from runtime.results.schema import Cell
from vitnla.common.errors import InputError

WIDTH = 800
_COLUMNS, _EDGE, _GUTTER, _AXIS, _CHART_HEIGHT = 2, 24, 24, 54, 250
_LINE, _SWATCH = 20, 16
_ROW = _CHART_HEIGHT + 4 * _LINE
_CAPTION_CHARACTERS = 86


@dataclass(frozen=True)
class Frame:
    """A chart and the position of its plot area, in pixels."""

    chart: Scatter
    left: float
    top: float
    area: Area

    def x(self, rate: float) -> float:
        """Return the x coordinate of a throughput, pixels."""
        low, high = self.chart.x_range
        return round(self.left + self.area.width * (rate - low) / (high - low), 1)

    def y(self, top1: float) -> float:
        """Return the y coordinate of a top-1 in per cent, pixels."""
        low, high = self.chart.y_range
        return round(self.top + self.area.height * (high - top1) / (high - low), 1)

    def path(self, positions: Iterable[Position]) -> str:
        """Return the points of a polyline, as SVG wants them."""
        return " ".join(f"{self.x(x)},{self.y(y)}" for x, y in positions)

    @property
    def x_ticks(self) -> list[float]:
        """Throughputs with a grid line and a number."""
        return ticks(*self.chart.x_range)

    @property
    def y_ticks(self) -> list[float]:
        """Accuracies with a grid line and a number."""
        return ticks(*self.chart.y_range, about=8)


@dataclass(frozen=True)
class LegendEntry:
    """An entry of the legend."""

    text: str
    color: str
    marker: Marker
    left: float
    top: float


@dataclass(frozen=True)
class Block:
    """The part of the picture for one run on one machine."""

    caption: list[tuple[float, str]]
    """Heights and lines of the headline."""
    keys: list[LegendEntry]
    frames: list[Frame]
    footer: tuple[float, str]
    bottom: float


def to_svg(cells: Sequence[Cell], title: str) -> str:
    """Return the picture, `WIDTH` pixels wide, on a light ground; one block below the other for each run on each machine.

    Raises:
        InputError: no cell has both a throughput and a top-1.
    """
    drawable = [section for section in sections(cells) if plottable(section.measured)]
    if not drawable:
        raise InputError(
            "expected results with a throughput and a top-1 to draw, got none", "run vitdeploy bench with --data demo"
        )
    blocks: list[Block] = []
    for section in drawable:
        blocks.append(_block(section, blocks[-1].bottom if blocks else 2.0 * _EDGE))
    return fill("picture.svg", title=title, width=WIDTH, edge=_EDGE, blocks=blocks, height=blocks[-1].bottom)


def _block(section: Section, top: float) -> Block:
    style = style_of(section.measured)
    lines = textwrap.wrap(headline(section.cells), _CAPTION_CHARACTERS, break_on_hyphens=False)
    caption = [(top + _LINE * number, line) for number, line in enumerate(lines)]
    entries = [(name, color, MARKERS[0]) for name, color in style.colors.items()]
    if len(style.markers) > 1:
        entries += [(name, "currentColor", marker) for name, marker in style.markers.items()]
    keys = list(_keys(entries, caption[-1][0] + 1.4 * _LINE))

    area = Area((WIDTH - 2 * _EDGE - (_COLUMNS - 1) * _GUTTER) / _COLUMNS - _AXIS, _CHART_HEIGHT)
    frames = []
    cursor = keys[-1].top + 2.2 * _LINE
    for number, chart in enumerate(charts(section.measured, style, area)):
        row, column = divmod(number, _COLUMNS)
        left = _EDGE + column * (area.width + _AXIS + _GUTTER) + _AXIS
        frames.append(Frame(chart, left, cursor + row * _ROW, area))
    cursor += math.ceil(len(frames) / _COLUMNS) * _ROW
    foot = " · ".join(
        [machine_name(section.machine), section.created[:10], "bars: 95 % interval of top-1", "dotted: Pareto frontier"]
    )
    return Block(caption, keys, frames, (cursor - 0.8 * _LINE, foot), cursor + 1.2 * _LINE)


def _keys(entries: Iterable[tuple[str, str, Marker]], top: float) -> Iterator[LegendEntry]:
    """Yield the legend entries from left to right, in as many lines as they need."""
    left = float(_EDGE)
    for text, color, marker in entries:
        width = _SWATCH + CHARACTER_PX * len(text) + 1.5 * _SWATCH
        if left > _EDGE and left + width > WIDTH - _EDGE:
            left, top = float(_EDGE), top + _LINE
        yield LegendEntry(text, color, marker, left, top)
        left += width
