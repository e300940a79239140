"""Assemble the page of a study as plain values, which the template only lays out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from runtime.report.charts.plotting import Plot, plot_of
from runtime.report.facts import machine_facts
from runtime.report.html.templates import render
from runtime.report.study import figures
from runtime.report.study.summary import Summary, epoch_s, failed, images_per_s, latency_ms, summarise, warnings
from runtime.report.study.tables import accuracy_columns, cost_columns, epoch_columns
from runtime.results.study import StudyRow, StudySettings


def render_study(settings: StudySettings, rows: Sequence[StudyRow], title: str) -> str:
    """Return the whole HTML document. It needs no network."""
    summaries = summarise(rows)
    curves = [summary for summary in summaries if summary.curve()]
    colors = figures.palette(summaries)
    machines = list({str(row.machine): row.machine for row in rows}.values())
    return render(
        "study.html",
        title=title,
        facts_of_study=machine_facts(settings.model_dump(mode="json")),
        summaries=summaries,
        colors=colors,
        quality=accuracy_columns(summaries),
        price=cost_columns(summaries),
        curves=curves,
        epochs=epoch_columns(curves),
        accuracy=[plot_of("test accuracy", figures.accuracy_figure(curves, colors))] if curves else [],
        costs=list(_costs(summaries, colors)),
        failed=failed(rows),
        warnings=warnings(rows),
        machines=[machine_facts(machine) for machine in machines],
        commands=list(dict.fromkeys(row.command for row in rows)),
    )


def _costs(summaries: Sequence[Summary], colors: dict[str, str]) -> Iterator[Plot]:
    charts: list[tuple[str, str, Callable[[StudyRow], float | None]]] = [
        ("training time", "seconds per epoch", epoch_s),
        ("latency", "ms per call at the smallest batch", latency_ms),
        ("throughput", "images per second at the largest batch", images_per_s),
        ("memory of inference", "peak MiB above the imports", lambda row: row.inference_peak_mb),
        ("memory of training", "peak MiB above the imports", lambda row: row.training_peak_mb),
        ("size", "parameters", lambda row: row.parameters),
    ]
    for title, axis, figure in charts:
        chart = figures.bar_figure(summaries, colors, figure, axis)
        if chart is not None:
            yield plot_of(title, chart)
