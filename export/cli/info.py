"""`vitdeploy info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from export.cli.output import Json, emit


def info(bundle: Annotated[Path, typer.Argument(help="Bundle folder.")], json: Json = False) -> None:
    """Show what is inside a bundle: its origin, costs, accuracy, inputs and outputs, engines and layers."""
    from rich.console import Console

    from runtime.bundle.schema import open_bundle
    from runtime.report.terminal.bundle_info import bundle_info_record, bundle_info_tables

    opened = open_bundle(bundle)
    if json:
        emit(bundle_info_record(opened))
    else:
        Console().print(bundle_info_tables(opened))
