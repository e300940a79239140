"""`vitdeploy bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from export.cli.bundles import ARTIFACTS, DEFAULT_THREADS, Bundles, ClassMap, Provider, Runtimes, Threads, open_bundles, targets
from export.cli.output import Json, bar, command_line, emit, integers, say, status
from export.cli.self_test import run_self_test
from runtime.bench.timing import PROCESSES
from vitnla.common.errors import InputError

if TYPE_CHECKING:
    from runtime.bundle.schema import Bundle
    from runtime.results.schema import Cell, Scenario

_BATCHES = {"single-stream": "1,16", "multi-stream": "8", "offline": "auto", "server": "1"}


def bench(
    bundles: Bundles = None,
    runtime: Runtimes = None,
    batch: Annotated[
        str | None,
        typer.Option(
            "-b",
            "--batch-size",
            help="Batch sizes, separated by commas; offline, auto finds the best. "
            "Default: 1,16; multi-stream 8; offline auto; server 1.",
            show_default=False,
        ),
    ] = None,
    scenario: Annotated[
        str,
        typer.Option(
            help="single-stream times each call; multi-stream has 8 images a call; offline times only the whole; "
            "in server, queries arrive at random at --rate or at the highest rate within --p99-bound."
        ),
    ] = "single-stream",
    rate: Annotated[float | None, typer.Option(help="Server: queries per second. Default: searched for.")] = None,
    p99_bound: Annotated[
        float | None, typer.Option(metavar="MS", help="Server: longest 99th percentile of latency, from arrival to answer.")
    ] = None,
    duration: Annotated[float, typer.Option(help="Least measured seconds per cell, over all rounds.")] = 5.0,
    min_count: Annotated[int, typer.Option(min=1, help="Least number of calls per cell, over all rounds.")] = 50,
    rounds: Annotated[int, typer.Option(help="Interleaved slices of each cell's time.")] = 10,
    processes: Annotated[
        int, typer.Option(help="Processes of each cell, one after the other, among which its rounds are divided.")
    ] = PROCESSES,
    baseline: Annotated[
        str | None, typer.Option(help="Bundle that others are compared with. Default: the first dense one.")
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="Also measure each source dense at the same precision, and dense in INT8.")
    ] = False,
    provider: Provider = "cpu",
    threads: Threads = DEFAULT_THREADS,
    cpus: Annotated[
        str | None, typer.Option(help="Logical processors that every runtime is bound to, such as 0,1. Default: all.")
    ] = None,
    data: Annotated[str, typer.Option(help="Accuracy is measured on the test split of this data; none skips it.")] = "demo",
    class_map: ClassMap = None,
    eval_images: Annotated[int | None, typer.Option(min=1, help="Default: the whole test split.")] = None,
    timeout: Annotated[float, typer.Option(help="Longest seconds for one step of a cell.")] = 600.0,
    results_file: Annotated[Path, typer.Option(help="JSON Lines; every run is appended.")] = ARTIFACTS / "results.jsonl",
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Measure what is known instead: a fixed delay, and a bundle against itself.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure latency, throughput, memory and accuracy of bundles, interleaved. What is interrupted goes on when repeated."""
    from rich.console import Console

    from export.cli.evaluation import load_evaluation, measurable
    from runtime.bench.journal import open_journal, sole_writer
    from runtime.bench.plan import BenchPlan, scenario_named
    from runtime.bench.run import run_bench
    from runtime.report.terminal.cells import cells_table
    from runtime.results.schema import append_cells

    chosen = targets(runtime, provider)
    kind = scenario_named(scenario)
    batches = _batches(batch or _BATCHES[kind], kind)  # before a missing bundle is made
    processors = None if cpus is None else integers(cpus, "--cpus", least=0)
    opened = open_bundles(bundles)
    if self_test:
        run_self_test(opened[0], chosen[0], threads, results_file.with_name("self-test.json"), json=json)
        return
    if controls:
        opened += _controls(opened, [target.runtime for target in chosen], "demo" if data == "none" else data, eval_images)
    plan = BenchPlan(
        opened, chosen, batches, threads, kind, duration,
        rounds=rounds, processes=processes, baseline=baseline, timeout_s=timeout, min_count=min_count, rate=rate, p99_bound_ms=p99_bound, cpus=processors,
    )  # fmt: skip
    plan.check()
    evaluation = None if data == "none" else load_evaluation(data, count=eval_images, class_map=class_map)
    for bundle in opened:
        measurable(bundle, evaluation)  # what cannot be scored is said before the long work
    with sole_writer(results_file):
        journal = open_journal(results_file, plan, evaluation, say)
        if journal.steps:
            say(f"going on where an earlier run was interrupted: {journal.rounds} of {rounds} rounds are in {journal.path}")
        try:
            with bar("bench") as progress:
                cells = run_bench(plan, evaluation, command=command_line(), progress=progress, journal=journal)
        except KeyboardInterrupt:
            if journal.path.exists():
                say(f"what is complete is kept in {journal.path}: the same command goes on from there")
            raise
        append_cells(results_file, cells, say)
        journal.remove()
    if json:
        emit({"cells": [_record(cell) for cell in cells]})
    else:
        Console().print(cells_table(cells))
    say(f"appended to {results_file}; vitdeploy report {results_file} -o report.html draws it")


def _batches(text: str, scenario: Scenario) -> tuple[int, ...]:
    """None at all for `auto`."""
    if text == "auto" and scenario != "offline":
        raise InputError(
            f"{scenario}: expected batch sizes, got auto", "auto belongs to --scenario offline; give numbers such as 1,16"
        )
    return () if text == "auto" else integers(text, "batch size")


def _controls(bundles: tuple[Bundle, ...], runtimes: list[str], data: str, eval_images: int | None) -> tuple[Bundle, ...]:
    from export.compare.controls import make_control, wanted_controls

    with status() as on_step:
        return tuple(
            make_control(control, data, ARTIFACTS / "controls", command_line(), on_step, eval_images=eval_images)
            for control in wanted_controls(bundles, runtimes)
        )


def _record(cell: Cell) -> dict[str, Any]:
    return cell.model_dump(exclude={"samples_ms", "rounds_images_per_s", "rounds_latency_ms", "layers"})
