"""What people see of a run: events, and who shows them as lines, as a picture or to another process."""

from __future__ import annotations

from tuner.display.base import Display, RunSummary

__all__ = ["Display", "RunSummary"]
