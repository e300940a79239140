"""Draw the Plotly figures of a study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import plotly.graph_objects as go

from runtime.report.charts import plotting
from runtime.report.charts.plotting import empty_figure, translucent
from runtime.report.charts.style import COLORS, DENSE_COLORS
from runtime.report.study.summary import Spread, Summary
from runtime.report.text import percent
from runtime.results.study import StudyRow


def palette(summaries: Sequence[Summary]) -> dict[str, str]:
    """Return a colour per method: grey for the baseline; the others repeat beyond the palette."""
    others = [summary.label for summary in summaries if not summary.is_dense]
    colors = {label: COLORS[index % len(COLORS)] for index, label in enumerate(others)}
    return {summary.label: colors.get(summary.label, DENSE_COLORS[0]) for summary in summaries}


def accuracy_figure(summaries: Sequence[Summary], colors: dict[str, str]) -> go.Figure:
    """Draw test accuracy after each epoch: the mean over seeds as a line, their range as a band."""
    figure = empty_figure(height=420, x="epoch", y="test top-1, %")
    for summary in summaries:
        curve, color = summary.curve(), colors[summary.label]
        epochs = [epoch for epoch, _ in curve]
        figure.add_scatter(
            x=[*epochs, *reversed(epochs)],
            y=[*(100 * spread.high for _, spread in curve), *(100 * spread.low for _, spread in reversed(curve))],
            fill="toself",
            mode="lines",
            line={"width": 0},
            fillcolor=translucent(color, 0.15),
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=epochs,
            y=[100 * spread.mean for _, spread in curve],
            mode="lines+markers",
            line={"color": color, "width": 2, "dash": "dot" if summary.is_dense else "solid"},
            marker={"size": 6},
            hovertext=[_detail(summary.label, epoch, spread) for epoch, spread in curve],
            hoverinfo="text",
        )
    figure.update_xaxes(dtick=max(1, max((len(summary.curve()) for summary in summaries), default=1) // 10))
    return figure


def bar_figure(
    summaries: Sequence[Summary], colors: dict[str, str], figure: Callable[[StudyRow], float | None], title: str
) -> go.Figure | None:
    """Draw the mean of a figure for each method that has it; None where none has."""
    means = [(summary.label, summary.spread(figure)) for summary in summaries]
    rows = [(label, spread.mean, colors[label]) for label, spread in means if spread is not None]
    return plotting.bar_figure(rows, title) if rows else None


def _detail(label: str, epoch: int, spread: Spread) -> str:
    text = f"{percent(spread.mean)} %"
    if spread.count > 1:
        text += f" [{percent(spread.low)}, {percent(spread.high)}] over {spread.count} seeds"
    return f"<b>{escape(label)}</b><br>epoch {epoch}: {text}"
