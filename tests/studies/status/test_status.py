import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from search_spaces import TrainingConfig
from search_spaces.experiments.schema import Targets
from studies import (
    PrunerName,
    RowState,
    SamplerName,
    SearchRequest,
    WhyEnded,
    add_search_trials,
    load_study,
    retry_failed_trials,
    save_targets,
    study_status,
)
from studies.status.status import SearchStatus
from studies.trials.claims import claim_next


def test_every_trial_has_a_row_with_its_state(start, presets, outcome):
    study, folder = start(presets | {"four": TrainingConfig(), "five": TrainingConfig(), "six": TrainingConfig()})
    completed, failed, running, interrupted, pruned = (claim_next(study, folder) for _ in range(5))
    completed.finish(replace(outcome, why_ended=WhyEnded.EARLY_STOPPED), 0.9)
    pruned.trial.report(0.95, 1)
    pruned.finish(replace(outcome, why_ended=WhyEnded.PRUNED), 0.95)
    failed.finish(replace(outcome, why_ended=WhyEnded.FAILED, error_message="boom"))
    for step, value in enumerate((0.1, 0.3, 0.2), start=1):
        running.trial.report(value, step)
    interrupted.release()

    reader, folder = load_study(folder.path)
    status = study_status(reader, folder)
    assert [(row.name, row.state.value, row.why_ended) for row in status.rows] == [
        ("conservative_small", "completed", "early_stopped"),
        ("baseline", "failed", "failed"),
        ("high_rate", "running", None),
        ("four", "interrupted", None),
        ("five", "pruned", "pruned"),
        ("six", "waiting", None),
    ]
    assert [row.best_value for row in status.rows] == [0.9, None, 0.3, None, 0.95, None]
    assert [row.epochs for row in status.rows] == [3, 3, 3, 0, 3, 0]
    assert [row.worker_pid for row in status.rows] == [None, None, os.getpid(), None, None, None]
    assert status.rows[0].seconds == 12.5
    assert (status.rows[5].started, status.rows[5].seconds) == (None, None)
    assert status.counts == dict.fromkeys(map(str, RowState), 1)
    assert status.pending == 2
    assert status.best == status.rows[0]
    running.release()


@pytest.mark.parametrize(("mode", "best"), [("max", 2), ("min", 0)])
def test_best_trial_depends_on_the_mode_and_ties_go_to_the_lower_number(mode, best, start, presets, outcome):
    study, folder = start(presets | {"tie": TrainingConfig()}, mode=mode, monitor="val_loss")
    for value in (0.2, 0.3, 0.4, 0.4 if mode == "max" else 0.2):
        claim = claim_next(study, folder)
        claim.finish(outcome, value)
    status = study_status(study, folder)
    assert (status.monitor, status.mode) == ("val_loss", mode)
    assert status.best == status.rows[best]


def test_status_is_plain_data_for_json(start, presets, outcome):
    study, folder = start(presets)
    claim = claim_next(study, folder)
    claim.trial.report(float("inf"), 1)
    data = json.loads(json.dumps(study_status(study, folder).as_dict(), allow_nan=False))
    keys = ["study", "monitor", "mode", "counts", "pending", "best", "search", "targets", "targets_met_by", "trials"]
    assert list(data) == keys
    assert (data["pending"], data["search"], data["targets"], data["targets_met_by"]) == (2, None, {}, [])
    assert data["trials"][0]["state"] == "running"
    started = datetime.fromisoformat(data["trials"][0]["started"])
    assert started.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - started) < timedelta(minutes=1)
    claim.release()


def test_status_of_a_new_study_is_empty(start):
    study, folder = start()
    status = study_status(study, folder)
    assert (status.rows, status.best, status.pending, status.search, status.met_by) == ((), None, 0, None, ())


def test_search_trials_that_are_not_enqueued_yet_count_as_pending(start, presets, outcome, monkeypatch):
    monkeypatch.setattr("studies.study.search_budget.MOST_WAITING", 2)
    study, folder = start(presets)
    request = SearchRequest(sampler=SamplerName.RANDOM, pruner=PrunerName.NONE, parallelism=2, at_least=6)
    add_search_trials(study, folder, request)
    for _ in range(4):
        claim = claim_next(study, folder)
        claim.finish(outcome, 0.5)
    running = claim_next(study, folder)
    status = study_status(load_study(folder.path)[0], folder)
    assert status.search == SearchStatus(
        sampler="random", pruner="none", parallelism=2, budget=6, ended=1, unenqueued=4
    )
    # Of six search trials one is finished and one is running.
    assert (len(status.rows), status.pending) == (5, 4)
    running.release()
    assert study_status(study, folder).pending == 5


def test_every_start_of_a_trial_is_an_attempt(start, presets, outcome):
    study, folder = start(presets)
    for _ in range(3):
        claim = claim_next(study, folder)
        claim.release()
    assert [row.attempts for row in study_status(study, folder).rows] == [3, 0, 0]


def test_status_names_the_trials_that_met_the_targets(start, presets, outcome):
    study, folder = start(presets)
    save_targets(study, Targets(character_accuracy=0.9))
    add_search_trials(study, folder, SearchRequest(at_least=1))
    for accuracy in (0.95, 0.8, 0.9, 1.0):
        claim = claim_next(study, folder)
        why = WhyEnded.CRASHED if accuracy == 1.0 else WhyEnded.MAX_EPOCHS
        claim.finish(replace(outcome, best_val_char_accuracy=accuracy, why_ended=why), accuracy)
    status = study_status(load_study(folder.path)[0], folder)
    assert status.met_by == ("conservative_small", "high_rate")
    assert status.as_dict()["targets"] == {"character_accuracy": 0.9}


def test_retried_preset_counts_once(start, presets, outcome):
    study, folder = start(presets)
    claim = claim_next(study, folder)
    claim.finish(replace(outcome, why_ended=WhyEnded.FAILED))
    retry_failed_trials(study, folder)
    status = study_status(study, folder)
    assert [(row.name, row.superseded) for row in status.rows] == [
        ("conservative_small", True),
        ("baseline", False),
        ("high_rate", False),
        ("conservative_small", False),
    ]
    assert (status.total, status.ended, status.failed, status.pending) == (3, 0, 0, 3)
    assert status.counts["failed"] == 1


def test_finished_trials_are_ranked_by_value_and_ordered_by_their_end(start, outcome):
    study, folder = start()
    add_search_trials(study, folder, SearchRequest(at_least=5))
    claims = [claim_next(study, folder) for _ in range(5)]
    ends = [(3, 0.5, WhyEnded.MAX_EPOCHS), (0, 0.5, WhyEnded.EARLY_STOPPED), (4, 0.9, WhyEnded.PRUNED)]
    ends += [(1, 0.7, WhyEnded.MAX_EPOCHS), (2, None, WhyEnded.CRASHED)]
    for number, value, why in ends:
        claim = claims[number]
        claim.finish(replace(outcome, why_ended=why), value)
    status = study_status(study, folder)
    assert [row.number for row in status.last_first] == [2, 1, 4, 0, 3]
    # Pruned trials are not ranked; of trials with equal values, the trial with the lower number comes first.
    assert [row.number for row in status.ranking] == [1, 0, 3]
    assert status.best is status.rows[1]


def test_rows_have_the_median_epoch_time(start, presets, outcome):
    study, folder = start(presets)
    add_search_trials(study, folder, SearchRequest(at_least=1))
    completed, running = claim_next(study, folder), claim_next(study, folder)
    completed.finish(replace(outcome, epoch_seconds_median=4.5), 0.9)
    times = {folder.trial_dir("baseline"): [9.0, 2.0, 3.0]}
    rows = study_status(study, folder, lambda trial_dir: times.get(trial_dir, [])).rows
    assert [row.epoch_seconds for row in rows] == [4.5, 3.0, None, None]
    assert [(row.model_name, row.num_epochs) for row in rows] == [("medium", 40)] * 3 + [(None, None)]
    assert rows[0].ended is not None
    assert rows[1].ended is None
    assert [row.epoch_seconds for row in study_status(study, folder).rows] == [4.5, None, None, None]
    running.release()


def test_time_between_an_interruption_and_the_next_attempt_does_not_count(start, presets, monkeypatch):
    study, folder = start(presets)

    def claim_hours_ago(hours):
        began = datetime.now(UTC) - timedelta(hours=hours)
        with monkeypatch.context() as patches:
            patches.setattr("studies.trials.claims.datetime", SimpleNamespace(now=lambda zone: began))
            claim = claim_next(study, folder)
        assert claim.record.number == 0
        return claim

    def seconds():
        return study_status(load_study(folder.path)[0], folder, lambda trial_dir: [9.0, 8.0, 7.0]).rows[0].seconds

    first = claim_hours_ago(50)
    for epoch in (1, 2):
        first.trial.report(0.5, epoch)
    first.release()
    assert seconds() == 24.0
    second = claim_hours_ago(1)
    # Two epochs before the interruption, and the hour after a worker resumed the trial.
    assert seconds() == pytest.approx(17.0 + 3600.0, abs=5.0)
    second.release()


@pytest.mark.parametrize(("worker", "reads"), [("none", 1), ("running", 1), ("exited", 2)])
def test_trials_are_read_once_unless_a_worker_has_exited(worker, reads, start, presets, monkeypatch):
    study, folder = start(presets)
    claim = claim_next(study, folder) if worker != "none" else None
    if claim is not None and worker == "exited":
        claim.release()
    reader, folder = load_study(folder.path)
    read = []
    get_all_trials = reader._storage.get_all_trials

    def counted(study_id, **options):
        read.append(study_id)
        return get_all_trials(study_id, **options)

    monkeypatch.setattr(reader._storage, "get_all_trials", counted)
    study_status(reader, folder)
    assert len(read) == reads
    if claim is not None:
        claim.release()
