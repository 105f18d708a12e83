"""A bar that shows how far something is, also without colours."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style

_HEAVY, _LIGHT = "\N{BOX DRAWINGS HEAVY HORIZONTAL}", "\N{BOX DRAWINGS LIGHT HORIZONTAL}"
_FEWEST_CELLS = 4


@dataclass(frozen=True)
class Bar:
    """A heavy line for what is done and a light one for the rest, as wide as there is room.

    Attributes:
        done: So much is done; more than `total` counts as `total`.
        total: So much is to do; 0 counts as nothing done.
    """

    done: float
    total: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it; it is full only when all is done."""
        width = options.max_width
        filled = int(width * min(1.0, self.done / self.total)) if self.total > 0 else 0
        heavy, light = ("#", "-") if options.ascii_only else (_HEAVY, _LIGHT)
        yield Segment(heavy * filled, Style(color="green" if filled == width else "cyan"))
        yield Segment(light * (width - filled), Style(color="bright_black"))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return that it takes all there is."""
        return Measurement(_FEWEST_CELLS, options.max_width)
