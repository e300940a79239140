"""Which step lost how much top-1: one bar per bundle and runtime, divided by step."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

from runtime.report.charts.plotting import blank, name_rows, rows_height
from runtime.report.terminal.losses import Journey, steps_of

COLORS = {
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
            marker={"color": COLORS[step]},
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
