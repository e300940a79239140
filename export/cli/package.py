"""`vitdeploy package`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from export.cli.output import Json, emit, say


def package(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    format: Annotated[
        str, typer.Option(help="triton: a Triton Inference Server model repository, and a KServe manifest.")
    ] = "triton",
    results: Annotated[
        Path | None, typer.Option(help="Results of vitdeploy bench: the batch sizes that it found best are preferred.")
    ] = None,
    instances: Annotated[int, typer.Option(min=1, help="Copies of the model that Triton runs at once, on each device.")] = 1,
    device: Annotated[str, typer.Option(help="Where ONNX Runtime runs: auto (GPUs where there are any), cpu or gpu.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace a folder that exists.")] = False,
    json: Json = False,
) -> None:
    """Package a bundle for a server: what Triton needs, checked against Triton's own schema."""
    from export.serve.write import TritonRequest, write_repository
    from runtime.bundle.schema import open_bundle
    from vitnla.common.errors import unknown_name

    if format != "triton":
        raise unknown_name("format", format, ("triton",))
    made = write_repository(TritonRequest(open_bundle(bundle), results, instances, device), output, replace=force)
    if json:
        emit({"output": str(output), **made.model_dump()})
        return
    say(f"{output}/model_repository: {', '.join(made.models)}")
    for note in made.notes:
        say(note)
