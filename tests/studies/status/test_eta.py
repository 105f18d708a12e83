"""How long the rest of a study takes: on trials with times written down, and on whole simulated studies."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from search_spaces.experiments.schema import Targets
from studies import RemainingTime, RowState, StatusRow, StudyStatus, TrialKind, remaining_seconds, remaining_time
from studies.status.status import SearchStatus

BEGIN = datetime(2026, 1, 1)


def preset(number: int, state: str = "waiting", model: str = "small", num_epochs: int = 10, **known: Any) -> StatusRow:
    row = StatusRow(number, f"p{number}", TrialKind.PRESET, RowState(state), model_name=model, num_epochs=num_epochs)
    return replace(row, **known)


def search(number: int, state: str = "waiting", **known: Any) -> StatusRow:
    row = StatusRow(number, f"search_{number:04d}", TrialKind.SEARCH, RowState(state))
    drawn = {} if state == "waiting" else {"model_name": "small", "num_epochs": 10}
    return replace(row, **drawn | known)


def study(*rows: StatusRow, unenqueued: int = 0) -> StudyStatus:
    searching = SearchStatus("tpe", "quantile", 0, 0, unenqueued)
    return StudyStatus("khmer-ocr", "val_char_accuracy", "max", rows, searching, Targets(), ())


def ended(row: StatusRow, epochs: int, epoch_seconds: float = 1.0, ended: datetime = BEGIN) -> StatusRow:
    times = {"epochs": epochs, "epoch_seconds": epoch_seconds, "seconds": epochs * epoch_seconds, "ended": ended}
    return replace(row, state=RowState.COMPLETED, why_ended="early_stopped", **times)


@pytest.mark.parametrize(
    "rows",
    [
        [preset(0)],
        [preset(0, "running")],
        [search(0, "running"), search(1)],
        # A trial that failed before its first epoch was timed does not count as a quick one.
        [replace(preset(0), state=RowState.FAILED, why_ended="failed", seconds=0.0), search(1)],
        # Another model's epochs say nothing of this one's.
        [ended(preset(0), 10), preset(1, model="large")],
    ],
    ids=["waiting", "running", "search", "failed at once", "another model"],
)
def test_nothing_is_promised_before_it_was_measured(rows: list[StatusRow]) -> None:
    assert remaining_time(study(*rows), 1) is None


def test_a_study_in_which_all_is_done_takes_no_more_time() -> None:
    assert remaining_time(study(ended(preset(0), 10)), 1) == RemainingTime(0.0, at_most=True)


def test_a_running_trial_takes_at_most_its_own_epochs() -> None:
    row = preset(0, "running", epochs=4, epoch_seconds=2.0)
    assert remaining_seconds(row) == 12.0
    assert remaining_seconds(row, 0.5) == 11.0
    assert remaining_seconds(replace(row, epochs=10), 0.5) == 0.0
    assert remaining_time(study(row), 1, {0: 0.5}) == RemainingTime(11.0, at_most=True)


def test_a_preset_is_bounded_by_another_one_of_its_model() -> None:
    rows = [ended(preset(0), 5, 2.0), preset(1), preset(2, num_epochs=3)]
    assert remaining_time(study(*rows), 1) == RemainingTime(26.0, at_most=True)


def test_an_interrupted_trial_goes_on_after_its_last_epoch() -> None:
    rows = [preset(0, "interrupted", epochs=8, epoch_seconds=3.0)]
    assert remaining_time(study(*rows), 1) == RemainingTime(6.0, at_most=True)


def test_epochs_of_a_search_trial_promise_nothing_to_a_preset() -> None:
    rows = [ended(search(0, "running"), 10, 2.0), preset(1)]
    assert remaining_time(study(*rows), 1) == RemainingTime(20.0, at_most=False)


def test_search_trials_take_as_long_as_those_that_ended() -> None:
    rows = [ended(preset(0), 10, 9.0), ended(search(1, "running"), 4), ended(search(2, "running"), 8), search(3)]
    assert remaining_time(study(*rows, unenqueued=2), 1) == RemainingTime(3 * 6.0, at_most=False)


def test_as_long_as_no_search_trial_has_ended_presets_stand_for_them() -> None:
    rows = [ended(preset(0), 10, 2.0), search(1)]
    assert remaining_time(study(*rows), 1) == RemainingTime(20.0, at_most=False)
    running = [search(0, "running", epochs=2, epoch_seconds=3.0), search(1)]
    assert remaining_time(study(*running), 1) == RemainingTime(8 * 3.0 + 10 * 3.0, at_most=False)


def test_a_running_trial_is_expected_to_end_as_early_as_those_did_that_came_as_far() -> None:
    done = [ended(search(number, "running"), epochs) for number, epochs in enumerate([2, 6, 8])]
    running = search(3, "running", epochs=4, epoch_seconds=1.0)
    # Those of 6 and 8 epochs came further than 4: 3 more epochs; the waiting one takes the mean of all, 16 / 3.
    assert remaining_time(study(*done, running, search(4)), 1) == RemainingTime(
        pytest.approx(3 + 16 / 3), at_most=False
    )
    # But what it takes at most is what is said as soon as nothing else is open.
    assert remaining_time(study(*done, running), 1) == RemainingTime(6.0, at_most=True)


def test_what_was_timed_long_ago_does_not_count() -> None:
    slow = [ended(search(number, "running"), 10, 9.0) for number in range(5)]
    quick = [ended(search(number, "running"), 10, 1.0, BEGIN + timedelta(minutes=number)) for number in range(5, 25)]
    assert remaining_time(study(*slow, *quick, search(25)), 1) == RemainingTime(10.0, at_most=False)


def test_workers_share_what_is_open() -> None:
    rows = [preset(number, "running", epochs=2 + 4 * number, epoch_seconds=1.0) for number in range(2)]
    # Free after 8 and 4 s: the first goes to the second one (4 to 14), then 8 to 18, then 14 to 24.
    waiting = [preset(number) for number in range(2, 5)]
    assert remaining_time(study(*rows, *waiting), 2) == RemainingTime(24.0, at_most=True)
    # A third one that is between two trials begins at once.
    assert remaining_time(study(*rows, *waiting), 3) == RemainingTime(18.0, at_most=True)


def test_workers_that_cannot_help_a_long_trial_do_not_shorten_it() -> None:
    rows = [
        preset(0, "running", num_epochs=101, epochs=1, epoch_seconds=1.0),
        preset(1, "running", epochs=9, epoch_seconds=1.0),
    ]
    assert remaining_time(study(*rows), 2) == RemainingTime(100.0, at_most=True)


@dataclass
class Simulated:
    """A study whose trials' lengths and times are known beforehand."""

    lengths: Sequence[int]
    epoch_seconds: Sequence[float]
    begun: list[float]

    @classmethod
    def of(cls, seed: int, trials: int, workers: int) -> Simulated:
        draw = random.Random(seed)
        # As searches go: a third of the trials is pruned early, a third stops early, the rest has all its epochs.
        lengths = [draw.choice([draw.randint(8, 12), draw.randint(12, 24), 24]) for _ in range(trials)]
        seconds = [draw.uniform(5.0, 8.0) for _ in range(trials)]
        free = [0.0] * workers
        begun = []
        for length, epoch in zip(lengths, seconds, strict=True):
            begun.append(heapq.heappop(free))
            heapq.heappush(free, begun[-1] + length * epoch)
        return cls(lengths, seconds, begun)

    @property
    def ends(self) -> list[float]:
        triples = zip(self.begun, self.lengths, self.epoch_seconds, strict=True)
        return [begun + length * seconds for begun, length, seconds in triples]

    def at(self, now: float) -> StudyStatus:
        return study(*(self._row(number, now) for number in range(len(self.lengths))))

    def _row(self, number: int, now: float) -> StatusRow:
        if now < self.begun[number]:
            return search(number)
        length, seconds = self.lengths[number], self.epoch_seconds[number]
        row = search(number, "running", num_epochs=24)
        epochs = int((now - self.begun[number]) / seconds)
        if epochs >= length:
            return ended(row, length, seconds, BEGIN + timedelta(seconds=self.ends[number]))
        return replace(row, epochs=epochs, epoch_seconds=seconds if epochs else None)


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("seed", range(5))
def test_a_simulated_search_is_over_when_it_was_said_to_be(seed: int, workers: int) -> None:
    simulated = Simulated.of(seed, 60, workers)
    whole = max(simulated.ends)
    bounds = 0
    for share in (0.2, 0.4, 0.6, 0.8, 0.95, 0.99):
        left = remaining_time(simulated.at(share * whole), workers)
        assert left is not None
        true = (1 - share) * whole
        if left.at_most:
            bounds += 1
            assert left.seconds >= true
        else:
            # What the next trials draw nobody can know: a quarter, and a trial more or less at the end.
            assert abs(left.seconds - true) <= 0.25 * true + 24 * 8.0
    assert bounds or workers == 1


@pytest.mark.parametrize("seed", range(5))
def test_without_unknown_settings_the_bound_holds_all_the_time(seed: int) -> None:
    simulated = Simulated.of(seed, 4, 4)
    whole = max(simulated.ends)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        left = remaining_time(simulated.at(share * whole), 4)
        assert left is not None
        assert left.at_most
        assert left.seconds >= (1 - share) * whole
