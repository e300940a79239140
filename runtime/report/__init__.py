"""From bench results to one self-contained HTML file, a picture, tables, and a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runtime.report.html.dependencies import report_extra
from runtime.results.schema import Cell
from vitnla.common.files import write_atomically


def write_report(cells: Sequence[Cell], path: Path, title: str) -> None:
    """Write the cells as one HTML file that needs no network. Each run on each machine gets a section of its own.

    Raises:
        InputError: there are no cells, or `path` cannot be written.
        MissingDependencyError: the `report` extra is not installed.
    """
    with report_extra():
        from runtime.report.html.page import render_page
    write_atomically(path, render_page(cells, title))


def write_picture(cells: Sequence[Cell], path: Path, title: str) -> None:
    """Write throughput against accuracy as an SVG picture for a README, one block per run on each machine.

    Raises:
        InputError: no cell has both a throughput and a top-1, or `path` cannot be written.
        MissingDependencyError: the `report` extra is not installed.
    """
    with report_extra():
        from runtime.report.charts.picture import to_svg
    write_atomically(path, to_svg(cells, title))


def write_badge(cells: Sequence[Cell], path: Path, _: str) -> None:
    """Write the largest speed-up within one point of top-1 as a small SVG for a README.

    Raises:
        InputError: the cells are of several runs, or `path` cannot be written.
        MissingDependencyError: the `report` extra is not installed.
    """
    with report_extra():
        from runtime.report.badge import to_badge
    write_atomically(path, to_badge(cells))
