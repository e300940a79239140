"""Helpers of all Plotly figures. Colours of text and grid are left to the page, which follows the reader's theme."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from runtime.report.charts.axes import largest
from runtime.report.text import fold, significant

_ROW_PX, _LINE_PX, _NAME_CHARACTERS = 30, 15, 20


@dataclass(frozen=True)
class Plot:
    """A figure with a heading, as JSON that the page's script draws."""

    title: str
    data: dict[str, Any]

    @property
    def height(self) -> int:
        """Pixels to reserve, so that the page does not jump while it loads."""
        return int(self.data["layout"]["height"])


def plot_of(title: str, figure: go.Figure) -> Plot:
    """Return a figure as the template takes it."""
    return Plot(title, json.loads(figure.to_json()))


def bar_figure(rows: Sequence[tuple[str, float, str]], title: str) -> go.Figure:
    """Return horizontal bars (name, value, colour), first on top, each with its number beside it."""
    figure = empty_figure(height=rows_height([name for name, _, _ in rows]), x=title)
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
    name_rows(figure, [name for name, _, _ in rows][::-1])
    figure.update_xaxes(range=[0, 1.12 * largest(values)])
    return figure


def empty_figure(height: int, x: str, y: str = "") -> go.Figure:
    """Return a figure without data; `height` in pixels, `x` and `y` are the titles of the axes."""
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


def name_rows(figure: go.Figure, names: Sequence[str]) -> None:
    """Label the rows 0, 1, ... of a horizontal chart, from the bottom up; long names take several lines."""
    texts = ["<br>".join(escape(line) for line in fold(name, _NAME_CHARACTERS)) for name in names]
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=texts, range=[-0.6, len(names) - 0.1], showgrid=False, ticks=""
    )


def rows_height(names: Sequence[str]) -> int:
    """Return the height in pixels of a chart with rows of these names."""
    lines = max((len(fold(name, _NAME_CHARACTERS)) for name in names), default=1)
    return 70 + max(_ROW_PX, _LINE_PX * lines + 4) * max(len(names), 1)


def translucent(color: str, alpha: float) -> str:
    """Return a colour `#rrggbb` with an opacity in [0, 1]."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
