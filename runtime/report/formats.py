"""The forms that a report can take, by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime.report import write_badge, write_picture, write_report
from runtime.report.tables import to_csv, to_markdown
from runtime.results.schema import Cell
from vitnla.common.errors import InputError, unknown_name
from vitnla.common.files import write_atomically


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
    """All cells, raw samples included, as one JSON document."""
    return json.dumps({"cells": [cell.model_dump(mode="json") for cell in cells]}, indent=1) + "\n"
