"""Assign a colour to each series of bundles and a marker to each runtime, for all charts of a section."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runtime.report.grouping import is_dense
from runtime.results.schema import Cell

# Mid-tones, with a contrast of at least 3:1 on white and on near-black, so that one palette serves both themes.
DENSE_COLORS = ("#7d8590", "#a3784e", "#5f8a8b", "#8f7196", "#938b4f", "#b0747d", "#6b80a8", "#6f9268")
COLORS = ("#3b7dd8", "#d9822b", "#2a9d74", "#b5589a", "#7e6bd0", "#d1574b", "#1f97ad", "#8c8f2f", "#a8623a", "#5671b8")
_NUMBER = re.compile(r"(?<![^-_ ])\d+(?:\.\d+)?(?![^-_ ])")


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


@dataclass(frozen=True)
class Series:
    """Bundles whose names differ only in numbers, largest number first; a bundle without such a sibling is a series by itself."""

    name: str
    """With braces around what differs: `svd-{0.8,0.65,0.5}`."""
    labels: dict[str, str]
    """Label of each bundle's point, by its name: the numbers in which it differs, or the name where it has no sibling."""
    connected: bool
    """True if a single number differs, so that a line through the bundles has a meaning."""


def series_of(bundles: Iterable[str]) -> list[Series]:
    """Group names that differ only in numbers, in order of first appearance. Hyphens, underscores or blanks delimit a number."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(bundles):
        groups.setdefault(_NUMBER.sub("\0", name), []).append(name)
    return [_series(stem.split("\0"), names) for stem, names in groups.items()]


def _series(fixed: Sequence[str], names: list[str]) -> Series:
    if len(names) == 1:
        return Series(names[0], {names[0]: names[0]}, connected=False)
    numbers = {name: _NUMBER.findall(name) for name in names}
    ordered = sorted(names, key=lambda name: [float(number) for number in numbers[name]], reverse=True)
    columns = [list(dict.fromkeys(column)) for column in zip(*(numbers[name] for name in ordered), strict=True)]
    differing = [place for place, values in enumerate(columns) if len(values) > 1]
    written = [f"{{{','.join(values)}}}" if len(values) > 1 else values[0] for values in columns]
    return Series(
        name="".join(text + number for text, number in zip(fixed, [*written, ""], strict=True)),
        labels={name: ", ".join(numbers[name][place] for place in differing) for name in ordered},
        connected=len(differing) == 1,
    )


@dataclass(frozen=True)
class Style:
    """Colours by series and markers by runtime, in the order in which they first appear."""

    series: dict[str, Series]
    """The series of each bundle, by its display name."""
    colors: dict[str, str]
    markers: dict[str, Marker]
    name_precision: bool
    """True if the cells differ in precision, which is then shown beside the runtime."""
    name_runtime: bool
    """True if a bundle was measured on several runtimes, which are then shown beside its name."""

    def runtime(self, cell: Cell) -> str:
        """Return the cell's runtime as a legend shows it."""
        return _runtime(cell, self.name_precision)

    def row(self, cell: Cell) -> str:
        """Return the name of the cell's row in a chart: its bundle, and its runtime where any bundle has several."""
        return f"{cell.display_name} · {self.runtime(cell)}" if self.name_runtime else cell.display_name

    def label(self, cell: Cell) -> str:
        """Return the label of the cell's point."""
        return self.series[cell.display_name].labels[cell.display_name]

    def color(self, cell: Cell) -> str:
        """Return the colour of the cell's series."""
        return self.colors[self.series[cell.display_name].name]

    def marker(self, cell: Cell) -> Marker:
        """Return the marker of the cell's runtime."""
        return self.markers[self.runtime(cell)]


def style_of(cells: Sequence[Cell]) -> Style:
    """Assign colours and markers. Dense bundles are greys and earths, so that the baseline recedes; colours repeat beyond the palette."""
    series: dict[str, Series] = {}
    colors: dict[str, str] = {}
    for palette, wanted in ((DENSE_COLORS, True), (COLORS, False)):
        for index, group in enumerate(series_of(cell.display_name for cell in cells if is_dense(cell) is wanted)):
            series |= dict.fromkeys(group.labels, group)
            colors[group.name] = palette[index % len(palette)]
    name_precision = len({cell.precision for cell in cells}) > 1
    runtimes = dict.fromkeys(_runtime(cell, name_precision) for cell in cells)
    markers = {name: MARKERS[index % len(MARKERS)] for index, name in enumerate(runtimes)}
    places = {(cell.display_name, _runtime(cell, name_precision)) for cell in cells}
    return Style(series, colors, markers, name_precision, len(places) > len({cell.display_name for cell in cells}))


def _runtime(cell: Cell, name_precision: bool) -> str:
    return f"{cell.runtime} {cell.precision}" if name_precision else cell.runtime
