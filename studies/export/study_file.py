"""The study file: a whole study as JSON lines, and its import, which creates an equal study in any storage.

The first line has the format, its version, the study's attributes and its prior; then follows one line per trial, and
the last line has the SHA-256 of all lines before it. The file contains no password. Paths in it are the dataset's and
those in the settings of trials; they are only defaults, because a worker can be given other paths.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import AwareDatetime, BaseModel, Field, StringConstraints

from search_spaces.diagnostics.disk import write_bytes
from search_spaces.errors import ConfigurationError
from search_spaces.files.regular_files import parse_json, read_bytes
from studies.storage.open import open_storage
from studies.storage.optuna_private import (
    DECODING_ERRORS,
    add_trial,
    damage_text,
    rename_study,
    set_study_attribute,
    study_attribute,
)
from studies.storage.output_folder import OutputFolder
from studies.storage.postgresql import ATTEMPTS
from studies.storage.url import check_storage_url, default_storage_url, mask_password
from studies.study.lifecycle import (
    FOLDER,
    STOP,
    check_invariants,
    create_study,
    has_study,
    study_invariants,
    study_targets,
    study_threads,
)
from studies.study.presets import fixed_space, preset_order
from studies.study.search_budget import search_budget, search_settings
from studies.study.warm_start import PRIOR, study_prior
from studies.trials.leases import study_lock
from studies.trials.record import CONFIG, KIND, OUTCOME, TrialKind, TrialPhase, own_records, without_superseded

FORMAT, VERSION = "khmer-ocr-tuner study", 1
_EXPECTED = "a file written by `khmer-tuner export --format study`"
_FIXED = "fixed_params"  # the attribute in which Optuna stores the parameters of an enqueued trial
ReadEpochs = Callable[[str], Sequence[Mapping[str, Any]]]


# What both databases can store.
_Key = Annotated[str, StringConstraints(max_length=512, pattern=r"\A[^\x00]*\z")]
_Step = Annotated[int, Field(ge=-(2**31), lt=2**31)]


class _Header(BaseModel):
    study: str
    direction: Literal["MAXIMIZE", "MINIMIZE"]
    attributes: dict[_Key, Any]
    prior: dict[str, Any] | None


class _Trial(BaseModel):
    state: Literal["COMPLETE", "PRUNED", "FAIL", "WAITING"]
    value: float | None
    started: AwareDatetime | None
    ended: AwareDatetime | None
    params: dict[_Key, Any]
    distributions: dict[str, dict[str, Any]]
    reports: list[tuple[_Step, float]]
    attributes: dict[_Key, Any]
    fixed_params: dict[str, Any] | None
    epochs: list[dict[str, Any]]

    def as_frozen(self) -> FrozenTrial:
        distributions = {name: json_to_distribution(json.dumps(item)) for name, item in self.distributions.items()}
        if distributions.keys() != self.params.keys():
            raise ValueError("not all parameters have a distribution")
        for name, value in self.params.items():
            distributions[name].to_internal_repr(value)  # raises a ValueError if the database could not store it
        # Not `create_trial`, which rejects trials created by hand.
        return FrozenTrial(
            number=-1,
            trial_id=-1,
            state=TrialState[self.state],
            value=self.value,
            datetime_start=_local(self.started),
            datetime_complete=_local(self.ended),
            params=self.params,
            distributions=distributions,
            user_attrs=self.attributes,
            system_attrs={} if self.fixed_params is None else {_FIXED: self.fixed_params},
            intermediate_values=dict(self.reports),
        )


@dataclass(frozen=True)
class StudyFile:
    """The content of a study file.

    Attributes:
        study: The study, in memory.
        metrics: The content of each trial's ``metrics.jsonl``, keyed by the trial's name.
    """

    study: optuna.Study
    metrics: Mapping[str, str]


def study_file_text(study: optuna.Study, read_epochs: ReadEpochs) -> str:
    """Return the content of a study file.

    Finished trials are complete. Unfinished trials are pending, without the parameters, reports and attempts that they
    have had so far.

    Args:
        study: The study; it is not changed.
        read_epochs: Given a trial's name, returns the metrics of each finished epoch, keyed by metric name.
    """
    header = {
        "format": FORMAT,
        "version": VERSION,
        "study": study.study_name,
        "direction": study.direction.name,
        "attributes": {name: value for name, value in sorted(study.user_attrs.items()) if name not in (FOLDER, STOP)},
        "prior": study_attribute(study, PRIOR) if study_prior(study).digest else None,
    }
    trials = study.get_trials(deepcopy=False)  # before the records, so that a trial that finishes now is unfinished
    # A retried trial has the folder of the failed one, so the epochs there are those of the latest started trial.
    started = [record for record in own_records(study) if record.phase is not TrialPhase.WAITING]
    names = {record.number: record.experiment_name for record in without_superseded(started)}
    lines = [header, *(_trial_data(trial, read_epochs, names.get(trial.number)) for trial in trials)]
    # JSON escapes surrogates, which other programs may have stored, like Python.
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text + json.dumps({"sha256": _digest(text)}) + "\n"


def read_study_file(path: Path, format_epoch: Callable[[Mapping[str, Any]], str]) -> StudyFile:
    """Read a study file into memory.

    Args:
        path: The file.
        format_epoch: Checks the metrics of an epoch, keyed by metric name, and returns their line in ``metrics.jsonl``;
            raises a ValueError if they are damaged.

    Raises:
        ConfigurationError: The file cannot be read, is damaged, or was written by a newer version or another program.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise ConfigurationError(f"{path}: cannot be read ({reason}); expected {_EXPECTED}") from error
    lines = text.split("\n")
    header = _parsed(lines[0])
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ConfigurationError(f"{path}: this is not a study file; expected {_EXPECTED}")
    if header.get("version") != VERSION:
        raise ConfigurationError(
            f"{path}: found version {header.get('version')!r} of the format, but this program reads version {VERSION}; "
            "update khmer-ocr-tuner, or export the study again with this version"
        )
    content, last = "".join(f"{line}\n" for line in lines[:-2]), lines[-2:]
    if last != [json.dumps({"sha256": _digest(content)}), ""]:
        raise ConfigurationError(
            f"{path}: damaged or incomplete (its last line is not the SHA-256 of the lines before it); "
            "copy or export the file again"
        )
    try:
        stored = _Header.model_validate(header)
        return _in_memory(stored, [_Trial.model_validate(_parsed(line)) for line in lines[1:-2]], format_epoch)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    except DECODING_ERRORS as error:
        raise ConfigurationError(damage_text(str(path), error, "export the study again")) from error


def _trial_data(trial: FrozenTrial, read_epochs: ReadEpochs, name: str | None) -> dict[str, Any]:
    fixed = trial.system_attrs.get(_FIXED)
    if not trial.state.is_finished():
        is_search = trial.user_attrs.get(KIND) == TrialKind.SEARCH
        left_out = {ATTEMPTS, OUTCOME, *([CONFIG] if is_search else [])}  # a search trial samples its settings again
        attributes = {key: value for key, value in trial.user_attrs.items() if key not in left_out}
        trial, name = create_trial(state=TrialState.WAITING, user_attrs=attributes), None
    return {
        "state": trial.state.name,
        "value": trial.value,
        "started": _utc(trial.datetime_start),
        "ended": _utc(trial.datetime_complete),
        "params": trial.params,
        "distributions": {key: json.loads(distribution_to_json(item)) for key, item in trial.distributions.items()},
        # Sorted, because the order in which a database returns them is arbitrary.
        "reports": sorted(trial.intermediate_values.items()),
        "attributes": dict(sorted(trial.user_attrs.items())),
        "fixed_params": fixed,
        "epochs": [] if name is None else list(read_epochs(name)),
    }


def _in_memory(
    header: _Header, trials: Sequence[_Trial], format_epoch: Callable[[Mapping[str, Any]], str]
) -> StudyFile:
    """Create the study of a file in memory, and check everything that commands read from it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(study_name=header.study, direction=StudyDirection[header.direction])
    for name, value in header.attributes.items():
        if name not in (FOLDER, STOP):
            study.set_user_attr(name, value)
    if header.prior is not None:
        set_study_attribute(study, PRIOR, header.prior)
    for trial in trials:
        add_trial(study, trial.as_frozen())
    check_invariants(study)
    for read in (study_targets, study_threads, fixed_space, preset_order, search_settings, search_budget, study_prior):
        read(study)
    epochs = {record.experiment_name: found for record in own_records(study) if (found := trials[record.number].epochs)}
    return StudyFile(study, {name: "".join(map(format_epoch, found)) for name, found in epochs.items()})


def _parsed(line: str) -> Any:
    try:
        return parse_json(line)
    except ValueError:
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _utc(local: datetime | None) -> str | None:
    return None if local is None else local.astimezone(UTC).isoformat()


def _local(time: datetime | None) -> datetime | None:
    return None if time is None else time.astimezone().replace(tzinfo=None)


# Names of studies that users choose contain no parentheses.
_UNFINISHED = "{} (unfinished import)"


def check_import(file: StudyFile, storage_url: str, name: str, folder: OutputFolder) -> None:
    """Check that a study can be imported; nothing is created.

    Args:
        file: The content of the study file.
        storage_url: The storage URL of the new study.
        name: Its name.
        folder: Its output folder.

    Raises:
        ConfigurationError: The folder or the storage is unsuitable or already contains a study.
    """
    check_storage_url(storage_url, output_dir=folder.path)
    folder.check(name, storage_url)
    # A killed import may have written some of the metrics.
    metrics = {folder.metrics_path(trial): text.encode() for trial, text in file.metrics.items()}
    occupied = folder.occupied({record.experiment_name for record in own_records(file.study)})
    found = [path for item in occupied for path in (item, *item.rglob("*")) if path.is_file()]
    foreign = [path for path in found if path not in metrics or read_bytes(path) != metrics[path]]
    if foreign:
        raise ConfigurationError(f"{foreign[0]}: the import did not write this file; choose another --output-dir")
    if has_study(storage_url, name):
        also = "" if storage_url == default_storage_url(folder.path) else ", and another --study name in this storage"
        raise ConfigurationError(
            f"output folder {folder.path}: {mask_password(storage_url)} already contains the study {name!r}; choose "
            f"another --output-dir{also}"
        )


def import_study(file: StudyFile, storage_url: str, name: str, folder: OutputFolder) -> None:
    """Create the study of a study file; a killed import leaves no study, and can be repeated.

    The arguments and errors are those of `check_import`.
    """
    check_import(file, storage_url, name, folder)
    storage, unfinished = open_storage(storage_url), _UNFINISHED.format(name)
    folder.claim(name, storage_url)
    with study_lock(storage, name, folder):
        check_import(file, storage_url, name, folder)
        if unfinished in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name=unfinished, storage=storage)
        study = create_study(storage, unfinished, study_invariants(file.study))
        for key, value in file.study.user_attrs.items():
            study.set_user_attr(key, value)
        if (prior := study_attribute(file.study, PRIOR)) is not None:
            set_study_attribute(study, PRIOR, prior)
        for trial in file.study.get_trials(deepcopy=False):
            add_trial(study, trial)
        for trial_name, text in file.metrics.items():
            folder.trial_dir_for_work(trial_name).mkdir(exist_ok=True)
            write_bytes(folder.metrics_path(trial_name), text.encode(), temporary=folder.internal / "import.tmp")
        rename_study(study, name)
