"""Tables for spreadsheets: all trials of a study, and any table as CSV."""

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
from studies.trials.record import TrialOutcome, TrialRecord
from studies.trials.records import trials_and_records
from studies.trials.targets import target_verdicts

# A spreadsheet reads a cell that starts with one of these as a formula.
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n")

_WHAT = ("number", "experiment_name", "kind", "state", "why_ended")
# Without the name, which is a column of its own.
_SETTINGS = tuple(item.name for item in fields(TrainingConfig) if item.name != "experiment_name")
_ERRORS = ("error_type", "error_message")
_FIGURES = tuple(item.name for item in fields(TrialOutcome) if item.name not in ("why_ended", *_ERRORS))
_TARGETS = tuple(f"target_{name}" for name in Targets.model_fields)
_WORK = ("attempts", "started", "ended", "worker")
TRIAL_COLUMNS = (*_WHAT, *_SETTINGS, "monitor", "monitored_value", *_FIGURES, *_TARGETS, *_WORK, *_ERRORS)


def trial_rows(study: optuna.Study, folder: OutputFolder) -> list[dict[str, Any]]:
    """Return a row for every trial, whatever its state, by number.

    Args:
        study: The study; it is only read.
        folder: Its folder.

    Returns:
        Values by column of `TRIAL_COLUMNS`; values that are unknown or do not apply are left out.
    """
    status = study_status(study, folder)
    trials = {trial.number: (trial, record) for trial, record in trials_and_records(study)}
    return [{"monitor": status.monitor} | _row(row, *trials[row.number], status.targets) for row in status.rows]


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table as CSV by RFC 4180: a header, commas, CRLF, quotes where needed.

    Text that a spreadsheet would read as a formula gets a leading apostrophe, and surrogates are escaped. Lists and
    mappings are JSON.

    Args:
        columns: The columns, in order.
        rows: Values by column; a missing one is an empty cell.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return text.getvalue()


def _row(row: StatusRow, trial: FrozenTrial, record: TrialRecord, targets: Targets) -> dict[str, Any]:
    # A trial that ended after the status was read is still shown as it was then.
    outcome = record.outcome if row.why_ended is not None else None
    config = {name: value for name, value in record.config.items() if name in _SETTINGS}
    figures = {} if outcome is None else asdict(outcome)
    verdicts = {} if outcome is None else target_verdicts(outcome, targets)
    return {
        "total_epochs": row.epochs,
        **config,
        **figures,
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
