from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from search_spaces import Targets
from studies import DiskUsage, RemainingTime, TrialOutcome, WhyEnded
from studies.status.status import SearchStatus
from tuner.display.lines import (
    best_line,
    best_running_line,
    disk_line,
    failure,
    last_line,
    pending_line,
    remaining_line,
    search_line,
    targets_line,
    trials_line,
    workers_line,
)


def test_counts_of_trials_and_workers(make_row, make_status):
    rows = [
        make_row(0, "failed", "a", superseded=True),
        make_row(1, "completed", "a"),
        make_row(2, "failed", "b"),
        make_row(3, "running"),
        make_row(4, "interrupted"),
        make_row(5, "waiting"),
    ]
    status = make_status(*rows, unenqueued=1200)
    assert trials_line(status, 1) == "2 of 1,205 trials finished (1 failed), 1,201 waiting, 1 interrupted; 1 worker"
    assert workers_line(status, 2) == "status: 2 workers, 1,201 waiting, 1 interrupted, 1 failed"


@pytest.mark.parametrize(
    ("state", "whole", "work"),
    [
        (None, "no trials yet", None),
        ("completed", "1 of 1 trials finished", None),
        ("waiting", "0 of 1 trials finished, 1 waiting", "status: 1 waiting"),
    ],
)
def test_counts_of_zero_are_omitted(state, whole, work, make_row, make_status):
    status = make_status(*([make_row(0, state)] if state else []))
    assert (trials_line(status, 0), workers_line(status, 0)) == (whole, work)


def test_best_line_shows_the_best_completed_trial(make_row, make_status):
    assert best_line(make_status(make_row(3, "running", best_value=0.95))) is None
    rows = [make_row(0, best_value=0.9), make_row(1, "pruned", best_value=0.99), make_row(2, "failed")]
    assert best_line(make_status(*rows)) == "best: search_0000, val_char_accuracy 0.9000"
    assert best_line(make_status(*rows), lambda name: name[-1]) == "best: 0, val_char_accuracy 0.9000"


@pytest.mark.parametrize(
    ("value", "line"),
    [(0.95, "best running: search_0003, val_char_accuracy 0.9500"), (0.9, None), (0.8, None), (None, None)],
)
def test_running_trial_better_than_the_completed_ones_is_shown(value, line, make_row, make_status):
    rows = [make_row(0, best_value=0.9), make_row(1, "pruned", best_value=0.99)]
    assert best_running_line(make_status(*rows, make_row(3, "running", best_value=value))) == line


def test_first_trial_is_shown_once_it_has_a_value(make_row, make_status):
    assert best_running_line(make_status(make_row(3, "running"))) is None
    assert best_running_line(make_status(make_row(3, "running", best_value=0.1))) is not None


def test_lower_loss_is_better(make_row, make_status):
    rows = [make_row(0, best_value=0.4), make_row(1, best_value=0.3), make_row(2, "running", best_value=0.2)]
    status = make_status(*rows, mode="min", monitor="val_loss")
    assert best_line(status) == "best: search_0001, val_loss 0.3000"
    assert best_running_line(status) == "best running: search_0002, val_loss 0.2000"


def test_last_line_shows_only_trials_that_fit_the_width(make_row, make_status):
    status = make_status(make_row(0, "failed", why_ended="out_of_memory"), make_row(1), make_row(2, "failed"))
    whole = "last ended: search_0002 FAILED (crashed), search_0001 early stopped, search_0000 FAILED (out of memory)"
    assert last_line(status, width=len(whole)) == whole
    assert last_line(status, width=len(whole) - 1) == whole[:67]
    assert last_line(status, width=10) == whole[:40]


def test_last_line_shows_the_latest_trials_first_with_their_reasons(make_row, make_status):
    rows = [
        make_row(0, "completed", "ខ្មែរ"),
        make_row(1, "failed", why_ended="out_of_memory"),
        make_row(2, "failed", why_ended="failed"),
        make_row(3, "failed", why_ended=None),
    ]
    late = replace(rows[0], ended=rows[3].ended.replace(hour=23))
    assert last_line(make_status()) is None
    assert last_line(make_status(late, *rows[1:3]), width=90) == (
        "last ended: ខ្មែរ early stopped, search_0002 FAILED, search_0001 FAILED (out of memory)"
    )
    assert last_line(make_status(*rows[1:4]), lambda name: name[-2:], width=90) == (
        "last ended: 03 FAILED (ended externally), 02 FAILED, 01 FAILED (out of memory)"
    )


def test_remaining_time_is_marked_as_upper_bound_or_estimate(make_row, make_status):
    alone, others = make_status(make_row(0, "running")), make_status(make_row(0, "running"), unenqueued=2)
    assert remaining_line(alone, None) == "remaining: unknown until enough epochs have been timed"
    assert remaining_line(alone, RemainingTime(61.0, at_most=True)) == "remaining: at most 1:01"
    about_an_hour = RemainingTime(3600.0, at_most=False)
    assert remaining_line(others, about_an_hour) == "remaining: about 1:00:00 including 2 pending trials"


def test_pending_line_shows_the_time_and_the_command(make_row, make_status):
    here, other = Path("training_output"), Path("other study")
    assert pending_line(make_status(make_row(0)), None, here) is None
    rows = [make_row(0), make_row(1, "interrupted"), make_row(2, "waiting")]
    status, remaining = make_status(*rows, unenqueued=11), RemainingTime(500.0, at_most=False)
    assert pending_line(status, remaining, here) == (
        "pending: 1 interrupted, 12 waiting, about 8:20 with one worker; run `khmer-tuner resume` to continue"
    )
    interrupted = make_status(*rows[1:2])
    assert pending_line(interrupted, None, here) == "pending: 1 interrupted; run `khmer-tuner resume` to continue"
    resume = "khmer-tuner resume --output-dir 'other study'"
    assert pending_line(interrupted, None, other) == f"pending: 1 interrupted; run `{resume}` to continue"
    # While a worker is running, it will train the pending trials.
    assert pending_line(make_status(*rows, make_row(3, "running")), remaining, here) is None


def test_search_line_and_targets_line(make_row, make_status):
    searching = make_status(search=SearchStatus("tpe", "quantile", 4, 24, 11, 5))
    assert search_line(searching) == "search: 11 of 24 trials, sampler tpe, pruner quantile, parallelism 4"
    assert search_line(make_status(search=None)) is None
    assert targets_line(searching) is None
    targets = Targets(character_accuracy=0.85, convergence_epochs=15)
    prefix = "targets (character_accuracy 0.85, convergence_epochs 15): "
    for state in ("waiting", "running", "interrupted"):
        assert targets_line(make_status(make_row(0, state), targets=targets)) == f"{prefix}not met yet"
    assert targets_line(make_status(make_row(0), targets=targets)) == f"{prefix}met by no trial"
    met = make_status(targets=targets, met_by=("a", "b", "c", "d", "e"))
    assert targets_line(met) == f"{prefix}met by a, b, c and 2 more"


def test_disk_line_shows_the_three_largest_parts():
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


FAILED = TrialOutcome(
    why_ended=WhyEnded.FAILED,
    training_time_s=0.0,
    best_val_char_accuracy=0.0,
    best_val_seq_accuracy=0.0,
    final_train_loss=None,
    total_epochs=0,
    best_epoch=None,
)


@given(message=st.text(max_size=30), kind=st.sampled_from(["", "OSError"]))
@example(message=" \n", kind="")
@example(message="\x1b[2J", kind="OSError")
def test_any_error_is_shown_as_one_printable_line(message, kind):
    shown = failure(replace(FAILED, error_type=kind, error_message=message))
    assert shown
    assert shown.isprintable()
    assert shown.startswith(kind)


@pytest.mark.parametrize(
    ("message", "shown"), [("first\nsecond", "OSError: first"), ("", "OSError: failed"), ("\n\n", "OSError: failed")]
)
def test_failure_shows_the_first_line_of_the_error_or_the_reason(message, shown):
    assert failure(replace(FAILED, error_type="OSError", error_message=message)) == shown
