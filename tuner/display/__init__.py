"""Progress of a run on a terminal or in a log, and its events between processes."""

from __future__ import annotations

from tuner.display.base import Display, RunSummary

__all__ = ["Display", "RunSummary"]
