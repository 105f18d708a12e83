"""The status of a study: one row per trial, counts and ranking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

from search_spaces.diagnostics.wording import listed
from search_spaces.experiments.schema import Targets
from studies.sampling.prior import PriorSource
from studies.trials.record import TrialKind, TrialRecord, WhyEnded
from studies.trials.results import by_value


class RowState(StrEnum):
    """The state of a trial as shown to users."""

    WAITING = "waiting"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    COMPLETED = "completed"
    PRUNED = "pruned"
    FAILED = "failed"

    @classmethod
    def of(cls, record: TrialRecord) -> RowState:
        """Return the state of a trial, without checking whether a running trial has a worker."""
        pruned = record.outcome is not None and record.outcome.why_ended is WhyEnded.PRUNED
        return cls.PRUNED if pruned else cls(record.phase.value)


@dataclass(frozen=True)
class StatusRow:
    """The status of one trial.

    Attributes:
        number: The trial's number in the study.
        name: The name of the preset or search trial.
        kind: ``preset`` or ``search``.
        state: The state; a trial that is running without a worker is interrupted.
        best_value: The best value of the monitored metric so far; None before the first epoch.
        epochs: Number of finished epochs.
        why_ended: Value of `WhyEnded`; None while the trial is unfinished.
        started: Local time of the first start; None while the trial is waiting.
        ended: Local time of the end; None while the trial is unfinished.
        seconds: Training time without interruptions; None while the trial is waiting, or if unknown.
        worker_pid: Process id of the trial's worker; None without a worker, 0 if the worker is on another machine.
        attempts: Number of times that the trial was started or resumed.
        model_name: Name of the trial's model; None until the settings of a search trial have been sampled.
        num_epochs: Maximum number of epochs; None until the settings of a search trial have been sampled.
        epoch_seconds: Median seconds per epoch; None until an epoch has been timed.
        superseded: Whether the trial failed and was enqueued again as a new trial.
        parameters: As in `TrialOutcome`, like the next three; None until the trial is finished.
    """

    number: int
    name: str
    kind: TrialKind
    state: RowState
    best_value: float | None = None
    epochs: int = 0
    why_ended: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    seconds: float | None = None
    worker_pid: int | None = None
    attempts: int = 0
    model_name: str | None = None
    num_epochs: int | None = None
    epoch_seconds: float | None = None
    superseded: bool = False
    parameters: int | None = None
    checkpoint_bytes: int | None = None
    latency_ms: float | None = None
    images_per_s_batch_64: float | None = None

    @property
    def reason(self) -> str:
        """Why the trial ended, as text for users; "" while the trial is unfinished."""
        return WhyEnded(self.why_ended).text if self.why_ended else ""

    @property
    def has_ended(self) -> bool:
        """Whether the trial is finished: completed, pruned or failed."""
        return self.state in (RowState.COMPLETED, RowState.PRUNED, RowState.FAILED)


@dataclass(frozen=True)
class SearchStatus:
    """The progress of a study's search.

    Attributes:
        sampler: Name of the sampler.
        pruner: Name of the pruner.
        parallelism: How many search trials may be trained at the same time.
        budget: Total number of search trials that the study will have.
        ended: Number of finished search trials.
        unenqueued: Number of search trials that are not enqueued yet.
        prior: The earlier studies of a warm start; their trials are not among those of this study.
    """

    sampler: str
    pruner: str
    parallelism: int
    budget: int
    ended: int
    unenqueued: int
    prior: tuple[PriorSource, ...] = ()


@dataclass(frozen=True)
class StudyStatus:
    """The status of a study at one moment.

    Attributes:
        study: The study name.
        monitor: The monitored metric, which is the metric of `best_value`.
        mode: ``max`` or ``min``.
        rows: The trials in order of number.
        search: Progress of the search; None if the study has presets only.
        targets: The targets of the study.
        met_by: Names of the trials that met all targets.
    """

    study: str
    monitor: str
    mode: str
    rows: tuple[StatusRow, ...]
    search: SearchStatus | None
    targets: Targets
    met_by: tuple[str, ...]

    @cached_property
    def counts(self) -> dict[str, int]:
        """The number of trials in each state; states without trials are included."""
        counted = Counter(row.state for row in self.rows)
        return {state.value: counted[state] for state in RowState}

    @cached_property
    def current(self) -> tuple[StatusRow, ...]:
        """The trials in order of number, without superseded presets."""
        return tuple(row for row in self.rows if not row.superseded)

    @cached_property
    def running(self) -> tuple[StatusRow, ...]:
        """The trials that a worker is training, in order of number."""
        return tuple(row for row in self.rows if row.state is RowState.RUNNING)

    @cached_property
    def ended(self) -> int:
        """The number of finished trials, without superseded presets."""
        return sum(row.has_ended for row in self.current)

    @cached_property
    def failed(self) -> int:
        """The number of failed trials, without superseded presets."""
        return sum(row.state is RowState.FAILED for row in self.current)

    @property
    def total(self) -> int:
        """The number of trials that the study will have, enqueued or not, without superseded presets."""
        return len(self.current) + self.unenqueued

    @property
    def unenqueued(self) -> int:
        """The number of search trials that are not enqueued yet."""
        return 0 if self.search is None else self.search.unenqueued

    @property
    def pending(self) -> int:
        """The number of trials that `resume` would train: waiting, interrupted or not enqueued yet."""
        counts = self.counts
        return counts[RowState.WAITING] + counts[RowState.INTERRUPTED] + self.unenqueued

    @property
    def best(self) -> StatusRow | None:
        """The completed trial with the best value; None if no trial has completed."""
        return self.ranking[0] if self.ranking else None

    @cached_property
    def ranking(self) -> list[StatusRow]:
        """The completed trials, best value first; of equal values, the lower number comes first."""
        return self._by_value(row for row in self.rows if row.state is RowState.COMPLETED)

    def met_text(self, limit: int) -> str:
        """Describe which trials met all targets, with at most `limit` names."""
        if self.met_by:
            return f"met by {listed(self.met_by, limit)}"
        return "not met yet" if self.pending or self.running else "met by no trial"

    def leader_over(self, name: str) -> StatusRow | None:
        """Return the trial with the best monitored value; None if the trial `name` has the same value or no value."""
        value = next((row.best_value for row in self.current if row.name == name), None)
        return self.best if self.best is not None and value not in (None, self.best.best_value) else None

    @cached_property
    def last_first(self) -> list[StatusRow]:
        """The finished trials in order of their end, latest first."""
        ended = (row for row in self.rows if row.has_ended)
        return sorted(ended, key=lambda row: (row.ended or datetime.min, row.number), reverse=True)

    def best_of(self, rows: Iterable[StatusRow]) -> StatusRow | None:
        """Return the row with the best value, or with the lower number of equal ones; None if no row has a value."""
        return next(iter(self._by_value(rows)), None)

    def _by_value(self, rows: Iterable[StatusRow]) -> list[StatusRow]:
        return by_value(rows, lambda row: row.best_value, maximize=self.mode == "max")

    def as_dict(self) -> dict[str, Any]:
        """Convert the status to plain data for JSON; times are formatted by `utc_text`."""
        return {
            "study": self.study,
            "monitor": self.monitor,
            "mode": self.mode,
            "counts": self.counts,
            "pending": self.pending,
            "best": None if self.best is None else _plain(self.best),
            "search": None if self.search is None else asdict(self.search),
            "targets": self.targets.model_dump(mode="json", exclude_none=True),
            "targets_met_by": list(self.met_by),
            "trials": [_plain(row) for row in self.rows],
        }


def _plain(row: StatusRow) -> dict[str, Any]:
    return asdict(row) | {
        "kind": row.kind.value,
        "state": row.state.value,
        "started": utc_text(row.started),
        "ended": utc_text(row.ended),
    }


def utc_text(local: datetime | None) -> str | None:
    """Format a local time, as Optuna stores it, in ISO 8601 and UTC; None stays None."""
    return None if local is None else local.astimezone(UTC).isoformat(timespec="seconds")
