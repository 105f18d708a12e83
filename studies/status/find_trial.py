"""Finds a trial of a study by number or name."""

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


def find_trial(study: optuna.Study, folder: OutputFolder, word: str) -> tuple[TrialRecord, StatusRow]:
    """Return a trial's record and status; the name of a retried preset selects its latest trial.

    Args:
        study: The study; it is not changed.
        folder: Its output folder.
        word: A trial's number, or the name of an experiment or a search trial.

    Raises:
        ConfigurationError: The study has no such trial.
    """
    records = own_records(study)
    named = [record for record in records if word in (record.experiment_name, str(record.number))]
    if not named:
        raise ConfigurationError(f"trial: found {word!r}; {_remedy(word, records)}")
    # A name takes precedence over a number: an experiment may be called 7.
    record = max(named, key=lambda record: (record.experiment_name == word, record.number))
    rows = {row.number: row for row in study_status(study, folder).rows}
    return record, rows[record.number]


def _remedy(word: str, records: Sequence[TrialRecord]) -> str:
    if not records:
        return "the study has no trials yet; start it with `khmer-tuner run` or `khmer-tuner search`"
    if word.isdigit():
        return f"expected a trial number from 0 to {records[-1].number}, or a name"
    return suggest(word, [record.experiment_name for record in records[:20]])
