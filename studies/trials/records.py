"""All trials of a study and what they carry, each read once as long as it stays the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import optuna
from optuna.trial import FrozenTrial, TrialState

from search_spaces.diagnostics.plural import listed
from search_spaces.errors import ConfigurationError
from studies.storage.optuna_private import damage_text
from studies.trials.record import TrialKind, TrialPhase, TrialRecord, is_own_trial, read_record

# What was read of each trial, by study and number: its record, or what is wrong with it; None for a trial that is not
# ours. Optuna's cache hands out the same object for a finished trial, and nothing of a waiting one changes before it is
# claimed.
_Known = dict[int, tuple[FrozenTrial, TrialRecord | ConfigurationError | None]]
_KNOWN: WeakKeyDictionary[optuna.Study, _Known] = WeakKeyDictionary()


def trials_and_records(study: optuna.Study) -> list[tuple[FrozenTrial, TrialRecord]]:
    """Return this package's trials of a study by number, each with its record; they must not be modified.

    Damaged trials are left out, as if they were not there; `damage_notes` names them.
    """
    known = _KNOWN.setdefault(study, {})
    found: list[tuple[FrozenTrial, TrialRecord]] = []
    names: set[str] = set()
    for position, trial in enumerate(study.get_trials(deepcopy=False)):
        if trial.number != position:
            raise ConfigurationError(damage_text(f"trial {position}", LookupError("it is missing")))
        seen, record = known.get(position, (None, None))
        if seen is not trial and not (seen is not None and seen.state == trial.state == TrialState.WAITING):
            try:
                record = read_record(trial) if is_own_trial(trial) else None
                if record is not None and record.experiment_name in names:
                    raise ConfigurationError(f"trial {position}: a second trial of {record.experiment_name!r}")
            except ConfigurationError as error:
                record = error
            known[position] = trial, record
        if isinstance(record, TrialRecord):
            found.append((trial, record))
            names |= set() if record.phase is TrialPhase.FAILED else {record.experiment_name}  # failed ones may recur
    return found


def damage_notes(study: optuna.Study) -> list[str]:
    """Return a line about each trial that all commands leave out because it is damaged."""
    trials_and_records(study)
    return [f"left out: {error}" for _, error in _KNOWN[study].values() if isinstance(error, ConfigurationError)]


def own_records(study: optuna.Study) -> list[TrialRecord]:
    """Return what the study knows of each of this package's trials, by number."""
    return [record for _, record in trials_and_records(study)]


def latest_records(study: optuna.Study) -> list[TrialRecord]:
    """Return a study's trials by number, without those that a later one supersedes."""
    return without_superseded(own_records(study))


def refuse_foreign_folders(study: optuna.Study | None, occupied: Iterable[Path]) -> None:
    """Refuse non-empty folders (listed before this call, which reads the study) of trials that no worker started.

    Raises:
        ConfigurationError: There are such folders.
    """
    records = [] if study is None else own_records(study)
    names = {record.experiment_name for record in records if record.phase is not TrialPhase.WAITING}
    if foreign := [str(path) for path in occupied if path.name not in names]:
        raise ConfigurationError(
            f"{listed(foreign, 3)}: no undamaged trial of this study wrote the files there (perhaps another program "
            "or a deleted study did); move the folder away, or choose another --output-dir"
        )


def latest_presets(study: optuna.Study) -> dict[str, TrialRecord]:
    """Return each preset's trial by experiment name; a later trial of a preset supersedes earlier ones."""
    return {record.experiment_name: record for record in latest_records(study) if record.kind is TrialKind.PRESET}


def without_superseded(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return trials without those that a later one of the same name supersedes, since it repeats them."""
    latest = {record.experiment_name: record.number for record in sorted(records, key=lambda record: record.number)}
    return [record for record in records if record.number == latest[record.experiment_name]]
