"""What a trial carries besides Optuna's own fields: THE names of its user attributes, and typed access."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import takewhile
from typing import Annotated, Any

from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import AllowInfNan, BaseModel, ConfigDict

from search_spaces.diagnostics.names import is_search_trial_name, name_problem, search_trial_name
from search_spaces.errors import ConfigurationError
from search_spaces.training_config import TrainingConfig, known_settings
from studies.storage.optuna_private import damage_text
from studies.storage.postgresql import ATTEMPTS

KIND = "kind"
EXPERIMENT_NAME = "experiment_name"
CONFIG = "config"
CONFIG_DIGEST = "config_digest"
OUTCOME = "outcome"


class TrialKind(StrEnum):
    """Where a trial comes from."""

    PRESET = "preset"
    SEARCH = "search"


class TrialPhase(StrEnum):
    """How far a trial is; pruned trials are completed ones that ended early."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class StartedAfter(StrEnum):
    """What came before an attempt at a trial."""

    WAITING = "waiting"
    STOP = "stop"
    CRASH = "crash"
    MEMORY_CRASH = "memory"


@dataclass(frozen=True)
class Attempt:
    """One process's work on a trial.

    Attributes:
        began: When, ISO 8601 in UTC, whole seconds.
        worker: Host and process, as ``host:pid``.
        epochs: Epochs that the study knew of then.
        after: Whether the trial was waiting, or the process before this one was stopped or died; ``memory`` if there is
            evidence that it died for lack of memory.
        memory_kills: `count_memory_kills` then.
    """

    began: str
    worker: str
    epochs: int
    after: StartedAfter
    memory_kills: Mapping[str, int] = field(default_factory=dict)


class WhyEnded(StrEnum):
    """Why a trial ended."""

    MAX_EPOCHS = "max_epochs"
    EARLY_STOPPED = "early_stopped"
    PRUNED = "pruned"
    NONFINITE_LOSS = "nonfinite_loss"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    FAILED = "failed"

    @property
    def text(self) -> str:
        """The reason as people read it."""
        return self.value.replace("_", " ")


_SUCCESSES = frozenset({WhyEnded.MAX_EPOCHS, WhyEnded.EARLY_STOPPED, WhyEnded.PRUNED})


@dataclass(frozen=True, kw_only=True)
class TrialOutcome:
    """The result of an ended trial.

    Attributes:
        why_ended: The reason.
        training_time_s: Seconds of training, summed over interruptions.
        best_val_char_accuracy: Its maximum over the epochs, 0 to 1; 0 if no epoch finished.
        best_val_seq_accuracy: Its own maximum over the epochs, 0 to 1; 0 if no epoch finished.
        final_train_loss: Of the last finished epoch; None if none finished or it is not finite.
        total_epochs: Epochs finished.
        best_epoch: The epoch of the best checkpoint, counted from 1; None if no epoch finished.
        epoch_seconds_median: Median seconds of an epoch; None if none finished.
        converged_epoch: The first epoch, counted from 1, that meets the accuracy targets; None if none does.
        micro_batch_size: The most images in one pass, if memory ran out for whole batches; None if it did not.
        parameters: Trainable parameters of the model; None if its training did not finish.
        threads: PyTorch's threads in all epochs on the CPU; None if they differ or are unknown.
        error_type: Class name of the error; "" without one.
        error_message: What went wrong; "" without an error.
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
    error_type: str = ""
    error_message: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether the trial counts as completed; pruned ones do, diverged ones do not."""
        return self.why_ended in _SUCCESSES


@dataclass(frozen=True)
class TrialRecord:
    """A trial of this package, read from the study.

    Attributes:
        number: The trial's number in the study.
        kind: Preset or search.
        phase: How far it is.
        experiment_name: The preset's name, or ``search_0007`` by number; also its folder's name.
        config: All fields of `TrainingConfig`; those of a search trial are complete once it was claimed.
        config_digest: Hash of what determines the result; "" for a search trial.
        attempts: Every process that worked on it, in order: one claimed it, the others resumed it.
        outcome: How it ended; None while it has not, or if whoever ended it left nothing.
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
        """How many processes have died one after the other in the epoch that is next now; stops do not count.

        Where each machine has a folder of its own, a trial that is taken over begins anew: there they may have died in
        an earlier epoch.
        """
        return self._count_in_epoch(StartedAfter.CRASH, StartedAfter.MEMORY_CRASH)

    @property
    def consecutive_memory_crashes(self) -> int:
        """How many of these processes died for lack of memory, by the evidence that there is."""
        return self._count_in_epoch(StartedAfter.MEMORY_CRASH)

    def _count_in_epoch(self, *causes: StartedAfter) -> int:
        latest = takewhile(lambda attempt: attempt.epochs == self.attempts[-1].epochs, reversed(self.attempts))
        return sum(attempt.after in causes for attempt in latest)

    @property
    def attempts_as_stored(self) -> str:
        """The attempts as the database has them."""
        return json.dumps([asdict(attempt) for attempt in self.attempts])

    @property
    def training_config(self) -> TrainingConfig:
        """The configuration; fields that this version does not know are left out."""
        return known_settings(self.config)


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
    """Return whether this package made the trial, damaged or not; others, made by hand, are left alone."""
    return KIND in trial.user_attrs or ATTEMPTS in trial.user_attrs


def read_record(trial: FrozenTrial) -> TrialRecord:
    """Return what the study knows of a trial for which `is_own_trial` holds.

    A running trial has no outcome, even if one was written just before its worker died.

    Raises:
        ConfigurationError: The trial is damaged, or another program made it.
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
        # Pydantic refuses surrogates in JSON, which text from outside may have: they are escaped.
        text = re.sub(r"[\ud800-\udfff]", lambda found: rf"\\u{ord(found[0]):x}", json.dumps(data, ensure_ascii=False))
        stored = _Stored.model_validate_json(text)
        own_name = "" if stored.kind is TrialKind.PRESET else search_trial_name(trial.number)
        name = stored.experiment_name or own_name
        # A failed search trial is repeated by a later trial under its name.
        is_earlier = bool(own_name) and is_search_trial_name(name) and (len(name), name) <= (len(own_name), own_name)
        if not is_earlier and (problem := name_problem(name) or ("" if not own_name else "no name of a search trial")):
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
    """Store the outcome of a running trial; to be called before `tell`, since an ended trial takes no attributes."""
    trial.set_user_attr(OUTCOME, stored_outcome(outcome))


def stored_outcome(outcome: TrialOutcome) -> dict[str, Any]:
    """Return an outcome as the attribute's plain data.

    Values that are not finite become None (unknown), or 0 for an accuracy or a time.
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
