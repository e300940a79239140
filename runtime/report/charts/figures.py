"""Plotly figures of the cells of one run. Colours of text and grid are left to the page, which follows the reader's theme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go

from runtime.report.charts.axes import largest
from runtime.report.charts.plotting import bars, blank, name_rows, rows_height, translucent
from runtime.report.charts.scatter import Point, Scatter
from runtime.report.charts.style import Style
from runtime.report.grouping import Panel
from runtime.report.loss_attribution import Journey, steps_of
from runtime.report.tables import bound_text, ratio_text, top1_text, unsteady_text, verdict_text
from runtime.report.text import MISSING, percent, significant
from runtime.results.schema import Cell
from vitnla.common.measures import LayerRow

SAMPLES_KEPT = 400
# Translucent, so that the low end fades into the page in either theme and text stays legible on the high end.
_RANK_SCALE = ((0.0, "rgba(59,125,216,0.05)"), (1.0, "rgba(59,125,216,0.70)"))
_ERROR_SCALE = ((0.0, "rgba(217,130,43,0.05)"), (1.0, "rgba(217,130,43,0.80)"))


def throughput_figure(chart: Scatter) -> go.Figure:
    """Throughput (x) against top-1 with its interval (y): a point per cell, a line per series, and the Pareto frontier."""
    figure = blank(height=380, x="images per second", y="top-1, %")
    lines = [(trail.positions, {"color": translucent(trail.color, 0.45), "width": 1.5}) for trail in chart.trails]
    lines.append((chart.frontier, {"color": "#8b949e", "width": 1.5, "dash": "dot"}))
    for positions, line in lines:
        figure.add_scatter(x=[x for x, _ in positions], y=[y for _, y in positions], mode="lines", line=line, hoverinfo="skip")
    for point in chart.points:
        figure.add_scatter(
            x=[point.x],
            y=[point.y],
            error_y=_interval(point),
            mode="markers+text" if point.side else "markers",
            text=[escape(point.label)],
            textposition=point.side.plotly if point.side else None,
            textfont={"size": 11},
            cliponaxis=False,
            marker={
                "symbol": point.marker.plotly + ("-open" if point.below else ""),
                "size": 11,
                "color": point.color,
                "line": {"width": 2, "color": point.color} if point.below else {"width": 0},
            },
            name=escape(point.cell.key),
            hovertext=_details(point.cell),
            hoverinfo="text",
        )
    figure.update_xaxes(range=chart.x_range, tickformat=",")
    figure.update_yaxes(range=chart.y_range)
    return figure


def latency_figure(panel: Panel, style: Style) -> go.Figure:
    """Distribution of the raw latencies of every cell, fastest on top, with ticks at p50 and p90.

    At most `SAMPLES_KEPT` order statistics are drawn per cell. The axis ends at the largest p98: what lies beyond is in the results file.
    """
    cells = sorted(
        (cell for cell in panel.cells if cell.samples_ms), key=lambda cell: float(np.median(cell.samples_ms)), reverse=True
    )
    figure = blank(height=rows_height([style.row(cell) for cell in cells]), x="latency of one call, ms")
    for row, cell in enumerate(cells):
        samples = np.asarray(cell.samples_ms)
        p50, p90 = np.percentile(samples, (50, 90))
        color = style.color(cell)
        figure.add_violin(
            x=thin(samples, SAMPLES_KEPT),
            y0=row,
            orientation="h",
            side="positive",
            width=1.5,
            points=False,
            spanmode="hard",
            scalemode="width",
            line={"color": color, "width": 1.2},
            fillcolor=translucent(color, 0.35),
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=[p50, p90],
            y=[row, row],
            mode="markers",
            marker={"symbol": ["line-ns-open", "circle-open"], "size": [12, 6], "color": color, "line": {"width": 2}},
            hovertext=[
                f"<b>{escape(cell.key)}</b><br>{name} {significant(value)} ms of {len(samples):,} calls"
                for name, value in (("p50", p50), ("p90", p90))
            ],
            hoverinfo="text",
        )
    name_rows(figure, [style.row(cell) for cell in cells])
    figure.update_xaxes(range=[0, 1.05 * largest(float(np.percentile(cell.samples_ms, 98)) for cell in cells)])
    return figure


def thin(samples: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` order statistics, evenly spaced from the smallest to the largest: the same distribution in less space."""
    ordered = np.sort(samples)
    if len(ordered) <= limit:
        return ordered
    picked: np.ndarray = ordered[np.linspace(0, len(ordered) - 1, limit).round().astype(int)]
    return picked


def memory_figure(panel: Panel, style: Style) -> go.Figure:
    """Peak resident memory of each cell, MiB."""
    cells = [cell for cell in panel.cells if cell.peak_rss_mb is not None]
    return bars(
        [(style.row(cell), cell.peak_rss_mb or 0.0, style.color(cell)) for cell in cells],
        "MiB above the imports",
    )


def size_figure(cells: Sequence[Cell], style: Style) -> go.Figure:
    """Size of each bundle's ONNX model on disk, MiB."""
    sizes = {cell.bundle: cell for cell in cells if cell.model_mb is not None}
    return bars([(name, cell.model_mb or 0.0, style.color(cell)) for name, cell in sizes.items()], "MiB on disk")


def rank_figure(layers: Sequence[LayerRow]) -> go.Figure:
    """Map of what was kept per block and linear: a number is the rank, two are (out, in) features, dense linears are left open."""
    return _layer_map(
        layers,
        shade=lambda row: row.kept,
        text=_size,
        detail=lambda row: (
            "dense" if row.kept is None else f"{_size(row)} of {_full_size(row)}, {100 * row.retained_energy:.2f} % of the energy"
        ),
        scale=_RANK_SCALE,
        top=1.0,
    )


def _size(row: LayerRow) -> str:
    """A rank, or (out, in) features of a linear that became narrower."""
    if row.kept is None:
        return "dense"
    return str(row.rank) if row.rank is not None else _features(row.shape)


def _full_size(row: LayerRow) -> str:
    return str(row.full_rank) if row.rank is not None else _features(row.dense_shape)


def _features(shape: tuple[int, int] | None) -> str:
    return " × ".join(map(str, shape or ()))


def error_figure(layers: Sequence[LayerRow], top: float) -> go.Figure:
    """Map of the relative output error per block and linear; `top` is the error at the dark end, shared by the bundles of a run."""
    return _layer_map(
        layers,
        shade=lambda row: row.relative_error,
        text=lambda row: "0" if row.relative_error == 0 else f"{row.relative_error:.2f}".lstrip("0"),
        detail=lambda row: f"relative error {row.relative_error:.4f}",
        scale=_ERROR_SCALE,
        top=top,
    )


def _layer_map(
    layers: Sequence[LayerRow],
    *,
    shade: Callable[[LayerRow], float | None],
    text: Callable[[LayerRow], str],
    detail: Callable[[LayerRow], str],
    scale: tuple[tuple[float, str], ...],
    top: float,
) -> go.Figure:
    linears = list(dict.fromkeys(row.linear for row in layers))
    blocks = sorted({row.block for row in layers})
    by_place = {(row.linear, row.block): row for row in layers}
    grid = [[by_place.get((linear, block)) for block in blocks] for linear in linears]
    figure = blank(height=58 + 34 * len(linears), x="block")
    figure.add_heatmap(
        x=blocks,
        y=[escape(linear) for linear in linears],
        z=[[row and shade(row) for row in line] for line in grid],
        text=[[text(row) if row else "" for row in line] for line in grid],
        texttemplate="%{text}",
        hovertext=[
            [f"<b>block {row.block}, {escape(row.linear)}</b><br>{detail(row)}" if row else "" for row in line] for line in grid
        ],
        hoverinfo="text",
        colorscale=scale,
        zmin=0,
        zmax=top,
        xgap=2,
        ygap=2,
        showscale=False,
    )
    figure.update_xaxes(dtick=1, showgrid=False, ticks="")
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    return figure


def _interval(point: Point) -> dict[str, object] | None:
    """Plotly's error bar of the top-1 interval, in points."""
    if point.low is None or point.high is None:
        return None
    return {"array": [point.high - point.y], "arrayminus": [point.y - point.low], "thickness": 1, "width": 0}


def _details(cell: Cell) -> str:
    lines = [f"<b>{escape(cell.key)}</b>", f"{significant(cell.images_per_s)} images/s"]
    if cell.server:
        lines.append(f"{significant(cell.server.rate)} queries/s arrive; p99 bound, ms: {bound_text(cell)}")
    if cell.ratio:
        lines.append(f"{ratio_text(cell)} of {escape(cell.ratio.baseline)}: {verdict_text(cell)}")
    lines.append(f"top-1 {top1_text(cell)} %")
    if cell.agreement is not None:
        lines.append(f"{percent(cell.agreement)} % as the dense model answers")
    if cell.latency_ms:
        known = {"p50": cell.latency_ms.p50, "p90": cell.latency_ms.p90, "p99": cell.latency_ms.p99}
        lines.append(", ".join(f"{name} {significant(value)} ms" for name, value in known.items() if value is not None))
    sizes = {"peak": cell.peak_rss_mb, "GPU": cell.device_mb, "model": cell.model_mb}
    if any(sizes.values()):
        lines.append(", ".join(f"{name} {significant(value)} MiB" for name, value in sizes.items() if value is not None))
    if cell.macs:
        lines.append(f"{cell.macs.ratio:.2f}× of the linears’ MACs")
    if (unsteady := unsteady_text(cell)) != MISSING:
        lines.append(f"unsteady: {unsteady}")
    return "<br>".join(lines)


LOSS_COLORS = {
    "preprocessing": "#2a9d74", "decomposition": "#3b7dd8", "precision": "#d9822b", "export": "#5671b8", "runtime": "#b5589a",
}  # fmt: skip
_VISIBLE = 0.005
"""Points; smaller changes are 0.00 in every table."""
_ROOM = 0.35
"""Share of the axis that is left for the numbers beside the bars."""


def worth_drawing(journeys: Sequence[Journey]) -> bool:
    """Whether any step changed anything that a table would show."""
    return any(abs(change) >= _VISIBLE for one in journeys for change in one.steps.values())


def losses_figure(journeys: Sequence[Journey]) -> go.Figure:
    """Changes of top-1 in points, losses to the left: stacked by step, with their sum beside each bar."""
    rows = journeys[::-1]
    several = len({one.runtime for one in rows}) > 1
    names = [f"{one.bundle} · {one.runtime}" if several else one.bundle for one in rows]
    figure = blank(height=rows_height(names), x="change of top-1, points")
    places = list(range(len(rows)))
    for step in steps_of(rows):
        changes = [one.steps.get(step, 0.0) for one in rows]
        figure.add_bar(
            x=changes,
            y=places,
            orientation="h",
            width=0.55,
            marker={"color": LOSS_COLORS[step]},
            hovertext=[
                f"<b>{escape(name)}</b><br>{step} {change:+.2f} points" for name, change in zip(names, changes, strict=True)
            ],
            hoverinfo="text",
        )
    low = min(sum(change for change in one.steps.values() if change < 0) for one in rows)
    ends = [sum(change for change in one.steps.values() if change > 0) for one in rows]
    span = max(ends) - low
    figure.add_scatter(
        x=ends, y=places, mode="text", text=[f" {0.0 + round(one.total, 2):+.2f}" for one in rows], textposition="middle right",
        textfont={"size": 12}, cliponaxis=False, hoverinfo="skip",
    )  # fmt: skip
    name_rows(figure, names)
    figure.update_xaxes(range=[low - 0.03 * span, max(ends) + _ROOM * span], zeroline=True, zerolinewidth=1)
    figure.update_layout(barmode="relative")
    return figure
