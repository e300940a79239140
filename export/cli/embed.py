"""`vitdeploy embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from export.cli.output import Json, emit


def embed(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    target: Annotated[str, typer.Option("--target", "-t", help="python, node, web or cpp.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    force: Annotated[bool, typer.Option(help="Replace a folder that is there.")] = False,
    json: Json = False,
) -> None:
    """Write a small app around a bundle: its model, labels, preprocessing, a sample image and the expected answer."""
    from rich.console import Console

    from runtime.apps.write import write_app
    from runtime.bundle.schema import open_bundle

    app = write_app(open_bundle(bundle), target, output, replace=force)
    if json:
        emit(app.model_dump(mode="json"))
        return
    about = f"{app.path}: {len(app.files)} files, a model of {app.model_bytes / 1e6:.1f} MB; the sample is '{app.expected}'"
    console = Console()
    console.print(about, highlight=False, markup=False, soft_wrap=True)
    console.print(f"now: cd {app.path} && {app.start}", highlight=False, markup=False, soft_wrap=True)
