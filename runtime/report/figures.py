"""Plotly figures of the cells of one run. Colours of text and grid are left to the page, which follows the reader's theme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go

from runtime.report.axes import accuracy_axis, largest
from runtime.report.findings import frontier, plottable
from runtime.report.numbers import significant
from runtime.report.style import Panel, Style
from runtime.report.tables import ratio_text, top1_text, verdict_text
from runtime.results import Cell
from vitnla.common.measures import LayerRow

ROW_PX, SAMPLES_KEPT = 30, 400
# Translucent, so that the low end fades into the page in either theme and text stays legible on the high end.
_RANK_SCALE = ((0.0, "rgba(59,125,216,0.05)"), (1.0, "rgba(59,125,216,0.70)"))
_ERROR_SCALE = ((0.0, "rgba(217,130,43,0.05)"), (1.0, "rgba(217,130,43,0.80)"))


def throughput_figure(panel: Panel, style: Style) -> go.Figure:
    """Throughput (x) against top-1 with its interval (y), one point per cell, and the Pareto frontier."""
    cells = plottable(panel.cells)
    axis = accuracy_axis(cells)
    front = [cell for cell in frontier(cells) if cell not in axis.below]
    figure = _figure(height=380, x="images per second", y="top-1, %")
    if len(front) > 1:
        figure.add_scatter(
            x=[cell.images_per_s for cell in front],
            y=[_percent(cell.top1) for cell in front],
            mode="lines",
            line={"shape": "vh", "width": 1.5, "color": "#8b949e", "dash": "dot"},
            hoverinfo="skip",
            name="Pareto frontier",
        )
    for cell in cells:
        below = cell in axis.below
        figure.add_scatter(
            x=[cell.images_per_s],
            y=[axis.low + 0.05 * (axis.high - axis.low) if below else _percent(cell.top1)],
            error_y=None if below else _interval(cell),
            mode="markers",
            marker={
                "symbol": style.marker(cell).plotly + ("-open" if below else ""),
                "size": 12,
                "color": style.color(cell),
                "line": {"width": 2, "color": style.color(cell)} if below else {"width": 0},
            },
            name=escape(cell.key),
            hovertext=_details(cell),
            hoverinfo="text",
        )
    figure.update_xaxes(range=[0, 1.08 * largest(cell.images_per_s for cell in cells)])
    figure.update_yaxes(range=[axis.low, axis.high])
    return figure


def latency_figure(panel: Panel, style: Style) -> go.Figure:
    """Distribution of the raw latencies of every cell, fastest on top, with ticks at p50 and p90.

    At most `SAMPLES_KEPT` order statistics are drawn per cell. The axis ends at the largest p98: what lies beyond is in the results file.
    """
    cells = sorted(
        (cell for cell in panel.cells if cell.samples_ms), key=lambda cell: float(np.median(cell.samples_ms)), reverse=True
    )
    figure = _figure(height=_rows_height(len(cells)), x="latency of one call, ms")
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
            fillcolor=_translucent(color, 0.35),
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
    _name_rows(figure, [_row_name(cell, style) for cell in cells])
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
    return _bars(
        [(_row_name(cell, style), cell.peak_rss_mb or 0.0, style.color(cell)) for cell in cells],
        "peak memory above the imports, MiB",
    )


def size_figure(cells: Sequence[Cell], style: Style) -> go.Figure:
    """Size of each bundle's ONNX model on disk, MiB."""
    sizes = {cell.bundle: cell for cell in cells if cell.model_mb is not None}
    return _bars(
        [(escape(name), cell.model_mb or 0.0, style.color(cell)) for name, cell in sizes.items()], "ONNX model on disk, MiB"
    )


def rank_figure(layers: Sequence[LayerRow]) -> go.Figure:
    """Map of rank over full rank per block and linear; the number is the rank, and dense linears are left open."""
    return _layer_map(
        layers,
        shade=lambda row: None if row.rank is None else row.rank / row.full_rank,
        text=lambda row: "dense" if row.rank is None else str(row.rank),
        detail=lambda row: (
            "dense"
            if row.rank is None
            else f"rank {row.rank} of {row.full_rank}, {100 * row.retained_energy:.2f} % of the energy"
        ),
        scale=_RANK_SCALE,
        top=1.0,
    )


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
    figure = _figure(height=58 + 34 * len(linears), x="block")
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


def _bars(rows: Sequence[tuple[str, float, str]], title: str) -> go.Figure:
    """Horizontal bars (label, value, colour), first on top, each with its number beside it."""
    figure = _figure(height=_rows_height(len(rows)), x=title)
    values = [value for _, value, _ in rows][::-1]
    figure.add_bar(
        x=values,
        y=list(range(len(rows))),
        orientation="h",
        width=0.55,
        marker={"color": [color for _, _, color in rows][::-1]},
        text=[significant(value) for value in values],
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
    )
    _name_rows(figure, [name for name, _, _ in rows][::-1])
    figure.update_xaxes(range=[0, 1.12 * largest(values)])
    return figure


def _figure(height: int, x: str, y: str = "") -> go.Figure:
    axis = {"showline": False, "zeroline": False, "automargin": True, "fixedrange": False, "title": {"standoff": 10}}
    return go.Figure(
        layout={
            "template": "none",
            "height": height,
            "margin": {"l": 8, "r": 12, "t": 8, "b": 8, "pad": 4},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, sans-serif", "size": 12},
            "showlegend": False,
            "hovermode": "closest",
            "hoverlabel": {
                "bgcolor": "#24292f",
                "bordercolor": "#24292f",
                "font": {"color": "#ffffff", "size": 12},
                "align": "left",
            },
            "xaxis": {**axis, "title": {"text": x, "standoff": 10}},
            "yaxis": {**axis, "title": {"text": y, "standoff": 10}},
        }
    )


def _name_rows(figure: go.Figure, names: Sequence[str]) -> None:
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=list(names), range=[-0.6, len(names) - 0.1], showgrid=False, ticks=""
    )


def _rows_height(rows: int) -> int:
    return 70 + ROW_PX * max(rows, 1)


def _row_name(cell: Cell, style: Style) -> str:
    return escape(f"{cell.bundle} · {style.runtime(cell)}")


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _interval(cell: Cell) -> dict[str, object] | None:
    """Plotly's error bar of the top-1 interval, in points."""
    if cell.top1 is None or cell.top1_low is None or cell.top1_high is None:
        return None
    upper, lower = 100 * (cell.top1_high - cell.top1), 100 * (cell.top1 - cell.top1_low)
    return {"array": [upper], "arrayminus": [lower], "thickness": 1, "width": 0}


def _details(cell: Cell) -> str:
    lines = [f"<b>{escape(cell.key)}</b>", f"{significant(cell.images_per_s)} images/s", f"top-1 {top1_text(cell)} %"]
    if cell.ratio:
        lines.append(f"{ratio_text(cell)} of {escape(cell.ratio.baseline)}: {verdict_text(cell)}")
    if cell.latency_ms:
        lines.append(f"p50 {significant(cell.latency_ms.p50)} ms")
    if cell.macs:
        lines.append(f"{cell.macs.ratio:.2f}× of the linears’ MACs")
    return "<br>".join(lines)


def _translucent(color: str, alpha: float) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
