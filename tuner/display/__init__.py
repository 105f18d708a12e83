"""Progress displays for terminals and logs, and the events that worker processes send to their parent."""

from __future__ import annotations

from tuner.display.base import Display, RunSummary

__all__ = ["Display", "RunSummary"]
