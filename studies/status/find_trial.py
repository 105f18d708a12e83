"""Lookup of a trial by number or name."""

from __future__ import annotations

from collections.abc import Sequence

import optuna

from search_spaces.diagnostics.diagnostics import suggest
from search_spaces.errors import ConfigurationError
from studies.status.reader import study_status
from studies.status.status import StatusRow
from studies.storage.output_folder import OutputFolder
from studies.trials.record import TrialRecord
from studies.trials.records import own_records


def find_trial(study: optuna.Study, folder: OutputFolder, number_or_name: str) -> tuple[TrialRecord, StatusRow]:
    """Find a trial by number or name, and return its record and its status.

    Args:
        study: The study; it is not changed.
        folder: The study's output folder.
        number_or_name: A trial number, or the name of a preset or a search trial. If a preset was retried, its name
            selects the latest trial.

    Raises:
        ConfigurationError: The study has no trial with this number or name.
    """
    records = own_records(study)
    named = [record for record in records if number_or_name in (record.experiment_name, str(record.number))]
    if not named:
        raise ConfigurationError(f"trial: found {number_or_name!r}; {_remedy(number_or_name, records)}")
    # A name takes precedence over a number, because a preset may be named 7.
    record = max(named, key=lambda record: (record.experiment_name == number_or_name, record.number))
    rows = {row.number: row for row in study_status(study, folder).rows}
    return record, rows[record.number]


def _remedy(number_or_name: str, records: Sequence[TrialRecord]) -> str:
    if not records:
        return "the study has no trials yet; start it with `khmer-tuner run` or `khmer-tuner search`"
    if number_or_name.isdigit():
        return (
            f"expected a trial number from 0 to {records[-1].number} or the name of a trial; "
            "list the trials with `khmer-tuner status --all`"
        )
    return suggest(number_or_name, [record.experiment_name for record in records[:20]])
