"""The HTML page of the report, which loads nothing and runs only its own scripts."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import optuna
import plotly.graph_objects as go
import plotly.io
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from studies.report.plots import (
    history,
    importances,
    latency,
    parallel_coordinates,
    reasons,
    reported_curves,
    slices,
    timeline,
)
from studies.report.snapshot import ReadEpochs, take_snapshot
from studies.report.summary import environment, find_winner, space_rows, state_text, summary
from studies.report.tables import MAX_FAILURES, failure_rows, find_confirmation, target_rows, trial_table
from studies.storage.output_folder import OutputFolder

_TEMPLATE = Path(__file__).parent / "template"
_PANELS = (history, latency, reported_curves, parallel_coordinates, importances, slices, timeline, reasons)


def render_report(study: optuna.Study, folder: OutputFolder, read_epochs: ReadEpochs, *, output_dir: str) -> str:
    """Render the current state of a study as a self-contained HTML page; the study may be running.

    Args:
        study: The study; it is not changed.
        folder: The study's output folder.
        read_epochs: Given a trial's name, returns the metrics of each finished epoch, keyed by metric name.
        output_dir: The output folder as written in the commands of the report.
    """
    snapshot = take_snapshot(study, folder, read_epochs)
    scripts = [Markup(get_plotlyjs()), Markup((_TEMPLATE / "page.js").read_text(encoding="utf-8"))]
    failures, (columns, rows) = failure_rows(snapshot), trial_table(snapshot)
    template = _environment().get_template("page.html")
    return template.render(
        snapshot=snapshot,
        policy=_policy(scripts),
        style=Markup((_TEMPLATE / "page.css").read_text(encoding="utf-8")),
        scripts=scripts,
        state=state_text(snapshot),
        summary=list(summary(snapshot)),
        winner=find_winner(snapshot, output_dir),
        targets=list(target_rows(snapshot)),
        confirmation=find_confirmation(snapshot),
        panels=[panel(snapshot) for panel in _PANELS],
        failures=failures[:MAX_FAILURES],
        failed_count=len(failures),
        trial_columns=columns,
        trial_rows=rows,
        environment=list(environment(snapshot)),
        space=space_rows(snapshot),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure_json
    environment.filters["breakable"] = _breakable
    return environment


def _figure_json(figure: go.Figure) -> Markup:
    """Return a plot as JSON without HTML characters, so that no text in it can close the ``<script>`` element."""
    text = plotly.io.to_json(figure, validate=False, engine="json")
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _breakable(text: str) -> Markup:
    """Allow line breaks after the underscores of a text, because names have no spaces."""
    return Markup("_<wbr>").join(text.split("_"))


def _policy(scripts: list[Markup]) -> str:
    """Return the page's Content Security Policy, which allows only these scripts and no network access."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii") for script in scripts)
    sources = " ".join(f"'sha256-{digest}'" for digest in digests)
    rules = (
        "default-src 'none'",
        f"script-src {sources}",
        # Plotly positions elements with style attributes and saves images through blob URLs.
        "style-src 'unsafe-inline'",
        "img-src data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return "; ".join(rules)
