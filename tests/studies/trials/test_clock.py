"""A clock that was set between two processes harms nothing: times below zero are none, and work goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import optuna
import pytest
import sqlalchemy

from search_spaces import TrainingConfig
from studies import (
    OutputFolder,
    SearchRequest,
    TrialOutcome,
    add_search_trials,
    csv_text,
    load_study,
    remaining_time,
    study_status,
    trial_rows,
)
from studies.export.trials_csv import TRIAL_COLUMNS
from studies.report import render_report
from studies.storage.optuna_private import rdb_storage
from studies.trials.claims import claim_next

Start = Callable[..., tuple[optuna.Study, OutputFolder]]
Presets = dict[str, TrainingConfig]
HOUR = timedelta(hours=1)


def begin_later(study: optuna.Study, by: timedelta) -> None:
    """Let all trials that have begun have begun so much later: the clock was ahead by that, and was set right."""
    with rdb_storage(study).engine.begin() as connection:
        begun = connection.execute(sqlalchemy.text("SELECT trial_id, datetime_start FROM trials")).all()
        for trial, text in begun:
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
def clocked(
    request: pytest.FixtureRequest, start: Start, presets: Presets, outcome: TrialOutcome
) -> Iterator[tuple[optuna.Study, OutputFolder]]:
    """A study of an ended trial, a running, an interrupted and waiting ones, begun by another clock than ours."""
    study, folder = start(presets)
    add_search_trials(study, folder, SearchRequest(at_least=1))
    done, running, left = (claim_next(study, folder) for _ in range(3))
    assert done is not None
    assert running is not None
    assert left is not None
    done.finish(replace(outcome, epoch_seconds_median=2.0), 0.9)
    left.release()
    begin_later(study, request.param)
    yield load_study(folder.path)
    running.release()


def test_no_trial_takes_less_than_no_time(clocked: tuple[optuna.Study, OutputFolder]) -> None:
    ended, running, left, waiting = [row.seconds for row in study_status(*clocked, lambda trial_dir: [2.0]).rows]
    assert ended == 12.5  # measured while it trained
    assert running is not None
    assert left is not None
    assert min(running, left) >= 0
    assert waiting is None


def test_the_estimate_does_not_depend_on_it(clocked: tuple[optuna.Study, OutputFolder]) -> None:
    status = study_status(*clocked, lambda trial_dir: [2.0])
    left = remaining_time(status, workers=1)
    assert left is not None
    # Two more presets of 3 epochs, as many as the ended one had, and a search trial that takes as long as it did.
    assert left.seconds == pytest.approx(2.0 * 3 * 2 + 12.5)


def test_what_was_left_is_claimed_under_its_number_and_ends(
    clocked: tuple[optuna.Study, OutputFolder], outcome: TrialOutcome, start: Start, presets: Presets
) -> None:
    study, folder = start(presets)
    claim = claim_next(study, folder)
    assert claim is not None
    assert (claim.record.number, claim.resumed) == (2, True)
    claim.finish(outcome, 0.5)
    assert [row.state.value for row in study_status(study, folder).rows[:3]] == ["completed", "running", "completed"]


def test_tables_and_the_report_can_be_made(clocked: tuple[optuna.Study, OutputFolder]) -> None:
    study, folder = clocked
    assert len(csv_text(TRIAL_COLUMNS, trial_rows(study, folder)).splitlines()) == 1 + 4
    assert "conservative_small" in render_report(study, folder, lambda name: [], output_dir="out")
