"""The remaining time of a study, estimated from the epochs and trials that were timed."""

from __future__ import annotations

import heapq
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from studies.status.status import RowState, StatusRow, StudyStatus
from studies.trials.record import TrialKind

# Older trials, with fewer workers or on another machine, say little about the rest.
_MOST_TRIALS = 20


class RemainingTime(NamedTuple):
    """An estimate of a remaining time.

    Attributes:
        seconds: The remaining seconds.
        at_most: Whether this is an upper bound; otherwise it is the expected time.
    """

    seconds: float
    at_most: bool


def remaining_seconds(row: StatusRow, epoch_share: float = 0.0) -> float | None:
    """Return the most seconds that a running trial still takes, by its median epoch; None before one was timed.

    Args:
        row: The trial.
        epoch_share: Finished share of its running epoch, 0 to 1.
    """
    if row.num_epochs is None or row.epoch_seconds is None:
        return None
    return max(0.0, row.num_epochs - row.epochs - epoch_share) * row.epoch_seconds


def remaining_time(
    status: StudyStatus, workers: int, epoch_shares: Mapping[int, float] | None = None
) -> RemainingTime | None:
    """Return the remaining time of the whole study with a constant number of workers; None while too little was timed.

    Each pending trial in turn goes to the worker that is free first. If every pending trial has an upper bound (a
    preset has one if another preset of its model was timed), the bound is returned. Otherwise the expected time is
    returned: trials end early as often as the ended ones did, and a search trial that is not sampled yet takes their
    mean.

    Args:
        status: The status of the study.
        workers: Number of trials trained in parallel; at least one.
        epoch_shares: Finished share of a trial's running epoch, 0 to 1, by number.
    """
    pace = _Pace.of(status.rows)
    shares = epoch_shares or {}
    running = [pace.of_trial(row, shares.get(row.number, 0.0)) for row in status.running]
    states = (RowState.INTERRUPTED, RowState.WAITING)
    waiting = [pace.of_trial(row, 0.0) for state in states for row in status.rows if row.state is state]
    waiting += [pace.search_trial] * status.unenqueued
    known = [cost for cost in (*running, *waiting) if cost is not None]
    if len(known) < len(running) + len(waiting):
        return None
    at_most = all(cost.bound is not None for cost in known)
    seconds = [cost.bound if at_most and cost.bound is not None else cost.expected for cost in known]
    busy = seconds[: len(running)]
    free = [0.0] * max(0 if busy else 1, workers - len(busy))
    return RemainingTime(_makespan([*busy, *free], seconds[len(running) :]), at_most)


class _Cost(NamedTuple):
    """Remaining seconds of a trial: the expected ones, and the upper bound or None."""

    expected: float
    bound: float | None


@dataclass(frozen=True)
class _Pace:
    """The speed of the timed trials of a study, by which the others are estimated.

    Attributes:
        epochs: Median seconds of an epoch, by model.
        sure: Models whose epochs were timed in presets alone: the settings of search trials differ too much for one to
            bound another.
        search_trial: Cost of a search trial that is not sampled yet: that of an ended search trial or, as long as there
            is none, of an ended preset or else of the running ones if none ends early; None if no epoch was timed.
        lengths: Which share of their epochs ended trials had, by kind.
    """

    epochs: Mapping[str, float]
    sure: frozenset[str]
    search_trial: _Cost | None
    lengths: Mapping[TrialKind, Sequence[float]]

    @classmethod
    def of(cls, rows: Iterable[StatusRow]) -> _Pace:
        """Compute it from the trials with a timed epoch."""
        timed = sorted((row for row in rows if row.epoch_seconds is not None), key=_when)
        ended = {kind: [row for row in timed if row.has_ended and row.kind is kind] for kind in TrialKind}
        models = defaultdict(list)
        for row in timed:
            models[row.model_name or ""].append(row)
        return cls(
            epochs={model: _median_epoch(members[-_MOST_TRIALS:]) for model, members in models.items()},
            sure=frozenset(
                model for model, members in models.items() if all(row.kind is TrialKind.PRESET for row in members)
            ),
            search_trial=_mean_cost((ended[TrialKind.SEARCH] or ended[TrialKind.PRESET] or timed)[-_MOST_TRIALS:]),
            lengths={
                kind: [row.epochs / row.num_epochs for row in members[-_MOST_TRIALS:] if row.num_epochs]
                for kind, members in ended.items()
            },
        )

    def of_trial(self, row: StatusRow, epoch_share: float) -> _Cost | None:
        """Return the cost of the rest of a trial; None if no similar trial was timed."""
        epoch = self.epochs.get(row.model_name or "") if row.epoch_seconds is None else row.epoch_seconds
        if epoch is None or row.num_epochs is None:
            return self.search_trial if row.kind is TrialKind.SEARCH else None
        bound = remaining_seconds(replace(row, epoch_seconds=epoch), epoch_share)
        known = row.epoch_seconds is not None or (row.kind is TrialKind.PRESET and row.model_name in self.sure)
        return _Cost(self._epochs_to_come(row, row.num_epochs, epoch_share) * epoch, bound if known else None)

    def _epochs_to_come(self, row: StatusRow, num_epochs: int, epoch_share: float) -> float:
        """Return the expected number of further epochs: the mean of the trials that trained longer than this one."""
        lengths = [share * num_epochs for share in self.lengths.get(row.kind, ()) if share * num_epochs > row.epochs]
        return max(0.0, (statistics.mean(lengths) if lengths else num_epochs) - row.epochs - epoch_share)


def _when(row: StatusRow) -> tuple[bool, float, int]:
    """Return the sort key of trials by their end; trials that have not ended come last."""
    return not row.has_ended, row.ended.timestamp() if row.ended else 0.0, row.number


def _median_epoch(rows: Iterable[StatusRow]) -> float:
    return statistics.median(row.epoch_seconds or 0.0 for row in rows)


def _mean_cost(rows: Sequence[StatusRow]) -> _Cost | None:
    """Return the mean seconds of trials; of trials that have not ended the most that they can take."""
    whole = [row.seconds if row.has_ended else (row.num_epochs or 0) * (row.epoch_seconds or 0.0) for row in rows]
    return _Cost(statistics.mean(seconds or 0.0 for seconds in whole), None) if whole else None


def _makespan(workers: Sequence[float], tasks: Iterable[float]) -> float:
    """Return when the last worker finishes if the worker that is free first takes the next task."""
    free_at = list(workers)
    heapq.heapify(free_at)
    for seconds in tasks:
        heapq.heapreplace(free_at, free_at[0] + seconds)
    return max(free_at)
