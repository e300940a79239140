"""Plotly figures of the cells of one run. Colours of text and grid are left to the page, which follows the reader's theme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go

from runtime.report.charts.axes import largest
from runtime.report.charts.plotting import bar_figure, empty_figure, name_rows, rows_height, translucent
from runtime.report.charts.scatter import Point, Scatter
from runtime.report.charts.style import Style
from runtime.report.grouping import Panel, display_baseline
from runtime.report.loss_attribution import LossAttribution, attributed_steps
from runtime.report.tables import bound_text, ratio_text, top1_text, unsteady_text, verdict_text
from runtime.report.text import MISSING, percent, significant
from runtime.results.schema import Cell
from vitnla.common.measures import LayerRow

SAMPLES_KEPT = 400
# Translucent, so that the low end fades into the page in either theme and text stays legible on the high end.
_RANK_SCALE = ((0.0, "rgba(59,125,216,0.05)"), (1.0, "rgba(59,125,216,0.70)"))
_ERROR_SCALE = ((0.0, "rgba(217,130,43,0.05)"), (1.0, "rgba(217,130,43,0.80)"))


def throughput_figure(chart: Scatter) -> go.Figure:
    """Draw throughput (x) against top-1 with its interval (y): a point per cell, a line per series, and the Pareto frontier."""
    figure = empty_figure(height=380, x="images per second", y="top-1, %")
    lines = [(series.positions, {"color": translucent(series.color, 0.45), "width": 1.5}) for series in chart.series_lines]
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
            name=escape(point.cell.display_key),
            hovertext=_details(point.cell, [other.cell for other in chart.points]),
            hoverinfo="text",
        )
    figure.update_xaxes(range=chart.x_range, tickformat=",")
    figure.update_yaxes(range=chart.y_range)
    return figure


def latency_figure(panel: Panel, style: Style) -> go.Figure:
    """Draw the distribution of the raw latencies of every cell, fastest on top, with ticks at p50 and p90.

    At most `SAMPLES_KEPT` order statistics are drawn per cell. The axis ends at the largest p98; slower calls are in the results file.
    """
    cells = sorted(
        (cell for cell in panel.cells if cell.samples_ms), key=lambda cell: float(np.median(cell.samples_ms)), reverse=True
    )
    figure = empty_figure(height=rows_height([style.row(cell) for cell in cells]), x="latency of one call, ms")
    for row, cell in enumerate(cells):
        samples = np.asarray(cell.samples_ms)
        p50, p90 = np.percentile(samples, (50, 90))
        color = style.color(cell)
        figure.add_violin(
            x=subsample(samples, SAMPLES_KEPT),
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
                f"<b>{escape(cell.display_key)}</b><br>{name} {significant(value)} ms of {len(samples):,} calls"
                for name, value in (("p50", p50), ("p90", p90))
            ],
            hoverinfo="text",
        )
    name_rows(figure, [style.row(cell) for cell in cells])
    figure.update_xaxes(range=[0, 1.05 * largest(float(np.percentile(cell.samples_ms, 98)) for cell in cells)])
    return figure


def subsample(samples: np.ndarray, limit: int) -> np.ndarray:
    """Return at most `limit` order statistics, evenly spaced from the smallest to the largest."""
    ordered = np.sort(samples)
    if len(ordered) <= limit:
        return ordered
    picked: np.ndarray = ordered[np.linspace(0, len(ordered) - 1, limit).round().astype(int)]
    return picked


def memory_figure(panel: Panel, style: Style) -> go.Figure:
    """Draw the peak resident memory of each cell, MiB."""
    cells = [cell for cell in panel.cells if cell.peak_rss_mb is not None]
    return bar_figure(
        [(style.row(cell), cell.peak_rss_mb or 0.0, style.color(cell)) for cell in cells],
        "MiB above the imports",
    )


def size_figure(cells: Sequence[Cell], style: Style) -> go.Figure:
    """Draw the size of each bundle's ONNX model on disk, MiB."""
    sizes = {cell.display_name: cell for cell in cells if cell.model_mb is not None}
    return bar_figure([(name, cell.model_mb or 0.0, style.color(cell)) for name, cell in sizes.items()], "MiB on disk")


def rank_figure(layers: Sequence[LayerRow]) -> go.Figure:
    """Draw the size kept per block and linear: a number is the rank, two are (out, in) features, dense linears are blank."""
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
    """Return the rank, or the (out, in) features of a linear that became narrower."""
    if row.kept is None:
        return "dense"
    return str(row.rank) if row.rank is not None else _features(row.shape)


def _full_size(row: LayerRow) -> str:
    return str(row.full_rank) if row.rank is not None else _features(row.dense_shape)


def _features(shape: tuple[int, int] | None) -> str:
    return " × ".join(map(str, shape or ()))


def error_figure(layers: Sequence[LayerRow], top: float) -> go.Figure:
    """Draw the relative output error per block and linear; `top` is the error at the dark end, shared by the bundles of a run."""
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
    by_position = {(row.linear, row.block): row for row in layers}
    grid = [[by_position.get((linear, block)) for block in blocks] for linear in linears]
    figure = empty_figure(height=58 + 34 * len(linears), x="block")
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
    """Return Plotly's error bar of the top-1 interval, in points."""
    if point.low is None or point.high is None:
        return None
    return {"array": [point.high - point.y], "arrayminus": [point.y - point.low], "thickness": 1, "width": 0}


def _details(cell: Cell, cells: Sequence[Cell]) -> str:
    lines = [f"<b>{escape(cell.display_key)}</b>", f"{significant(cell.images_per_s)} images/s"]
    if cell.server:
        lines.append(f"{significant(cell.server.rate)} queries/s arrive; p99 bound, ms: {bound_text(cell)}")
    if cell.ratio:
        lines.append(f"{ratio_text(cell)} of {escape(display_baseline(cell.ratio, cells))}: {verdict_text(cell)}")
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
"""Smallest change in points that a table shows."""
_ROOM = 0.35
"""Share of the axis for the numbers beside the bars."""


def has_visible_losses(attributions: Sequence[LossAttribution]) -> bool:
    """Return True if any step changed top-1 by an amount that a table shows."""
    return any(abs(change) >= _VISIBLE for attribution in attributions for change in attribution.steps.values())


def losses_figure(attributions: Sequence[LossAttribution]) -> go.Figure:
    """Draw the changes of top-1 in points, losses to the left: stacked by step, with their sum beside each bar."""
    rows = attributions[::-1]
    several = len({row.runtime for row in rows}) > 1
    names = [f"{row.bundle} · {row.runtime}" if several else row.bundle for row in rows]
    figure = empty_figure(height=rows_height(names), x="change of top-1, points")
    positions = list(range(len(rows)))
    for step in attributed_steps(rows):
        changes = [row.steps.get(step, 0.0) for row in rows]
        figure.add_bar(
            x=changes,
            y=positions,
            orientation="h",
            width=0.55,
            marker={"color": LOSS_COLORS[step]},
            hovertext=[
                f"<b>{escape(name)}</b><br>{step} {change:+.2f} points" for name, change in zip(names, changes, strict=True)
            ],
            hoverinfo="text",
        )
    low = min(sum(change for change in row.steps.values() if change < 0) for row in rows)
    ends = [sum(change for change in row.steps.values() if change > 0) for row in rows]
    span = max(ends) - low
    figure.add_scatter(
        x=ends, y=positions, mode="text", text=[f" {0.0 + round(row.total, 2):+.2f}" for row in rows], textposition="middle right",
        textfont={"size": 12}, cliponaxis=False, hoverinfo="skip",
    )  # fmt: skip
    name_rows(figure, names)
    figure.update_xaxes(range=[low - 0.03 * span, max(ends) + _ROOM * span], zeroline=True, zerolinewidth=1)
    figure.update_layout(barmode="relative")
    return figure
