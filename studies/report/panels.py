"""The sections of the report that contain plots, the style of the plots, and the formats of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import plotly.graph_objects as go
import plotly.io

NOTHING = "–"


def value_text(value: float | None) -> str:
    """Format an accuracy or a value of the monitored metric with four decimals; a dash if it is None or not finite."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.4f}"


def duration_text(seconds: float) -> str:
    """Format a duration as ``h:mm:ss``, from 24 hours on with days: ``1 day, 0:05:00``."""
    return str(timedelta(seconds=round(seconds)))


BLUE, ORANGE, RED, GREEN, GREY, INK = "#2563eb", "#f59e0b", "#dc2626", "#16a34a", "#94a3b8", "#1e293b"
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans Khmer', 'Khmer OS', 'Khmer Sangam MN', sans-serif"
# Only the layout of Plotly's template, because every plot in the page would repeat the rest (styles per plot type).
_TEMPLATE = go.layout.Template(layout=plotly.io.templates["plotly_white"].layout)


@dataclass(frozen=True)
class Panel:
    """A section of the report that contains plots.

    Attributes:
        anchor: The section's identifier in links.
        title: The heading.
        caption: How to read the plots, and which trials they show.
        figures: The plots.
        is_grid: Whether the plots are small and shown in a grid.
        missing: The reason why the section has no plot; "" if it has one.
    """

    anchor: str
    title: str
    caption: str = ""
    figures: tuple[go.Figure, ...] = ()
    is_grid: bool = False
    missing: str = ""


def styled(figure: go.Figure, *, height: int, **layout: Any) -> go.Figure:
    """Style a plot for the report and return it.

    The plot is as wide as the page and has no title, because its panel has a heading.
    """
    figure.update_layout(
        template=_TEMPLATE,
        title=None,
        width=None,
        height=height,
        font={"family": FONTS, "size": 12, "color": INK},
        margin={"l": 64, "r": 24, "t": 36, "b": 52},
        hoverlabel={"align": "left"},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.01, "yanchor": "bottom"},
        separators=".,",
    )
    figure.update_xaxes(automargin=True, title_standoff=8, exponentformat="e")
    figure.update_yaxes(automargin=True, title_standoff=8, exponentformat="e")
    return figure.update_layout(**layout)


def bars(names: Sequence[str], values: Sequence[float], texts: Sequence[str], colors: Any, **layout: Any) -> go.Figure:
    """Return a plot of horizontal bars, the first bar at the top.

    Args:
        names: The names of the bars.
        values: The lengths of the bars.
        texts: The labels at the ends of the bars.
        colors: One color for all bars, or one color per bar.
        layout: Further arguments of `styled`.
    """
    bar = go.Bar(x=values, y=names, orientation="h", marker_color=colors, text=texts, textposition="outside")
    figure = styled(go.Figure(bar.update(cliponaxis=False, hoverinfo="skip")), **layout)
    return figure.update_yaxes(autorange="reversed", ticksuffix="  ")
