"""`vitdeploy tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from export.cli.bundles import ARTIFACTS, DEFAULT_THREADS, ClassMap, targets
from export.cli.output import Json, command_line, emit, say, seconds, status

if TYPE_CHECKING:
    from export.tune.tune import Answer
    from runtime.results.statistics import Interval


def tune(
    model: Annotated[str, typer.Option(help="The dense model, as for export.")] = "demo",
    data: Annotated[str, typer.Option(help="Data SPEC with calibration, validation and test splits (docs/data.md).")] = "demo",
    class_map: ClassMap = None,
    max_drop: Annotated[float, typer.Option(help="Points of top-1 that may be lost against the dense model.")] = 1.0,
    confidence: Annotated[
        float, typer.Option(help="How sure it must be, on those images, that no more are lost; 0.5 leaves no margin.")
    ] = 0.8,
    runtime: Annotated[
        list[str] | None,
        typer.Option("--runtime", help="Repeatable, such as ort, openvino, openvino:bf16. Default: all that run here."),
    ] = None,
    batch: Annotated[int, typer.Option("-b", "--batch-size", min=1, help="Images at a time.")] = 16,
    time_budget: Annotated[str, typer.Option(help="After this long nothing deeper is tried: 90s, 20m, 1h.")] = "20m",
    duration: Annotated[float, typer.Option(help="Measured seconds of each cell of the final comparison.")] = 4.0,
    latency_runtime: Annotated[
        str | None, typer.Option(help="Whose times auto counts by, as for export. Default: where the dense model is the fastest.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="CPU threads of every runtime. Default: all cores, a half or a quarter, whichever is the fastest."
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(min=1, help="Images to choose by, at most: the validation split, then training images left over.")
    ] = 10_000,
    test_images: Annotated[int | None, typer.Option(min=1, help="Test images for the answer. Default: all.")] = None,
    calibration_images: Annotated[int | None, typer.Option(min=1, help="Default: the whole calibration split.")] = None,
    distill: Annotated[
        int, typer.Option(min=0, metavar="EPOCHS", help="Also cut deeper, and distil each cut for so many passes.")
    ] = 0,
    distill_images: Annotated[int | None, typer.Option(min=2, help="Training images of a pass. Default: all.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder; an interrupted tuning there goes on.")] = ARTIFACTS
    / "tune",
    json: Json = False,
) -> None:
    """Find the fastest bundle on this machine within an accuracy budget, and hand it over."""
    from rich.console import Console

    from export.latency.target import parse_latency_target
    from export.tune.request import Lessons, TuneRequest, default_targets
    from export.tune.tune import RESULTS
    from export.tune.tune import tune as run
    from runtime.report.formats import write
    from runtime.report.terminal.cells import cells_table

    chosen = targets(runtime, "cpu") if runtime else default_targets()
    request = TuneRequest(
        model, data, max_drop, confidence, chosen, batch, threads or DEFAULT_THREADS, images, test_images, calibration_images,
        seconds(time_budget, "--time-budget"), duration, output, command_line(),
        parse_latency_target(latency_runtime) if latency_runtime else None, Lessons(distill, distill_images) if distill else None,
        fewer_threads=() if threads else tuple(sorted({DEFAULT_THREADS // 2, DEFAULT_THREADS // 4} - {0})),
        class_map=class_map,
    )  # fmt: skip
    request.check()
    with status() as on_step:
        answer = run(request, on_step)
    report = output / "report.html"
    write(list(answer.cells), report, "html", f"vitdeploy tune: {model}, {request.question}")
    if json:
        emit(_record(answer))
    else:
        Console().print(cells_table(list(answer.cells)))
    _say_answer(answer, request)
    say(f"{output / RESULTS} holds every cell; {report} draws them")


def _say_answer(answer: Answer, request: Any) -> None:
    from runtime.report.text import percent

    choice, accuracy = answer.choice, answer.bundle.manifest.accuracy
    cell = choice.cell
    if not choice.decomposed:
        say(f"nothing decomposed is faster than {cell.display_name} within {request.max_drop:g} points: that is the answer")
    say(
        f"{answer.bundle.folder}: {cell.display_name} on {cell.runtime}, batch {cell.batch}, {answer.threads} threads: {cell.images_per_s:.0f} images/s, "
        f"{_times(choice.speedup)} dense fp32 on {choice.fp32.runtime}, {_times(choice.gain)} the fastest dense one ({choice.dense.display_name} on "
        f"{choice.dense.runtime})"
    )
    say(
        f"top-1 on {accuracy.images:,} test images, there: {answer.top1.value:.2%} [{answer.top1.low:.2%}, {answer.top1.high:.2%}] "
        f"(dense {percent(accuracy.dense_top1)}%); {_chosen(answer)}, "
        f"in {answer.seconds / 60:.1f} min"
    )


def _chosen(answer: Answer) -> str:
    return f"chosen because it {answer.loss.describe()}" if answer.loss.images else "the dense model itself"


def _times(ratio: Interval | None) -> str:
    return "1x" if ratio is None else f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"


def _record(answer: Answer) -> dict[str, Any]:
    choice, accuracy = answer.choice, answer.bundle.manifest.accuracy
    return {
        "bundle": str(answer.bundle.folder),
        "label": choice.cell.display_name,
        "activations": choice.cell.activations,
        "method": choice.cell.method,
        "precision": choice.cell.precision,
        "runtime": choice.cell.runtime,
        "batch": choice.cell.batch,
        "decomposed": choice.decomposed,
        "images_per_s": choice.cell.images_per_s,
        "speedup": choice.speedup and choice.speedup._asdict(),
        "baseline": {"bundle": choice.fp32.bundle, "runtime": choice.fp32.runtime},
        "gain_over_fastest_dense": choice.gain and choice.gain._asdict(),
        "fastest_dense": {"bundle": choice.dense.bundle, "runtime": choice.dense.runtime},
        "drop_points": None if accuracy.dense_top1 is None else 100 * (accuracy.dense_top1 - answer.top1.value),
        "validation": {**answer.loss.model_dump(), "lost_points": answer.loss.points()._asdict() if answer.loss.images else None},
        "test": {"images": accuracy.images, "dense_top1": accuracy.dense_top1, "top1": answer.top1._asdict()},
        "candidates": [
            cell.model_dump(
                include={"bundle", "label", "activations", "method", "runtime", "precision", "images_per_s", "top1", "error"}
            )
            for cell in answer.cells
        ],
        "threads": answer.threads,
        "latency_runtime": answer.prices.label,
        "shares": [{"share": share, "distilled": False, "within_budget": ok} for share, ok in answer.tried.items()]
        + [{"share": share, "distilled": True, "within_budget": ok} for share, ok in answer.taught.items()],
        "seconds": answer.seconds,
    }
