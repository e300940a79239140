"""Run of the suite over paths and shapes: skip with a reason, measure, write the file after every row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.compare.gpu.paths import GpuPath, Ready
from export.compare.gpu.records import Ceiling, GpuResults, Half, Key, Measurement, Row, Skipped, achieved_tflops, write
from export.compare.gpu.shapes import BATCHES, Shape, image_flops, shapes, vit_config
from runtime.bench.timing import time_calls, warm_up


@dataclass(frozen=True)
class Effort:
    """Duration of a row's measurement: seconds and calls on the host's clock, and event windows of `window_ms`."""

    seconds: float = 0.5
    calls: int = 30
    windows: int = 10
    window_ms: float = 50.0


def run_suite(
    paths: Sequence[GpuPath], results: GpuResults, file: Path, say: Callable[[str], None],
    ceiling: Callable[[Half], Ceiling | None], effort: Effort = Effort(), measured: Iterable[Shape] | None = None,
    batches: Sequence[int] = BATCHES,
) -> GpuResults:  # fmt: skip
    """Measure the rows missing in `results` on every available path.

    Args:
        paths: to measure where available.
        results: of an earlier run, or empty.
        file: written atomically after every row.
        say: called with a line of text for every skipped path and every row.
        ceiling: measures the matmul at a precision, or returns `None`; called if an available path needs one.
        effort: duration of a row's measurement.
        measured: the shapes; by default all.
        batches: the batch sizes.

    Raises:
        InputError: the file cannot be written.
    """
    available = []
    for path in paths:
        ready = path.availability()
        if ready.ok:
            available.append(path)
            continue
        say(f"{path.name}: skipped, since {ready.reason}")
        skipped = Skipped(path=path.name, reason=ready.reason, remedy=ready.remedy)
        results = results.model_copy(update={"skipped": (*results.skipped, skipped)})
    write(file, results)
    for precision in dict.fromkeys(path.precision for path in available):
        if results.ceiling(precision) is None:
            if (found := ceiling(precision)) is None:
                say(f"matmul ceiling in {precision}: not measured, since torch has no GPU here")
                continue
            results = results.model_copy(update={"ceilings": (*results.ceilings, found)})
            say(f"matmul ceiling in {precision}: {found.tflops:.0f} TFLOP/s")
    for shape in shapes() if measured is None else measured:
        for path in available:
            for batch in batches:
                key = Key(path.name, shape, batch)
                if key not in results.done:
                    row = measure_row(path, key, results.ceiling(path.precision), effort)
                    results = results.with_row(row)
                    write(file, results)
                    say(f"{key}: {_outcome(row)}")
    return results


def measure_row(path: GpuPath, key: Key, ceiling: float | None, effort: Effort) -> Row:
    """Load, warm up and time one model, or return a row with the reason of the failure."""
    flops = key.batch * image_flops(vit_config(key.shape))
    row = Row(
        path=path.name, precision=path.precision, size=key.shape.size, variant=key.shape.variant, batch=key.batch, flops=flops
    )
    try:
        ready = path.prepare(key)
        try:
            return row.model_copy(update={"measured": _measure(ready, flops, ceiling, effort)})
        finally:
            ready.close()
    except Exception as error:  # whatever a runtime raises, such as for want of memory, the other rows can still be measured
        first = str(error).strip().partition("\n")[0]
        return row.model_copy(update={"failure": f"{type(error).__name__}: {first}"})


def _measure(ready: Ready, flops: int, ceiling: float | None, effort: Effort) -> Measurement:
    def call() -> None:
        ready.launch()
        ready.synchronise()

    settled = warm_up(call)
    host = time_calls(call, effort.seconds, effort.calls).samples_ms
    launches = max(1, math.ceil(effort.window_ms / float(np.median(host))))

    def window() -> None:
        for _ in range(launches):
            ready.launch()

    event = tuple(ready.elapsed_ms(window) / launches for _ in range(effort.windows))
    tflops = achieved_tflops(flops, event)
    return Measurement(
        host_ms=host, event_ms=event, launches=launches, settled=settled, tflops=tflops,
        ceiling_share=None if ceiling is None else tflops / ceiling, facts=ready.facts,
    )  # fmt: skip


def _outcome(row: Row) -> str:
    if row.measured is None:
        return f"failed: {row.failure}"
    host, event = (float(np.median(times)) for times in (row.measured.host_ms, row.measured.event_ms))
    share = row.measured.ceiling_share
    of = "" if share is None else f", {share:.0%} of the ceiling"
    return f"host {host:.3f} ms, events {event:.3f} ms, {row.measured.tflops:.1f} TFLOP/s{of}"


def exit_code(results: GpuResults) -> int:
    """Return 3 if no path was available, 1 if a row failed, else 0."""
    return 1 if results.failed else 0 if results.rows else 3
