"""The report: a study as one HTML page that opens anywhere, without a network."""

from __future__ import annotations

from studies.report.page import render_report

__all__ = ["render_report"]
