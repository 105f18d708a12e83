"""A clock that is set between two processes does no harm: durations are not negative, and trials are resumed."""

import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import sqlalchemy

import studies
from studies.export.results import TRIAL_COLUMNS
from studies.report import render_report
from studies.storage.optuna_private import rdb_storage
from studies.trials.claims import claim_next

HOUR = timedelta(hours=1)


def shift_start_times(study, by):
    """Shift the start times of all trials and attempts, as if the clock had been wrong and was then corrected."""
    with rdb_storage(study).engine.begin() as connection:
        started = connection.execute(sqlalchemy.text("SELECT trial_id, datetime_start FROM trials")).all()
        for trial, text in started:
            if text is not None:
                moved = (datetime.fromisoformat(text) + by).isoformat(sep=" ")
                change = sqlalchemy.text("UPDATE trials SET datetime_start = :moved WHERE trial_id = :trial")
                connection.execute(change, {"moved": moved, "trial": trial})
        attempts = connection.execute(
            sqlalchemy.text("SELECT trial_id, value_json FROM trial_user_attributes WHERE key = 'attempts'")
        ).all()
        for trial, text in attempts:
            moved_attempts = [
                attempt | {"began": (datetime.fromisoformat(attempt["began"]) + by).isoformat()}
                for attempt in json.loads(text)
            ]
            change = sqlalchemy.text(
                "UPDATE trial_user_attributes SET value_json = :moved WHERE trial_id = :trial AND key = 'attempts'"
            )
            connection.execute(change, {"moved": json.dumps(moved_attempts), "trial": trial})


@pytest.fixture(params=[HOUR, -HOUR, timedelta(days=4000)], ids=["ahead", "behind", "years ahead"])
def shifted_study(request, start, presets, outcome):
    """A study with a completed, a running, an interrupted and waiting trials, started with a wrong clock."""
    study, folder = start(presets)
    studies.add_search_trials(study, folder, studies.SearchRequest(at_least=1))
    done, running, interrupted = (claim_next(study, folder) for _ in range(3))
    done.finish(replace(outcome, epoch_seconds_median=2.0), 0.9)
    interrupted.release()
    shift_start_times(study, request.param)
    yield studies.load_study(folder.path)
    running.release()


def test_durations_are_not_negative(shifted_study):
    ended, running, interrupted, waiting = [
        row.seconds for row in studies.study_status(*shifted_study, lambda trial_dir: [2.0]).rows
    ]
    assert ended == 12.5  # measured while it trained
    assert running is not None
    assert interrupted is not None
    assert min(running, interrupted) >= 0
    assert waiting is None


def test_remaining_time_does_not_depend_on_the_clock(shifted_study):
    status = studies.study_status(*shifted_study, lambda trial_dir: [2.0])
    remaining = studies.remaining_time(status, workers=1)
    # Two presets of 3 epochs each, as in the completed one, and a search trial with the duration of the completed one.
    assert remaining.seconds == pytest.approx(2.0 * 3 * 2 + 12.5)


def test_interrupted_trial_is_resumed_under_its_number(shifted_study, outcome, start, presets):
    study, folder = start(presets)
    claim = claim_next(study, folder)
    assert (claim.record.number, claim.resumed) == (2, True)
    claim.finish(outcome, 0.5)
    assert [row.state.value for row in studies.study_status(study, folder).rows[:3]] == [
        "completed",
        "running",
        "completed",
    ]


def test_tables_and_report_are_created(shifted_study):
    study, folder = shifted_study
    assert len(studies.csv_text(TRIAL_COLUMNS, studies.trial_rows(study, folder)).splitlines()) == 1 + 4
    assert "conservative_small" in render_report(study, folder, lambda name: [], output_dir="out")
