"""The report: a study as one self-contained HTML page that needs no network."""

from __future__ import annotations

from studies.report.page import render_report

__all__ = ["render_report"]
