"""The record of a trial: the typed data that this package stores in the trial's user attributes, cached per study."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any
from weakref import WeakKeyDictionary

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import AllowInfNan, BaseModel, ConfigDict

from search_spaces.diagnostics.names import is_search_trial_name, name_problem, search_trial_name
from search_spaces.diagnostics.wording import listed
from search_spaces.errors import ConfigurationError
from search_spaces.training_config import TrainingConfig, config_from_settings
from studies.storage.optuna_private import damage_text
from studies.storage.postgresql import ATTEMPTS

KIND = "kind"
EXPERIMENT_NAME = "experiment_name"
CONFIG = "config"
CONFIG_DIGEST = "config_digest"
OUTCOME = "outcome"


class TrialKind(StrEnum):
    """The origin of a trial: an experiment of the YAML file, or the open search."""

    PRESET = "preset"
    SEARCH = "search"


class TrialPhase(StrEnum):
    """The progress of a trial; interrupted trials count as running, pruned trials as completed."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class StartedAfter(StrEnum):
    """How the previous attempt at a trial ended; ``WAITING`` for the first attempt."""

    WAITING = "waiting"
    STOP = "stop"
    CRASH = "crash"


@dataclass(frozen=True)
class Attempt:
    """One process's attempt to train a trial.

    Attributes:
        began: Start time, ISO 8601 in UTC, whole seconds.
        worker: Host and process, as ``host:pid``.
        epochs: Number of epochs reported to the study before the attempt.
        after: How the previous attempt ended: ``stop`` or ``crash``. The first attempt has the value ``waiting``.
    """

    began: str
    worker: str
    epochs: int
    after: StartedAfter


class WhyEnded(StrEnum):
    """The reason why a trial ended."""

    MAX_EPOCHS = "max_epochs"
    EARLY_STOPPED = "early_stopped"
    PRUNED = "pruned"
    NONFINITE_LOSS = "nonfinite_loss"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    FAILED = "failed"

    @property
    def text(self) -> str:
        """The reason as text for messages and tables."""
        return self.value.replace("_", " ")


_SUCCESSES = frozenset({WhyEnded.MAX_EPOCHS, WhyEnded.EARLY_STOPPED, WhyEnded.PRUNED})


@dataclass(frozen=True, kw_only=True)
class TrialOutcome:
    """The result of a finished trial.

    Attributes:
        why_ended: The reason for the end.
        training_time_s: Training time in seconds, in total over all attempts.
        best_val_char_accuracy: Maximum over the epochs, 0 to 1; 0 if no epoch finished.
        best_val_seq_accuracy: Maximum over the epochs, 0 to 1, perhaps from another epoch; 0 if no epoch finished.
        final_train_loss: Loss of the last finished epoch; None if no epoch finished or the loss is not finite.
        total_epochs: Number of finished epochs.
        best_epoch: The epoch of the best checkpoint, counted from 1; None if no epoch finished.
        epoch_seconds_median: Median seconds per epoch; None if no epoch finished.
        converged_epoch: The first epoch, counted from 1, that meets the accuracy targets; None if no epoch does.
        micro_batch_size: Images per micro-batch, if memory ran out for whole batches; None if memory was sufficient.
        parameters: Number of the model's trainable parameters; None if the training did not finish.
        threads: Number of PyTorch threads on the CPU; None if the number is unknown or differs between epochs.
        unseen_char_accuracy: Character accuracy of the best epoch on the dataset's split ``unseen``, 0 to 1; None
            without such a split.
        unseen_seq_accuracy: Sequence accuracy on the same split.
        checkpoint_bytes: Size of the best checkpoint; None if unknown.
        images_per_s_batch_1: Images that the best epoch reads per second, one at a time; None if not measured.
        images_per_s_batch_64: The same in batches of 64.
        error_type: Class name of the error; "" if there was no error.
        error_message: Message of the error; "" if there was no error.
    """

    why_ended: WhyEnded
    training_time_s: float
    best_val_char_accuracy: float
    best_val_seq_accuracy: float
    final_train_loss: float | None
    total_epochs: int
    best_epoch: int | None
    epoch_seconds_median: float | None = None
    converged_epoch: int | None = None
    micro_batch_size: int | None = None
    parameters: int | None = None
    threads: int | None = None
    unseen_char_accuracy: float | None = None
    unseen_seq_accuracy: float | None = None
    checkpoint_bytes: int | None = None
    images_per_s_batch_1: float | None = None
    images_per_s_batch_64: float | None = None
    error_type: str = ""
    error_message: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether the trial counts as completed; pruned trials do, diverged ones do not."""
        return self.why_ended in _SUCCESSES

    @property
    def unseen_text(self) -> str:
        """The accuracies on unseen designs as text; "" if they are unknown."""
        if self.unseen_char_accuracy is None or self.unseen_seq_accuracy is None:
            return ""
        return f"char {self.unseen_char_accuracy:.4f}, seq {self.unseen_seq_accuracy:.4f}"

    @property
    def latency_ms(self) -> float | None:
        """Milliseconds per image at batch size 1; None if not measured."""
        return 1000 / self.images_per_s_batch_1 if self.images_per_s_batch_1 else None

    @property
    def size_and_speed_text(self) -> str:
        """The number of parameters, the checkpoint's size and the speeds as text, without unknown values."""
        parts = (
            (self.parameters, "{:,} parameters"),
            (self.checkpoint_bytes and self.checkpoint_bytes / 1e6, "checkpoint {:.2f} MB"),
            (self.latency_ms, "{:.2f} ms per image (batch 1)"),
            (self.images_per_s_batch_64, "{:,.0f} images/s (batch 64)"),
        )
        return ", ".join(text.format(value) for value, text in parts if value)


@dataclass(frozen=True)
class TrialRecord:
    """The data of a trial that this package created, as read from the study.

    Attributes:
        number: The trial's number in the study.
        kind: Preset or search.
        phase: Waiting, running, completed or failed.
        experiment_name: The preset's name; for a search trial, a name like ``search_0007`` with the trial number. The
            trial's folder has the same name.
        config: All fields of `TrainingConfig`; empty for a search trial whose parameters are not all sampled yet.
        config_digest: Hash of the settings that determine the result; "" for a search trial.
        attempts: The attempts of all processes, in order: the first one started the trial, the others resumed it.
        outcome: How the trial ended; None if it is unfinished, or if another program ended it.
    """

    number: int
    kind: TrialKind
    phase: TrialPhase
    experiment_name: str
    config: Mapping[str, Any]
    config_digest: str
    attempts: tuple[Attempt, ...]
    outcome: TrialOutcome | None

    @property
    def consecutive_crashes(self) -> int:
        """The number of crashes in the trial since its last reported epoch; stopped processes do not count.

        A worker on another machine without a shared output folder repeats the trial from epoch 1, so its crash may have
        happened in an earlier epoch.
        """
        latest = takewhile(lambda attempt: attempt.epochs == self.attempts[-1].epochs, reversed(self.attempts))
        return sum(attempt.after is StartedAfter.CRASH for attempt in latest)

    @property
    def attempts_as_stored(self) -> str:
        """The attempts as JSON, as stored in the database."""
        return json.dumps([asdict(attempt) for attempt in self.attempts])

    @property
    def training_config(self) -> TrainingConfig:
        """The configuration, without stored fields that this version of the program does not define."""
        return config_from_settings(self.config)


class _Stored(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    kind: TrialKind
    experiment_name: str = ""
    config: TrainingConfig | None = None
    config_digest: str = ""
    attempts: tuple[Attempt, ...] = ()
    outcome: TrialOutcome | None = None
    values: list[float] | None
    reports: dict[int, Annotated[float, AllowInfNan()]]
    params: list[tuple[str, str | float | bool]]


def is_own_trial(trial: FrozenTrial) -> bool:
    """Return whether this package created a trial, which may be damaged; all commands ignore other programs' trials.

    Other programs may use the attribute ``kind``, too, with values of their own.
    """
    return trial.user_attrs.get(KIND) in list(TrialKind) or ATTEMPTS in trial.user_attrs


def read_record(trial: FrozenTrial) -> TrialRecord:
    """Parse the record of a trial that this package created (`is_own_trial`).

    The record of a running trial has no outcome, even if the worker stored one just before it was killed.

    Raises:
        ConfigurationError: The trial is damaged, or another program created it.
    """
    data = {
        **trial.user_attrs,
        "values": trial.values,
        "params": [*trial.params.items()],
        "reports": trial.intermediate_values,
    }
    try:
        if data.get(KIND) not in list(TrialKind):
            raise ValueError(f"kind {data.get(KIND)!s}")
        # Attributes set by other programs may contain surrogates, which Pydantic rejects in JSON: escape them.
        text = re.sub(r"[\ud800-\udfff]", lambda found: rf"\\u{ord(found[0]):x}", json.dumps(data, ensure_ascii=False))
        stored = _Stored.model_validate_json(text)
        own_name = "" if stored.kind is TrialKind.PRESET else search_trial_name(trial.number)
        name = stored.experiment_name or own_name
        # The retry of a failed search trial has the name of the failed trial, whose number is lower.
        is_earlier = bool(own_name) and is_search_trial_name(name) and (len(name), name) <= (len(own_name), own_name)
        if not is_earlier and (problem := name_problem(name) or ("" if not own_name else "not a search trial's name")):
            raise ValueError(f"experiment_name {name!r}: {problem}")
    except (ValueError, TypeError) as error:
        raise ConfigurationError(damage_text(f"trial {trial.number}", error)) from error
    outcome = stored.outcome if trial.state.is_finished() else None
    return TrialRecord(
        number=trial.number,
        kind=stored.kind,
        phase=_phase(trial.state, outcome),
        experiment_name=name,
        config=trial.user_attrs.get(CONFIG) or {},
        config_digest=stored.config_digest,
        attempts=stored.attempts,
        outcome=outcome,
    )


def record_outcome(trial: Trial, outcome: TrialOutcome) -> None:
    """Store the outcome of a running trial; call this before `tell`, because Optuna rejects later attributes."""
    trial.set_user_attr(OUTCOME, stored_outcome(outcome))


def stored_outcome(outcome: TrialOutcome) -> dict[str, Any]:
    """Convert an outcome to JSON-compatible data, to be stored as a user attribute of the trial.

    A number that is not finite becomes 0 if it is an accuracy or a time, and None otherwise.
    """
    return {name: _storable(name, value) for name, value in asdict(outcome).items()}


def _storable(name: str, value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return 0.0 if name.startswith(("best_val", "training_time")) else None
    return str(value) if isinstance(value, StrEnum) else value


def _phase(state: TrialState, outcome: TrialOutcome | None) -> TrialPhase:
    if not state.is_finished():
        return TrialPhase.WAITING if state == TrialState.WAITING else TrialPhase.RUNNING
    if state == TrialState.FAIL or outcome is None or not outcome.succeeded:
        return TrialPhase.FAILED
    return TrialPhase.COMPLETED


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
