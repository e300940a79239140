"""What every chart shares: a colour per series of bundles, a marker per runtime, and the panels into which cells are grouped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runtime.report.charts.series import Series, series_of
from runtime.results.schema import Cell

# Mid-tones, with a contrast of at least 3:1 on white and on near-black, so that one palette serves both themes.
DENSE_COLORS = ("#7d8590", "#a3784e", "#5f8a8b", "#8f7196", "#938b4f", "#b0747d", "#6b80a8", "#6f9268")
COLORS = ("#3b7dd8", "#d9822b", "#2a9d74", "#b5589a", "#7e6bd0", "#d1574b", "#1f97ad", "#8c8f2f", "#a8623a", "#5671b8")


@dataclass(frozen=True)
class Marker:
    """A marker by its Plotly name and as an SVG path of radius 1."""

    plotly: str
    path: str


MARKERS = (
    Marker("circle", "M1,0A1,1 0 1 1 -1,0A1,1 0 1 1 1,0Z"),
    Marker("diamond", "M0,-1.3L1.3,0L0,1.3L-1.3,0Z"),
    Marker("square", "M-.89,-.89H.89V.89H-.89Z"),
    Marker("triangle-up", "M0,-1.3L1.15,.75H-1.15Z"),
    Marker("cross", "M-.42,-1.2H.42V-.42H1.2V.42H.42V1.2H-.42V.42H-1.2V-.42H-.42Z"),
    Marker("triangle-down", "M0,1.3L1.15,-.75H-1.15Z"),
    Marker("hexagon", "M0,-1.15L1,-.58V.58L0,1.15L-1,.58V-.58Z"),
    Marker("star-diamond", "M0,-1.4L.45,-.45L1.4,0L.45,.45L0,1.4L-.45,.45L-1.4,0L-.45,-.45Z"),
)


def is_dense(cell: Cell) -> bool:
    """Whether the bundle was exported without a decomposition."""
    return cell.method == "none"


@dataclass(frozen=True)
class Style:
    """Colours by series and markers by runtime, in the order in which they first appear."""

    series: dict[str, Series]
    """The series of each bundle, by its title."""
    colors: dict[str, str]
    markers: dict[str, Marker]
    name_precision: bool
    """Whether the cells differ in precision, so that a runtime's name alone says too little."""
    name_runtime: bool
    """Whether a bundle was measured on several runtimes, so that its name alone says too little."""

    def runtime(self, cell: Cell) -> str:
        """How a legend calls the cell's runtime."""
        return _runtime(cell, self.name_precision)

    def row(self, cell: Cell) -> str:
        """How a row of a chart calls the cell: its bundle, and its runtime where any bundle has several."""
        return f"{cell.title} · {self.runtime(cell)}" if self.name_runtime else cell.title

    def label(self, cell: Cell) -> str:
        """What stands beside the cell's point."""
        return self.series[cell.title].labels[cell.title]

    def color(self, cell: Cell) -> str:
        """The colour of the cell's series."""
        return self.colors[self.series[cell.title].name]

    def marker(self, cell: Cell) -> Marker:
        """The marker of the cell's runtime."""
        return self.markers[self.runtime(cell)]


def style_of(cells: Sequence[Cell]) -> Style:
    """Assign colours and markers. Dense bundles are greys and earths, so that the baseline recedes; colours repeat beyond the palette."""
    series: dict[str, Series] = {}
    colors: dict[str, str] = {}
    for palette, wanted in ((DENSE_COLORS, True), (COLORS, False)):
        for i, one in enumerate(series_of(cell.title for cell in cells if is_dense(cell) is wanted)):
            series |= dict.fromkeys(one.labels, one)
            colors[one.name] = palette[i % len(palette)]
    name_precision = len({cell.precision for cell in cells}) > 1
    runtimes = dict.fromkeys(_runtime(cell, name_precision) for cell in cells)
    markers = {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(runtimes)}
    places = {(cell.title, _runtime(cell, name_precision)) for cell in cells}
    return Style(series, colors, markers, name_precision, len(places) > len({cell.title for cell in cells}))


def _runtime(cell: Cell, name_precision: bool) -> str:
    return f"{cell.runtime} {cell.precision}" if name_precision else cell.runtime


@dataclass(frozen=True)
class Panel:
    """Cells that one chart may compare: equal scenario and batch size, or each at the batch size that a search found best."""

    title: str
    cells: tuple[Cell, ...]


def panels(cells: Iterable[Cell]) -> list[Panel]:
    """Group cells by scenario and batch size, smallest batch first, and those of searched batch sizes together at the end."""
    groups: dict[tuple[str, int | None], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.scenario, None if cell.batch_search else cell.batch), []).append(cell)
    several = len({scenario for scenario, _ in groups}) > 1
    titles = {batch: "best batch" if batch is None else f"batch {batch}" for _, batch in groups}
    return [
        Panel(f"{titles[batch]}, {scenario}" if several else titles[batch], tuple(members))
        for (scenario, batch), members in sorted(groups.items(), key=lambda item: (item[0][1] or math.inf, item[0][0]))
    ]
