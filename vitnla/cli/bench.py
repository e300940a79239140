"""`vitdeploy bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitnla.cli.bundles import ARTIFACTS, DEFAULT_THREADS, Bundles, Provider, Runtimes, Threads, open_bundles, targets
from vitnla.cli.output import Json, bar, command_line, emit, integers, say, status

if TYPE_CHECKING:
    from runtime.bundle import Bundle
    from runtime.results import Cell


def bench(
    bundles: Bundles = None,
    runtime: Runtimes = None,
    batch: Annotated[str, typer.Option("-b", "--batch-size", help="Batch sizes, separated by commas.")] = "1,16",
    scenario: Annotated[str, typer.Option(help="single-stream times each call; offline only the whole.")] = "single-stream",
    duration: Annotated[float, typer.Option(help="Measured seconds per cell, over all rounds.")] = 5.0,
    rounds: Annotated[int, typer.Option(help="Interleaved slices of each cell's time.")] = 10,
    baseline: Annotated[
        str | None, typer.Option(help="Bundle that others are compared with. Default: the first dense one.")
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="Also measure each source dense at the same precision, and dense in INT8.")
    ] = False,
    provider: Provider = "cpu",
    threads: Threads = DEFAULT_THREADS,
    data: Annotated[str, typer.Option(help="Accuracy is measured on the test split of this data; none skips it.")] = "demo",
    eval_images: Annotated[int | None, typer.Option(min=1, help="Default: the whole test split.")] = None,
    timeout: Annotated[float, typer.Option(help="Longest seconds for one step of a cell.")] = 600.0,
    results_file: Annotated[Path, typer.Option(help="JSON Lines; every run is appended.")] = ARTIFACTS / "results.jsonl",
    json: Json = False,
) -> None:
    """Measure latency, throughput, memory and accuracy of bundles, interleaved."""
    from rich.console import Console

    from runtime.bench import run_bench
    from runtime.plan import BenchPlan, scenario_named
    from runtime.report.console import cells_table
    from runtime.results import append_cells
    from vitnla.cli.evaluation import load_evaluation

    chosen = targets(runtime, provider)
    batches, kind = integers(batch, "batch size"), scenario_named(scenario)  # before a missing bundle is made
    opened = open_bundles(bundles)
    if controls:
        opened += _controls(opened, [target.runtime for target in chosen], "demo" if data == "none" else data, eval_images)
    plan = BenchPlan(
        opened, chosen, batches, threads, kind, duration,
        rounds=rounds, baseline=baseline, timeout_s=timeout,
    )  # fmt: skip
    evaluation = None if data == "none" else load_evaluation(data, count=eval_images)
    with bar("bench") as progress:
        cells = run_bench(plan, evaluation, command=command_line(), progress=progress)
    append_cells(results_file, cells)
    if json:
        emit({"cells": [_record(cell) for cell in cells]})
    else:
        Console().print(cells_table(cells))
    say(f"appended to {results_file}; vitdeploy report {results_file} -o report.html draws it")


def _controls(bundles: tuple[Bundle, ...], runtimes: list[str], data: str, eval_images: int | None) -> tuple[Bundle, ...]:
    from export.controls import make_control, wanted_controls

    with status() as on_step:
        return tuple(
            make_control(control, data, ARTIFACTS / "controls", command_line(), on_step, eval_images=eval_images)
            for control in wanted_controls(bundles, runtimes)
        )


def _record(cell: Cell) -> dict[str, Any]:
    return cell.model_dump(exclude={"samples_ms", "rounds_images_per_s", "layers"})
