"""What is said of a whole study, in a line each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from search_spaces import Targets
from studies import DiskUsage, RemainingTime
from studies.status.status import SearchStatus
from tuner.display.study_lines import (
    ahead_line,
    best_line,
    disk_line,
    last_line,
    pending_line,
    remaining_line,
    search_line,
    targets_line,
    whole_line,
    work_line,
)


def test_a_study_is_told_in_numbers(make_row, make_status):
    rows = [
        make_row(0, "failed", "a", superseded=True),
        make_row(1, "completed", "a"),
        make_row(2, "failed", "b"),
        make_row(3, "running"),
        make_row(4, "interrupted"),
        make_row(5, "waiting"),
    ]
    status = make_status(*rows, unenqueued=1200)
    assert whole_line(status, 1) == "2 of 1,205 trials done (1 failed), 1,201 waiting, 1 interrupted; 1 worker"
    assert work_line(status, 2) == "work: 2 workers, 1,201 waiting, 1 interrupted, 1 failed"


@pytest.mark.parametrize(
    ("state", "whole", "work"),
    [
        (None, "no trials yet", None),
        ("completed", "1 of 1 trials done", None),
        ("waiting", "0 of 1 trials done, 1 waiting", "work: 1 waiting"),
    ],
)
def test_nothing_is_said_of_what_there_is_not(state, whole, work, make_row, make_status):
    status = make_status(*([make_row(0, state)] if state else []))
    assert (whole_line(status, 0), work_line(status, 0)) == (whole, work)


def test_the_best_is_that_of_completed_ones(make_row, make_status):
    assert best_line(make_status(make_row(3, "running", best_value=0.95))) is None
    rows = [make_row(0, best_value=0.9), make_row(1, "pruned", best_value=0.99), make_row(2, "failed")]
    assert best_line(make_status(*rows)) == "best: search_0000, val_char_accuracy 0.9000"
    assert best_line(make_status(*rows), lambda name: name[-1]) == "best: 0, val_char_accuracy 0.9000"


@pytest.mark.parametrize(
    ("value", "ahead"),
    [(0.95, "ahead: search_0003, val_char_accuracy 0.9500, still running"), (0.9, None), (0.8, None), (None, None)],
)
def test_a_running_trial_that_is_better_is_told(value, ahead, make_row, make_status):
    rows = [make_row(0, best_value=0.9), make_row(1, "pruned", best_value=0.99)]
    assert ahead_line(make_status(*rows, make_row(3, "running", best_value=value))) == ahead


def test_the_first_trial_of_a_study_is_ahead_of_nobody(make_row, make_status):
    assert ahead_line(make_status(make_row(3, "running"))) is None
    assert ahead_line(make_status(make_row(3, "running", best_value=0.1))) is not None


def test_by_loss_less_is_better(make_row, make_status):
    rows = [make_row(0, best_value=0.4), make_row(1, best_value=0.3), make_row(2, "running", best_value=0.2)]
    status = make_status(*rows, mode="min", monitor="val_loss")
    assert best_line(status) == "best: search_0001, val_loss 0.3000"
    assert ahead_line(status) == "ahead: search_0002, val_loss 0.2000, still running"


def test_of_the_last_ones_as_many_are_told_as_there_is_room_for(make_row, make_status):
    status = make_status(make_row(0, "failed", why_ended="out_of_memory"), make_row(1), make_row(2, "failed"))
    whole = "last: search_0002 FAILED (crashed), search_0001 early stopped, search_0000 FAILED (out of memory)"
    assert last_line(status, width=len(whole)) == whole
    assert last_line(status, width=len(whole) - 1) == whole[:61]
    assert last_line(status, width=10) == whole[:34]


def test_the_last_ones_are_told_with_the_reason_as_they_ended(make_row, make_status):
    rows = [
        make_row(0, "completed", "ខ្មែរ"),
        make_row(1, "failed", why_ended="out_of_memory"),
        make_row(2, "failed", why_ended="failed"),
        make_row(3, "failed", why_ended=None),
    ]
    late = replace(rows[0], ended=rows[3].ended.replace(hour=23))
    assert last_line(make_status()) is None
    assert last_line(make_status(late, *rows[1:3])) == (
        "last: ខ្មែរ early stopped, search_0002 FAILED, search_0001 FAILED (out of memory)"
    )
    assert last_line(make_status(*rows[1:4]), lambda name: name[-2:]) == (
        "last: 03 FAILED (ended from outside), 02 FAILED, 01 FAILED (out of memory)"
    )


def test_the_time_left_says_whether_it_is_a_bound(make_row, make_status):
    alone, others = make_status(make_row(0, "running")), make_status(make_row(0, "running"), unenqueued=2)
    assert remaining_line(alone, None) == "left: known when enough has been timed"
    assert remaining_line(alone, RemainingTime(61.0, at_most=True)) == "left: at most 1:01"
    assert remaining_line(others, RemainingTime(3600.0, at_most=False)) == "left: about 1:00:00 with the 2 waiting"


def test_what_is_owed_is_told_with_the_time_it_takes(make_row, make_status):
    here, other = Path("training_output"), Path("other study")
    assert pending_line(make_status(make_row(0)), None, here) is None
    rows = [make_row(0), make_row(1, "interrupted"), make_row(2, "waiting")]
    status, left = make_status(*rows, unenqueued=11), RemainingTime(500.0, at_most=False)
    assert pending_line(status, left, here) == (
        "pending: 1 interrupted, 12 not started, about 8:20 for one worker; `khmer-tuner resume` resumes them"
    )
    interrupted = make_status(*rows[1:2])
    assert pending_line(interrupted, None, here) == "pending: 1 interrupted; `khmer-tuner resume` resumes them"
    resume = "khmer-tuner resume --output-dir 'other study'"
    assert pending_line(interrupted, None, other) == f"pending: 1 interrupted; `{resume}` resumes them"
    # As long as somebody works on it, it is owed by nobody else.
    assert pending_line(make_status(*rows, make_row(3, "running")), left, here) is None


def test_the_search_and_the_targets(make_row, make_status):
    searching = make_status(search=SearchStatus("tpe", "quantile", 24, 11, 5))
    assert search_line(searching) == "search: 11 of 24 trials, sampler tpe, pruner quantile"
    assert search_line(make_status(search=None)) is None
    assert targets_line(searching) is None
    targets = Targets(character_accuracy=0.85, convergence_epochs=15)
    what = "targets (character_accuracy 0.85, convergence_epochs 15): "
    for state in ("waiting", "running", "interrupted"):
        assert targets_line(make_status(make_row(0, state), targets=targets)) == f"{what}not met yet"
    assert targets_line(make_status(make_row(0), targets=targets)) == f"{what}met by no trial"
    met = make_status(targets=targets, met_by=("a", "b", "c", "d", "e"))
    assert targets_line(met) == f"{what}met by a, b, c and 2 more"


def test_disk_use_names_what_takes_most():
    disk = DiskUsage(
        database=2_000_000,
        artifacts=98_000_000,
        checkpoints=1_100_000_000,
        tensorboard=0,
        logs=999,
        other=0,
        free=35_000_000_000,
    )
    assert disk_line(disk) == "disk: 1 GB (checkpoints 1 GB, artifacts 98 MB, database 2 MB), 35 GB free"
    empty = DiskUsage(database=0, artifacts=0, checkpoints=0, tensorboard=0, logs=12, other=0, free=0)
    assert disk_line(empty) == "disk: 12 bytes (logs 12 bytes), 0 bytes free"
