"""The status of a study: a row per trial, and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

from search_spaces.diagnostics.plural import listed
from search_spaces.experiments.schema import Targets
from studies.trials.ranking import by_value
from studies.trials.record import TrialKind, TrialRecord, WhyEnded


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
        """Return the state of a trial, assuming that a running trial has a worker."""
        pruned = record.outcome is not None and record.outcome.why_ended is WhyEnded.PRUNED
        return cls.PRUNED if pruned else cls(record.phase.value)


@dataclass(frozen=True)
class StatusRow:
    """The status of one trial.

    Attributes:
        number: Its number in the study.
        name: The name of the experiment or search trial.
        kind: Preset or search.
        state: A running trial without a worker is interrupted; it can be resumed.
        best_value: The best value of the monitored metric so far; None before the first epoch.
        epochs: Number of finished epochs.
        why_ended: The reason; None while the trial is unfinished.
        started: Time of the first start, local time; None while waiting.
        ended: Time of the end, local time; None while unfinished.
        seconds: Training time without interruptions; None while waiting or if unknown.
        worker_pid: Process id of its worker; None without a worker, 0 if the worker is on another machine.
        attempts: The number of times it was started or resumed.
        model_name: Its model; None until the settings of a search trial have been sampled.
        num_epochs: Its maximum number of epochs; None until sampled, like `model_name`.
        epoch_seconds: Median seconds of its epochs; None until an epoch was timed.
        superseded: Whether it failed and was enqueued again.
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

    @property
    def reason(self) -> str:
        """Why the trial ended, as text for users; "" while it is unfinished."""
        return WhyEnded(self.why_ended).text if self.why_ended else ""

    @property
    def has_ended(self) -> bool:
        """Whether the trial is finished: completed, pruned or failed."""
        return self.state in (RowState.COMPLETED, RowState.PRUNED, RowState.FAILED)


@dataclass(frozen=True)
class SearchStatus:
    """The progress of the search of a study.

    Attributes:
        sampler: Name of the sampler.
        pruner: Name of the pruner.
        budget: Total number of search trials that the study will have.
        ended: Number of finished search trials.
        unenqueued: Number of search trials that are not enqueued yet.
    """

    sampler: str
    pruner: str
    budget: int
    ended: int
    unenqueued: int


@dataclass(frozen=True)
class StudyStatus:
    """The status of a study at one moment.

    Attributes:
        study: The study name.
        monitor: The monitored metric, which is the metric of `best_value`.
        mode: ``max`` or ``min``.
        rows: The trials by number.
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
        """The number of trials in each state, 0 included."""
        counted = Counter(row.state for row in self.rows)
        return {state.value: counted[state] for state in RowState}

    @cached_property
    def current(self) -> tuple[StatusRow, ...]:
        """The trials by number, without superseded presets."""
        return tuple(row for row in self.rows if not row.superseded)

    @cached_property
    def running(self) -> tuple[StatusRow, ...]:
        """The trials that a worker trains, by number."""
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
        """The number of trials that the study will have, without superseded presets, enqueued or not."""
        return len(self.current) + self.unenqueued

    @property
    def unenqueued(self) -> int:
        """The number of search trials that are not enqueued yet."""
        return 0 if self.search is None else self.search.unenqueued

    @property
    def pending(self) -> int:
        """The number of trials that `resume` would train: waiting, interrupted, and not enqueued yet."""
        counts = self.counts
        return counts[RowState.WAITING] + counts[RowState.INTERRUPTED] + self.unenqueued

    @property
    def best(self) -> StatusRow | None:
        """The completed trial with the best value; None if there is none."""
        return self.ranking[0] if self.ranking else None

    @cached_property
    def ranking(self) -> list[StatusRow]:
        """The completed trials, the best value first; among equal values, the lower number first."""
        return self._by_value(row for row in self.rows if row.state is RowState.COMPLETED)

    def met_text(self, limit: int) -> str:
        """Return which trials met all targets as text, with at most `limit` names."""
        if self.met_by:
            return f"met by {listed(self.met_by, limit)}"
        return "not met yet" if self.pending or self.running else "met by no trial"

    def leader_over(self, name: str) -> StatusRow | None:
        """Return the best trial by the monitored metric if its value differs from that of the trial `name`, or None."""
        value = next((row.best_value for row in self.current if row.name == name), None)
        return self.best if self.best is not None and value not in (None, self.best.best_value) else None

    @cached_property
    def last_first(self) -> list[StatusRow]:
        """The finished trials, the latest end first."""
        ended = (row for row in self.rows if row.has_ended)
        return sorted(ended, key=lambda row: (row.ended or datetime.min, row.number), reverse=True)

    def best_of(self, rows: Iterable[StatusRow]) -> StatusRow | None:
        """Return the row with the best value, of equal ones that with the lower number; None if no row has a value."""
        return next(iter(self._by_value(rows)), None)

    def _by_value(self, rows: Iterable[StatusRow]) -> list[StatusRow]:
        return by_value(rows, lambda row: row.best_value, maximize=self.mode == "max")

    def as_dict(self) -> dict[str, Any]:
        """Return the status as plain data for JSON; times are formatted by `utc_text`."""
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
    """Return a local time, as Optuna stores it, as ISO 8601 text in UTC."""
    return None if local is None else local.astimezone(UTC).isoformat(timespec="seconds")
