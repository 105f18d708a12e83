"""The remaining time of a study: for given trial times, and for simulated studies."""

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest

from search_spaces.experiments.schema import Targets
from studies import RemainingTime, RowState, StatusRow, StudyStatus, TrialKind, remaining_seconds, remaining_time
from studies.status.status import SearchStatus

BEGIN = datetime(2026, 1, 1)


def preset(number, state="waiting", model="small", num_epochs=10, **known):
    row = StatusRow(number, f"p{number}", TrialKind.PRESET, RowState(state), model_name=model, num_epochs=num_epochs)
    return replace(row, **known)


def search(number, state="waiting", **known):
    row = StatusRow(number, f"search_{number:04d}", TrialKind.SEARCH, RowState(state))
    sampled = {} if state == "waiting" else {"model_name": "small", "num_epochs": 10}
    return replace(row, **sampled | known)


def study(*rows, unenqueued=0):
    search_status = SearchStatus("tpe", "quantile", 1, 0, 0, unenqueued)
    return StudyStatus("khmer-ocr", "val_char_accuracy", "max", rows, search_status, Targets(), ())


def ended(row, epochs, epoch_seconds=1.0, ended=BEGIN):
    times = {"epochs": epochs, "epoch_seconds": epoch_seconds, "seconds": epochs * epoch_seconds, "ended": ended}
    return replace(row, state=RowState.COMPLETED, why_ended="early_stopped", **times)


@pytest.mark.parametrize(
    "rows",
    [
        [preset(0)],
        [preset(0, "running")],
        [search(0, "running"), search(1)],
        # A trial that failed before its first epoch was timed is not a fast trial.
        [replace(preset(0), state=RowState.FAILED, why_ended="failed", seconds=0.0), search(1)],
        # Epochs of another model do not predict the epochs of this model.
        [ended(preset(0), 10), preset(1, model="large")],
    ],
    ids=["waiting", "running", "search", "failed at once", "another model"],
)
def test_remaining_time_is_unknown_without_timed_trials_of_the_kind_and_model(rows):
    assert remaining_time(study(*rows), 1) is None


def test_finished_study_has_no_remaining_time():
    assert remaining_time(study(ended(preset(0), 10)), 1) == RemainingTime(0.0, at_most=True)


def test_running_trial_is_bounded_by_its_remaining_epochs():
    row = preset(0, "running", epochs=4, epoch_seconds=2.0)
    assert remaining_seconds(row) == 12.0
    assert remaining_seconds(row, 0.5) == 11.0
    assert remaining_seconds(replace(row, epochs=10), 0.5) == 0.0
    assert remaining_time(study(row), 1, {0: 0.5}) == RemainingTime(11.0, at_most=True)


def test_waiting_preset_is_bounded_by_a_finished_preset_of_its_model():
    rows = [ended(preset(0), 5, 2.0), preset(1), preset(2, num_epochs=3)]
    assert remaining_time(study(*rows), 1) == RemainingTime(26.0, at_most=True)


def test_interrupted_trial_counts_with_its_remaining_epochs():
    rows = [preset(0, "interrupted", epochs=8, epoch_seconds=3.0)]
    assert remaining_time(study(*rows), 1) == RemainingTime(6.0, at_most=True)


def test_epochs_of_search_trials_do_not_bound_presets():
    rows = [ended(search(0, "running"), 10, 2.0), preset(1)]
    assert remaining_time(study(*rows), 1) == RemainingTime(20.0, at_most=False)


def test_waiting_search_trials_are_expected_to_take_the_mean_time_of_finished_search_trials():
    rows = [ended(preset(0), 10, 9.0), ended(search(1, "running"), 4), ended(search(2, "running"), 8), search(3)]
    assert remaining_time(study(*rows, unenqueued=2), 1) == RemainingTime(3 * 6.0, at_most=False)


def test_without_finished_search_trials_presets_or_running_trials_are_used():
    rows = [ended(preset(0), 10, 2.0), search(1)]
    assert remaining_time(study(*rows), 1) == RemainingTime(20.0, at_most=False)
    running = [search(0, "running", epochs=2, epoch_seconds=3.0), search(1)]
    assert remaining_time(study(*running), 1) == RemainingTime(8 * 3.0 + 10 * 3.0, at_most=False)


def test_running_trial_is_expected_to_train_as_long_as_finished_trials_that_trained_longer():
    done = [ended(search(number, "running"), epochs) for number, epochs in enumerate([2, 6, 8])]
    running = search(3, "running", epochs=4, epoch_seconds=1.0)
    # Finished trials with more than 4 epochs have 6 and 8, so 3 more epochs are expected; the waiting trial takes the
    # mean of all finished trials, 16 / 3.
    assert remaining_time(study(*done, running, search(4)), 1) == RemainingTime(
        pytest.approx(3 + 16 / 3), at_most=False
    )
    # Without other pending trials, the result is the upper bound.
    assert remaining_time(study(*done, running), 1) == RemainingTime(6.0, at_most=True)


def test_only_the_latest_twenty_trials_count():
    slow = [ended(search(number, "running"), 10, 9.0) for number in range(5)]
    quick = [ended(search(number, "running"), 10, 1.0, BEGIN + timedelta(minutes=number)) for number in range(5, 25)]
    assert remaining_time(study(*slow, *quick, search(25)), 1) == RemainingTime(10.0, at_most=False)


def test_parallel_workers_share_the_pending_trials():
    rows = [preset(number, "running", epochs=2 + 4 * number, epoch_seconds=1.0) for number in range(2)]
    # The workers are free after 8 and 4 s; the trials take 4 to 14 s, 8 to 18 s, 14 to 24 s.
    waiting = [preset(number) for number in range(2, 5)]
    assert remaining_time(study(*rows, *waiting), 2) == RemainingTime(24.0, at_most=True)
    # A third worker without a trial starts at once.
    assert remaining_time(study(*rows, *waiting), 3) == RemainingTime(18.0, at_most=True)


def test_idle_workers_do_not_shorten_a_long_trial():
    rows = [
        preset(0, "running", num_epochs=101, epochs=1, epoch_seconds=1.0),
        preset(1, "running", epochs=9, epoch_seconds=1.0),
    ]
    assert remaining_time(study(*rows), 2) == RemainingTime(100.0, at_most=True)


@dataclass
class Simulated:
    """A study with known lengths and times of its trials."""

    lengths: Sequence[int]
    epoch_seconds: Sequence[float]
    starts: list[float]

    @classmethod
    def of(cls, seed, trials, workers):
        rng = random.Random(seed)
        # As in a real search: a third of the trials is pruned, a third stops early, the rest trains all epochs.
        lengths = [rng.choice([rng.randint(8, 12), rng.randint(12, 24), 24]) for _ in range(trials)]
        seconds = [rng.uniform(5.0, 8.0) for _ in range(trials)]
        free = [0.0] * workers
        starts = []
        for length, epoch in zip(lengths, seconds, strict=True):
            starts.append(heapq.heappop(free))
            heapq.heappush(free, starts[-1] + length * epoch)
        return cls(lengths, seconds, starts)

    @property
    def ends(self):
        triples = zip(self.starts, self.lengths, self.epoch_seconds, strict=True)
        return [start + length * seconds for start, length, seconds in triples]

    def at(self, now):
        return study(*(self._row(number, now) for number in range(len(self.lengths))))

    def _row(self, number, now):
        if now < self.starts[number]:
            return search(number)
        length, seconds = self.lengths[number], self.epoch_seconds[number]
        row = search(number, "running", num_epochs=24)
        epochs = int((now - self.starts[number]) / seconds)
        if epochs >= length:
            return ended(row, length, seconds, BEGIN + timedelta(seconds=self.ends[number]))
        return replace(row, epochs=epochs, epoch_seconds=seconds if epochs else None)


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("seed", range(5))
def test_estimates_of_a_simulated_search_are_close_to_the_true_time(seed, workers):
    simulated = Simulated.of(seed, 60, workers)
    whole = max(simulated.ends)
    bounds = 0
    for fraction in (0.2, 0.4, 0.6, 0.8, 0.95, 0.99):
        remaining = remaining_time(simulated.at(fraction * whole), workers)
        true = (1 - fraction) * whole
        if remaining.at_most:
            bounds += 1
            assert remaining.seconds >= true
        else:
            # The lengths of the next trials are random: tolerate a quarter, and one trial at the end.
            assert abs(remaining.seconds - true) <= 0.25 * true + 24 * 8.0
    assert bounds or workers == 1


@pytest.mark.parametrize("seed", range(5))
def test_upper_bound_is_never_exceeded_if_all_settings_are_known(seed):
    simulated = Simulated.of(seed, 4, 4)
    whole = max(simulated.ends)
    for fraction in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        remaining = remaining_time(simulated.at(fraction * whole), 4)
        assert remaining.at_most
        assert remaining.seconds >= (1 - fraction) * whole
