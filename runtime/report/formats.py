"""Write a report in any of its formats, by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from runtime.report.tables import to_csv, to_markdown
from runtime.results.schema import Cell
from vitnla.common.errors import InputError, MissingDependencyError, unknown_name
from vitnla.common.files import write_atomically

_EXTRA = ("plotly", "jinja2")


def write(cells: Sequence[Cell], path: Path, form: str, title: str) -> None:
    """Write `cells` to `path` as `html`, `svg`, `badge` (a small SVG), `md`, `csv` or `json`.

    Raises:
        InputError: the form is unknown, there are no cells, `svg` has nothing to draw, `badge` is asked of several runs, or `path` cannot be written.
        MissingDependencyError: `html`, `svg` or `badge` without the `report` extra.
    """
    drawn = {"html": write_report, "svg": write_picture, "badge": write_badge}
    text: dict[str, Callable[[Sequence[Cell]], str]] = {"md": to_markdown, "csv": to_csv, "json": to_json}
    if not cells:
        raise InputError("expected results to report, got none", "run vitdeploy bench first")
    if form in drawn:
        drawn[form](cells, path, title)
    elif form in text:
        write_atomically(path, text[form](cells))
    else:
        raise unknown_name("report format", form, [*drawn, *text])


def to_json(cells: Sequence[Cell]) -> str:
    """Return all cells, raw samples included, as one JSON document."""
    return json.dumps({"cells": [cell.model_dump(mode="json") for cell in cells]}, indent=1) + "\n"


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


@contextmanager
def report_extra() -> Iterator[None]:
    """Turn a missing package of the `report` extra, imported inside this block, into an error of one line.

    Raises:
        MissingDependencyError: plotly or jinja2 is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        remedy = "pip install 'vitdeploy[report]', or pip install -e '.[report]' in a checkout"
        raise MissingDependencyError(f"a report needs {error.name}, which is not installed", remedy) from error
