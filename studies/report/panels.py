"""A section of the report: a title, a caption, and plots or the reason why there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import plotly.io

BLUE, ORANGE, RED, GREEN, GREY, INK = "#2563eb", "#f59e0b", "#dc2626", "#16a34a", "#94a3b8", "#1e293b"
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans Khmer', 'Khmer OS', 'Khmer Sangam MN', sans-serif"
# The layout of Plotly's template alone: the rest, for every kind of plot there is, would be in the page with each plot.
_TEMPLATE = go.layout.Template(layout=plotly.io.templates["plotly_white"].layout)


@dataclass(frozen=True)
class Panel:
    """A section of the report.

    Attributes:
        anchor: Its name in links.
        title: Its heading.
        caption: How to read its plots, and which trials they show.
        figures: Its plots.
        side_by_side: Whether the plots are small and share lines.
        missing: Why there is no plot; "" if there is one.
    """

    anchor: str
    title: str
    caption: str = ""
    figures: tuple[go.Figure, ...] = ()
    side_by_side: bool = False
    missing: str = ""


def styled(figure: go.Figure, *, height: int, **layout: Any) -> go.Figure:
    """Give a plot the look of the report: the heading is the panel's, and the width that of the page."""
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
    """Return horizontal bars, the first on top.

    Args:
        names: Their names.
        values: Their lengths.
        texts: What stands at their ends.
        colors: One color, or one for each.
        layout: Further layout of the plot.
    """
    bar = go.Bar(x=values, y=names, orientation="h", marker_color=colors, text=texts, textposition="outside")
    figure = styled(go.Figure(bar.update(cliponaxis=False, hoverinfo="skip")), **layout)
    return figure.update_yaxes(autorange="reversed", ticksuffix="  ")
