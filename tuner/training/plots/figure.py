"""Matplotlib figures, and the colours of all plots; matplotlib is not imported before the first figure."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#1e293b", "#64748b", "#e2e8f0"
BLUE, ORANGE, GREEN, RED = "#2563eb", "#d97706", "#16a34a", "#dc2626"

_DPI = 100
# Without a handler, Python prints matplotlib's warnings, for example about a read-only home folder.
logging.getLogger("matplotlib").addHandler(logging.NullHandler())


def new_figure(width_px: int, height_px: int) -> Figure:
    """Create an empty figure of this size in pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_px / _DPI, height_px / _DPI), dpi=_DPI)


def figure_png(figure: Figure) -> bytes:
    """Render a figure as PNG; equal figures give equal bytes."""
    return to_png(figure_image(figure))


def figure_image(figure: Figure) -> Image.Image:
    """Render a figure as an RGB image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return Image.fromarray(pixels).convert("RGB")


def to_png(image: Image.Image) -> bytes:
    """Encode an image as PNG with a palette of 256 colours, which makes the file of a plot a third of its RGB size."""
    buffer = io.BytesIO()
    image.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE).save(buffer, "PNG")
    return buffer.getvalue()
