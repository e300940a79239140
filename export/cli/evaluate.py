"""`vitdeploy evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from export.cli.bundles import DEFAULT_THREADS, ClassMap, Provider
from export.cli.output import Json, bar, emit, say


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write; what an earlier run finished there is kept.")],
    data: Annotated[str, typer.Option(help="Data SPEC; folder:DIR may also be image files without class folders.")] = "demo",
    class_map: ClassMap = None,
    split: Annotated[str, typer.Option(help="Which images: test, validation, ... or all.")] = "test",
    engine: Annotated[str, typer.Option(help="local: processes of this machine; ray: actors of Ray Data.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of a running Ray cluster, HOST:PORT or auto. Default: one on this machine, for this run.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes or actors. Default: cores / threads; 1 with --address.", show_default=False),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each worker.")] = 1,
    runtime: Annotated[str, typer.Option(help="ort, openvino, torch, trt, ...; with a precision, trt:fp16.")] = "ort",
    provider: Provider = "cpu",
    batch: Annotated[int, typer.Option("-b", "--batch", min=1, help="Images of one call.")] = 32,
    shard: Annotated[int, typer.Option(min=1, help="Images of one task and one Parquet part.")] = 2000,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Run the images so many times over, to measure.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Delete what the output folder holds and begin anew.")] = False,
    json: Json = False,
) -> None:
    """Run a whole data set through a bundle, on one machine or a Ray cluster, into Parquet; resumable."""
    from typing import get_args

    from export.batch.evaluate import Engine, EvaluationRequest
    from export.batch.evaluate import evaluate as run
    from runtime.bench.plan import Target
    from runtime.bundle.schema import open_bundle
    from runtime.results.statistics import chance_warning
    from vitnla.common.errors import InputError, unknown_name

    chosen = next((one for one in get_args(Engine) if one == engine), None)
    if chosen is None:
        raise unknown_name("engine", engine, get_args(Engine))
    if address is not None and chosen != "ray":
        raise InputError("--address is about a Ray cluster, got engine local", "add --engine ray")
    target = Target.parse(runtime, provider)
    if (absent := target.unavailable()) is not None:
        raise absent
    count = workers or (1 if address else max(1, DEFAULT_THREADS // threads))
    request = EvaluationRequest(
        open_bundle(bundle),
        target,
        data,
        split,
        output,
        chosen,
        address,
        count,
        threads,
        batch,
        shard,
        limit,
        repeat,
        force,
        class_map,
    )
    with bar("evaluate") as progress:
        summary = run(request, progress)
    if json:
        emit({**summary.model_dump(), "output": str(output)})
        return
    say(f"{output}: {summary.images:,} images in {summary.parts} parts, {summary.unreadable:,} unreadable")
    if summary.top1 is not None and summary.top1_low is not None and summary.top1_high is not None:
        interval = f"{summary.top1_low:.2%} to {summary.top1_high:.2%}"
        say(f"top-1 {summary.top1:.2%} ({interval}) on {summary.labelled:,} labelled images")
        warning = chance_warning(round(summary.top1 * summary.labelled), summary.labelled, summary.scored_classes)
        if warning is not None:
            say(f"warning: {warning}")
    if summary.images_per_s is not None:
        rate = f"{summary.images_per_s:,.0f} images/s with {summary.workers} workers"
        say(f"{rate}, after {summary.startup_s:.1f} s to start; {summary.resumed:,} images were there already")
    if summary.unreadable:
        say(f"unreadable images and why: {output}/unreadable.jsonl")
