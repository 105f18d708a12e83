"""The remaining time of a study, estimated from the times of its epochs and trials."""

from __future__ import annotations

import heapq
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from studies.status.status import RowState, StatusRow, StudyStatus
from studies.trials.record import TrialKind

# Only this many of the latest trials count: older ones may have run with fewer workers or on another machine.
_MAX_TRIALS = 20


class RemainingTime(NamedTuple):
    """An estimate of a remaining time.

    Attributes:
        seconds: The remaining seconds.
        at_most: Whether `seconds` is an upper bound; otherwise it is the expected time.
    """

    seconds: float
    at_most: bool


def remaining_seconds(row: StatusRow, epoch_fraction: float = 0.0) -> float | None:
    """Return an upper bound for a running trial's remaining seconds; None until one of its epochs has been timed.

    Args:
        row: The trial's status.
        epoch_fraction: Finished fraction of the trial's current epoch, 0 to 1.
    """
    if row.num_epochs is None or row.epoch_seconds is None:
        return None
    return max(0.0, row.num_epochs - row.epochs - epoch_fraction) * row.epoch_seconds


def remaining_time(
    status: StudyStatus, workers: int, epoch_fractions: Mapping[int, float] | None = None
) -> RemainingTime | None:
    """Estimate the remaining time of a study with a constant number of workers.

    The estimate assumes that each pending trial goes to the worker that is free first. If the time of every pending
    trial has an upper bound, the result is an upper bound; the time of a preset has one if only presets of its model
    were timed. Otherwise the result is the expected time: pending trials end early as often as finished trials did, and
    a search trial that is not sampled yet takes the mean time of the finished search trials.

    Args:
        status: The status of the study.
        workers: Number of trials trained in parallel, at least 1.
        epoch_fractions: Finished fraction, 0 to 1, of the current epoch of each running trial, keyed by trial number.

    Returns:
        The remaining time; None while it is unknown for a pending trial, because no similar epoch has been timed.
    """
    pace = _Pace.of(status.rows)
    fractions = epoch_fractions or {}
    running = [pace.of_trial(row, fractions.get(row.number, 0.0)) for row in status.running]
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
    """The remaining seconds of a trial: the expected time, and an upper bound or None."""

    expected: float
    bound: float | None


@dataclass(frozen=True)
class _Pace:
    """The times of a study's timed trials, from which the remaining times of its pending trials are estimated.

    Attributes:
        epochs: Median seconds per epoch, keyed by model name.
        preset_only: Names of the models of which only presets were timed. The epoch times of these models give upper
            bounds; those of search trials do not, because the settings of search trials differ too much.
        search_trial: Expected cost of a search trial that is not sampled yet: the mean of the finished search trials.
            If no search trial has finished, the mean of the finished presets; if no preset has finished either, the
            mean of the unfinished trials, as if these trained all epochs. None if no epoch was timed.
        lengths: For each finished trial, the fraction of its maximum number of epochs that it trained, keyed by kind.
    """

    epochs: Mapping[str, float]
    preset_only: frozenset[str]
    search_trial: _Cost | None
    lengths: Mapping[TrialKind, Sequence[float]]

    @classmethod
    def of(cls, rows: Iterable[StatusRow]) -> _Pace:
        """Compute the times from the trials that have a timed epoch."""
        timed = sorted((row for row in rows if row.epoch_seconds is not None), key=_by_end)
        ended = {kind: [row for row in timed if row.has_ended and row.kind is kind] for kind in TrialKind}
        models = defaultdict(list)
        for row in timed:
            models[row.model_name or ""].append(row)
        return cls(
            epochs={model: _median_epoch(members[-_MAX_TRIALS:]) for model, members in models.items()},
            preset_only=frozenset(
                model for model, members in models.items() if all(row.kind is TrialKind.PRESET for row in members)
            ),
            search_trial=_mean_cost((ended[TrialKind.SEARCH] or ended[TrialKind.PRESET] or timed)[-_MAX_TRIALS:]),
            lengths={
                kind: [row.epochs / row.num_epochs for row in members[-_MAX_TRIALS:] if row.num_epochs]
                for kind, members in ended.items()
            },
        )

    def of_trial(self, row: StatusRow, epoch_fraction: float) -> _Cost | None:
        """Return the remaining cost of a trial; None until a comparable trial has been timed."""
        epoch = self.epochs.get(row.model_name or "") if row.epoch_seconds is None else row.epoch_seconds
        if epoch is None or row.num_epochs is None:
            return self.search_trial if row.kind is TrialKind.SEARCH else None
        bound = remaining_seconds(replace(row, epoch_seconds=epoch), epoch_fraction)
        bounded = row.epoch_seconds is not None or (row.kind is TrialKind.PRESET and row.model_name in self.preset_only)
        return _Cost(self._remaining_epochs(row, row.num_epochs, epoch_fraction) * epoch, bound if bounded else None)

    def _remaining_epochs(self, row: StatusRow, num_epochs: int, epoch_fraction: float) -> float:
        """Return the expected number of remaining epochs: the mean of the finished trials that trained longer."""
        lengths = [ratio * num_epochs for ratio in self.lengths.get(row.kind, ()) if ratio * num_epochs > row.epochs]
        return max(0.0, (statistics.mean(lengths) if lengths else num_epochs) - row.epochs - epoch_fraction)


def _by_end(row: StatusRow) -> tuple[bool, float, int]:
    """Return the sort key that orders trials by their end time; unfinished trials come last."""
    return not row.has_ended, row.ended.timestamp() if row.ended else 0.0, row.number


def _median_epoch(rows: Iterable[StatusRow]) -> float:
    return statistics.median(row.epoch_seconds or 0.0 for row in rows)


def _mean_cost(rows: Sequence[StatusRow]) -> _Cost | None:
    """Return the mean time of trials, of unfinished trials as if they trained all epochs; None without trials."""
    totals = [row.seconds if row.has_ended else (row.num_epochs or 0) * (row.epoch_seconds or 0.0) for row in rows]
    return _Cost(statistics.mean(seconds or 0.0 for seconds in totals), None) if totals else None


def _makespan(workers: Sequence[float], tasks: Iterable[float]) -> float:
    """Return the time at which the last worker finishes if each task goes to the worker that is free first."""
    free_at = list(workers)
    heapq.heapify(free_at)
    for seconds in tasks:
        heapq.heapreplace(free_at, free_at[0] + seconds)
    return max(free_at)
