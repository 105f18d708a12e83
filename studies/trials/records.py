"""The records of all trials of a study, cached until a trial changes."""

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

# Keyed by study and trial number: each trial with its record, or with None if another program created the trial. An
# entry stays valid for a finished trial, because Optuna's cache returns the same object, and for a waiting trial,
# because the trial does not change before it is claimed.
_CACHES: WeakKeyDictionary[optuna.Study, dict[int, tuple[FrozenTrial, TrialRecord | None]]] = WeakKeyDictionary()


def trials_and_records(study: optuna.Study) -> list[tuple[FrozenTrial, TrialRecord]]:
    """Return each trial that this package created in a study, with its record, in order of trial number.

    Do not modify the trials: Optuna's cache shares them.

    Raises:
        ConfigurationError: A trial is damaged.
    """
    cache = _CACHES.setdefault(study, {})
    found: list[tuple[FrozenTrial, TrialRecord]] = []
    names: set[str] = set()
    for position, trial in enumerate(study.get_trials(deepcopy=False)):
        if trial.number != position:
            raise ConfigurationError(damage_text(f"trial {position}", LookupError("it is missing")))
        cached, record = cache.get(position, (None, None))
        if cached is not trial and not (cached is not None and cached.state == trial.state == TrialState.WAITING):
            record = read_record(trial) if is_own_trial(trial) else None
            cache[position] = trial, record
        if record is None:
            continue
        if record.experiment_name in names:
            second = LookupError(f"it is a second trial of {record.experiment_name!r}")
            raise ConfigurationError(damage_text(f"trial {position}", second))
        found.append((trial, record))
        names |= set() if record.phase is TrialPhase.FAILED else {record.experiment_name}  # failed: may be retried
    return found


def foreign_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials of other programs, in order of trial number; do not modify them."""
    trials_and_records(study)
    return [trial for trial, record in _CACHES[study].values() if record is None]


def own_records(study: optuna.Study) -> list[TrialRecord]:
    """Return the records of all trials that this package created, in order of trial number."""
    return [record for _, record in trials_and_records(study)]


def latest_records(study: optuna.Study) -> list[TrialRecord]:
    """Return the records of a study in order of trial number, without superseded ones (failed and retried later)."""
    return without_superseded(own_records(study))


def refuse_foreign_folders(study: optuna.Study | None, occupied: Iterable[Path]) -> None:
    """Check that every non-empty trial folder is that of a started trial.

    Args:
        study: The study; None if it does not exist yet.
        occupied: The non-empty trial folders; list them before this call, because this call reads the study.

    Raises:
        ConfigurationError: A folder does not belong to a started trial.
    """
    records = [] if study is None else own_records(study)
    names = {record.experiment_name for record in records if record.phase is not TrialPhase.WAITING}
    if foreign := [str(path) for path in occupied if path.name not in names]:
        raise ConfigurationError(
            f"{listed(foreign, 3)}: no trial of this study wrote the files there (perhaps another program "
            "or a deleted study did); move the folder away, or choose another --output-dir"
        )


def latest_presets(study: optuna.Study) -> dict[str, TrialRecord]:
    """Return the latest record of each preset, keyed by preset name."""
    return {record.experiment_name: record for record in latest_records(study) if record.kind is TrialKind.PRESET}


def without_superseded(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the records without superseded ones: those with the same name as a later record, which is a retry."""
    latest = {record.experiment_name: record.number for record in sorted(records, key=lambda record: record.number)}
    return [record for record in records if record.number == latest[record.experiment_name]]
