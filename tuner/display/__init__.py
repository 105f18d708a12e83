"""Progress of a run on a terminal or in a log, and the events that worker processes send to their parent."""

from __future__ import annotations

from tuner.display.base import Display, RunSummary

__all__ = ["Display", "RunSummary"]
