"""One trial of a study, found by its number or its name."""

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
    """Return a trial's record and status; the name of a preset that was retried means its latest trial.

    Args:
        study: The study; it is only read.
        folder: Its folder.
        word: A trial's number, or the name of an experiment or a search trial.

    Raises:
        ConfigurationError: If there is no such trial.
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
        return "the study has no trials yet"
    if word.isdigit():
        return f"the study has trials 0 to {records[-1].number}"
    return suggest(word, [record.experiment_name for record in records[:20]])
