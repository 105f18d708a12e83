"""The study in a browser: optuna-dashboard, made read-only and served on one address."""

from __future__ import annotations

from studies.dashboard.guard import ReadOnlyGuard
from studies.dashboard.server import Address, DashboardServer
from studies.dashboard.view import dashboard_app, page_path

__all__ = ["Address", "DashboardServer", "ReadOnlyGuard", "dashboard_app", "page_path"]
