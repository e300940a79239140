"""`vitdeploy report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from export.cli.output import Json, emit, say


def report(
    results: Annotated[list[Path], typer.Argument(help="Results files of vitdeploy bench.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")] = Path("artifacts/report.html"),
    format: Annotated[
        str | None, typer.Option(help="html, svg, badge (a small SVG), md, csv or json. Default: by the ending of the file.")
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "vitdeploy bench",
    json: Json = False,
) -> None:
    """Turn results into one self-contained HTML file, a picture, or a table."""
    from runtime.report.formats import write
    from runtime.results.schema import read_cells

    cells = [cell for path in results for cell in read_cells(path, say)]
    write(cells, output, format or output.suffix.removeprefix("."), title)
    say(f"wrote {output}: {len(cells)} cells")
    if json:
        emit({"report": str(output), "cells": len(cells)})
