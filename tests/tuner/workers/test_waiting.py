"""Workers whose search trials must wait for an earlier trial; the test process stands in for the other workers."""

from dataclasses import replace
from pathlib import Path

import pytest

from search_spaces import load_experiments
from studies import (
    OutputFolder,
    SearchRequest,
    TrialOutcome,
    WhyEnded,
    latest_records,
    load_study,
    load_study_for_changes,
    request_stop,
)
from studies.trials.claims import claim_next
from tuner.session.run_options import RunOptions, StopConditions, TrialFilter
from tuner.session.run_request import RunRequest
from tuner.session.session import Session
from tuner.workers import loop, waiting
from tuner.workers.loop import work

OUT = Path("training_output")
ONE_EPOCH = {"training": {"num_epochs": 1}}
OUTCOME = TrialOutcome(
    why_ended=WhyEnded.MAX_EPOCHS,
    training_time_s=1.0,
    best_val_char_accuracy=0.5,
    best_val_seq_accuracy=0.5,
    final_train_loss=1.0,
    total_epochs=1,
    best_epoch=1,
)

pytestmark = pytest.mark.usefixtures("in_tmp")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(waiting, "_SECONDS_BETWEEN_POLLS", 0.01)
    monkeypatch.setattr(waiting, "_SECONDS_UNTIL_BLOCKED", 0.05)
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_CLAIMS", 0.01)


@pytest.fixture
def open_session(write_config, write_space):
    """Return a function that opens a study with the presets `one` and `two` and search trials."""
    config, space = write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}), write_space(base={"num_epochs": 1})

    def open_it(display, parallelism, trials=2, workers=1):
        search = SearchRequest(parallelism=parallelism, at_least=trials)
        options = RunOptions(space_file=str(space), search=search, workers=workers)
        return Session.open(RunRequest.from_file(load_experiments(config), options=options), display)

    return open_it


def names_of_finished():
    records = latest_records(load_study(OUT)[0])
    return [record.experiment_name for record in records if record.outcome is not None]


def test_worker_says_for_which_trial_it_waits_and_trains_after_it(open_session, make_watcher):
    watcher = make_watcher()
    session = open_session(watcher, parallelism=2)
    other = claim_next(session.study, OutputFolder(OUT))
    assert other is not None

    def finish(text):
        watcher.notes.append(text)
        other.finish(OUTCOME, 0.5)

    watcher.note = finish
    work(session, TrialFilter(), StopConditions())
    assert watcher.notes == ["search_0002 waits until one has finished"]
    assert watcher.finished == ["two", "search_0002", "search_0003"]


def test_stop_request_ends_the_wait(open_session, make_watcher):
    watcher = make_watcher()
    session = open_session(watcher, parallelism=1)

    def request(text):
        watcher.notes.append(text)
        request_stop(load_study_for_changes(OUT)[0])

    with claim_next(session.study, OutputFolder(OUT)):  # trial 0 can be claimed
        watcher.note = request
        work(session, TrialFilter(), StopConditions())
    assert watcher.finished == ["two"]
    assert watcher.notes[0] == "search_0002 waits until one has finished"
    assert watcher.notes[-1].endswith("still pending, because a stop was requested")


class TestBlocked:
    """No running worker will train the trial for which the search trials wait."""

    REASON = (
        "search_0002 waits until one has finished, which no running worker will train; run `khmer-tuner resume` to "
        "train it"
    )

    @pytest.mark.parametrize("waits_for_others", [False, True])
    def test_command_ends_and_names_the_trial_and_the_command_that_trains_it(
        self, waits_for_others, open_session, make_watcher
    ):
        watcher, trial_filter = make_watcher(), TrialFilter(frozenset({"two"}))
        session = open_session(watcher, parallelism=1)
        work(session, trial_filter, StopConditions(), wait_for_others=waits_for_others)
        assert watcher.finished == ["two"]
        assert watcher.notes == [f"search_0002, search_0003: still pending, because {self.REASON}"]
        assert trial_filter.skipped == {2, 3}  # so that the command exits with 1
        again = make_watcher()
        work(open_session(again, parallelism=1), TrialFilter(), StopConditions())
        assert again.finished == ["one", "search_0002", "search_0003"]

    def test_trial_that_stays_pending_after_an_error_holds_back_the_search(self, open_session, make_watcher):
        def fail():
            raise ValueError("simulated error")

        watcher, trial_filter = make_watcher(in_batch=2, action=fail), TrialFilter()
        work(open_session(watcher, parallelism=1), trial_filter, StopConditions())
        assert watcher.finished == ["two"]
        assert watcher.notes[-1] == f"search_0002, search_0003: still pending, because {self.REASON}"

    def test_waiting_worker_names_the_trial_until_it_is_stopped(self, open_session, make_watcher):
        watcher = make_watcher()
        session = open_session(watcher, parallelism=1)

        def note(text):
            watcher.notes.append(text)
            if text.endswith("ends the worker"):
                request_stop(load_study_for_changes(OUT)[0])

        watcher.note = note
        work(session, TrialFilter(frozenset({"two"})), StopConditions(), wait=True)
        reason = f"{self.REASON}; SIGTERM or `khmer-tuner stop` ends the worker"
        assert watcher.notes[:1] == [reason]  # once
        assert watcher.notes.count(reason) == 1

    def test_trial_that_another_worker_trains_does_not_block(self, open_session, make_watcher):
        watcher = make_watcher()
        session = open_session(watcher, parallelism=1, trials=1)
        other = claim_next(session.study, OutputFolder(OUT))
        assert other is not None
        polls = []

        def count(*arguments):
            polls.append(1)
            if len(polls) == 20:  # longer than a blocked worker waits
                other.finish(replace(OUTCOME, why_ended=WhyEnded.FAILED))
            return held_back(*arguments)

        held_back = waiting.held_back
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(waiting, "held_back", count)
            work(session, TrialFilter(frozenset({"two"})), StopConditions())
        assert watcher.finished == ["two", "search_0002"]
        assert names_of_finished() == ["one", "two", "search_0002"]
