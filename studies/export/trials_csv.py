"""Tables for spreadsheets: the trials of a study, and CSV text for any table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from search_spaces.experiments.schema import Targets
from search_spaces.training_config import TrainingConfig
from studies.status.reader import study_status
from studies.status.status import StatusRow, utc_text
from studies.storage.output_folder import OutputFolder
from studies.trials.record import TrialOutcome, TrialRecord, trials_and_records
from studies.trials.results import target_verdicts

# A spreadsheet reads a cell that starts with one of these characters as a formula.
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n")

_IDENTITY = ("number", "experiment_name", "kind", "state", "why_ended")
# Without the name, which is in the column of the same name in `_IDENTITY`.
_SETTINGS = tuple(item.name for item in fields(TrainingConfig) if item.name != "experiment_name")
_ERRORS = ("error_type", "error_message")
_RESULTS = tuple(item.name for item in fields(TrialOutcome) if item.name not in ("why_ended", *_ERRORS))
_TARGETS = tuple(f"target_{name}" for name in Targets.model_fields)
_WORK = ("attempts", "started", "ended", "worker")
TRIAL_COLUMNS = (*_IDENTITY, *_SETTINGS, "monitor", "monitored_value", *_RESULTS, *_TARGETS, *_WORK, *_ERRORS)


def trial_rows(study: optuna.Study, folder: OutputFolder) -> list[dict[str, Any]]:
    """Return one row per trial, in order of trial number; trials of all states have a row.

    Args:
        study: The study; it is not changed.
        folder: The study's output folder.

    Returns:
        The rows, keyed by the names in `TRIAL_COLUMNS`. Values that are unknown or do not apply are None or missing.
    """
    status = study_status(study, folder)
    trials = {trial.number: (trial, record) for trial, record in trials_and_records(study)}
    return [{"monitor": status.monitor} | _row(row, *trials[row.number], status.targets) for row in status.rows]


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Format a table as CSV (RFC 4180) with a header.

    Text that a spreadsheet would read as a formula gets a leading apostrophe. Unpaired surrogates are escaped. Lists
    and mappings are written as JSON.

    Args:
        columns: The names of the columns, in order.
        rows: The rows, keyed by column name; a missing value or None becomes an empty cell.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return text.getvalue()


def _row(row: StatusRow, trial: FrozenTrial, record: TrialRecord, targets: Targets) -> dict[str, Any]:
    # The record was read after the status: a trial may have finished in between, and is then shown as unfinished.
    outcome = record.outcome if row.why_ended is not None else None
    config = {name: value for name, value in record.config.items() if name in _SETTINGS}
    results = {} if outcome is None else asdict(outcome)
    verdicts = {} if outcome is None else target_verdicts(outcome, targets)
    return {
        "total_epochs": row.epochs,
        **config,
        **results,
        **{f"target_{name}": "met" if met else "missed" for name, met in verdicts.items()},
        "number": row.number,
        "experiment_name": row.name,
        "kind": record.kind.value,
        "state": row.state.value,
        "why_ended": row.why_ended,
        "monitored_value": row.best_value,
        "attempts": row.attempts,
        "started": utc_text(trial.datetime_start),
        "ended": None if outcome is None else utc_text(trial.datetime_complete),
        "worker": record.attempts[-1].worker if record.attempts else None,
    }


def _cell(value: Any) -> Any:
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        return value
    text = value.encode("utf-8", "backslashreplace").decode("utf-8")
    return f"'{text}" if text.startswith(_FORMULA_SIGNS) else text
