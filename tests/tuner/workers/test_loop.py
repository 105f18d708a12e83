from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search_spaces import TrainingConfig, load_experiments
from studies import (
    OutputFolder,
    RowState,
    SearchRequest,
    StatusRow,
    StudyStatus,
    TrialPhase,
    TrialRecord,
    add_search_trials,
    load_study,
    load_study_for_changes,
    request_stop,
    study_status,
)
from studies.trials.claims import claim_next
from tuner.display import Display
from tuner.session.run_options import RunOptions, StopConditions, TrialFilter
from tuner.session.run_request import RunRequest
from tuner.session.session import Session
from tuner.workers.loop import ended, planned_trials, work

WriteConfig = Callable[..., Path]
WriteSpace = Callable[..., Path]
MakeWatcher = Callable[..., Any]
OUT = Path("training_output")
ONE_EPOCH = {"training": {"num_epochs": 1}}
# Met by whatever finishes an epoch.
EASY = {"training_time_per_epoch": 1000}

pytestmark = pytest.mark.usefixtures("in_tmp")


def opened(config: Path, display: Any, *, space: Path | None = None, trials: int = 0) -> Session:
    options = RunOptions(space_file=None if space is None else str(space))
    session = Session.open(RunRequest.from_file(load_experiments(config), options=options), display)
    if trials:
        add_search_trials(session.study, session.context.folder, SearchRequest(at_least=trials))
    return session


def rows() -> dict[str, StatusRow]:
    return {row.name: row for row in study_status(*load_study(OUT)).rows}


def test_everything_is_trained_and_what_fails_stops_nothing(
    write_config: WriteConfig, make_watcher: MakeWatcher
) -> None:
    (OUT / "one").mkdir(parents=True)
    (OUT / "one" / "checkpoints").write_text("a file where a folder should be")
    watcher = make_watcher()
    session = opened(write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}), watcher)
    assert ended(session, TrialFilter()) == []
    work(session, TrialFilter(), StopConditions())
    ends = [(record.experiment_name, record.phase) for record in ended(session, TrialFilter())]
    assert ends == [("one", TrialPhase.FAILED), ("two", TrialPhase.COMPLETED)]
    assert (watcher.planned_trials, watcher.ended, watcher.notes) == (["one", "two"], ["one", "two"], [])


def test_nothing_beyond_the_scope_is_trained(
    write_config: WriteConfig, write_space: WriteSpace, make_watcher: MakeWatcher
) -> None:
    opened(write_config({"one": {}}), make_watcher(), space=write_space(), trials=1)
    watcher = make_watcher()
    session = opened(write_config({"two": ONE_EPOCH}), watcher)
    scope = TrialFilter(frozenset({"two"}), search=False)
    assert list(planned_trials(session, scope)) == ["two"]
    work(session, scope, StopConditions())
    assert {name: row.state for name, row in rows().items()} == {
        "one": RowState.WAITING,
        "search_0001": RowState.WAITING,
        "two": RowState.COMPLETED,
    }
    assert [record.experiment_name for record in ended(session, scope)] == ["two"]
    assert (watcher.planned_trials, watcher.notes) == (["two"], [])


def test_what_another_process_trains_is_left_to_it_and_said(
    write_config: WriteConfig, make_watcher: MakeWatcher
) -> None:
    watcher = make_watcher()
    session = opened(write_config({"one": {}, "two": ONE_EPOCH}), watcher)
    held = claim_next(session.study, OutputFolder(OUT))
    assert held is not None
    with held:
        work(session, TrialFilter(), StopConditions())
    assert watcher.notes == ["one: not done here, another process is training it"]
    assert [record.experiment_name for record in ended(session, TrialFilter())] == ["two"]


def test_interrupted_trials_come_first_then_presets_then_the_search(
    write_config: WriteConfig, write_space: WriteSpace, make_watcher: MakeWatcher
) -> None:
    space = write_space(base={"num_epochs": 1})
    session = opened(write_config({"one": ONE_EPOCH}), make_watcher(in_batch=8), space=space, trials=1)
    with pytest.raises(KeyboardInterrupt):
        work(session, TrialFilter(), StopConditions())
    watcher = make_watcher()
    session = opened(write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}), watcher, trials=2)
    work(session, TrialFilter(), StopConditions())
    assert watcher.started == [
        ("search_0001", 1, True),
        ("two", 2, False),
        ("search_0003", 3, False),
    ]


def test_search_trials_that_a_kill_kept_from_being_enqueued_are_not_forgotten(
    write_config: WriteConfig, write_space: WriteSpace, make_watcher: MakeWatcher
) -> None:
    watcher = make_watcher()
    session = opened(write_config({"one": ONE_EPOCH}), watcher, space=write_space(base={"num_epochs": 1}), trials=1)
    session.study.set_user_attr("search_trials", 3)  # the budget is written first
    names = ["one", "search_0001", "search_0002", "search_0003"]
    assert list(planned_trials(session, TrialFilter())) == names
    assert list(planned_trials(session, TrialFilter(search=False))) == ["one"]
    work(session, TrialFilter(), StopConditions())
    assert watcher.planned_trials == watcher.ended == names


def test_settings_that_are_known_are_told_before_they_are_trained(
    write_config: WriteConfig, write_space: WriteSpace, make_watcher: MakeWatcher
) -> None:
    session = opened(
        write_config({"one": {"training": {"log_every_n_steps": 3}}}), make_watcher(), space=write_space(), trials=1
    )
    configs = planned_trials(session, TrialFilter())
    assert configs["one"] is not None
    assert configs["one"].log_every_n_steps == 3
    assert configs["search_0001"] is None


class TestTime:
    @pytest.mark.parametrize("when", [{"after_epoch": 2}, {"in_batch": 5 + 3}], ids=["then", "in the middle of one"])
    def test_a_running_trial_is_left_after_its_epoch_and_gone_on_with(
        self,
        when: dict[str, int],
        write_config: WriteConfig,
        make_watcher: MakeWatcher,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        config = write_config({"one": {"training": {"num_epochs": 4}}, "two": ONE_EPOCH})

        def hours_pass() -> None:
            monkeypatch.setattr(
                "tuner.session.run_options.time", SimpleNamespace(monotonic=lambda: time.monotonic() + 7200)
            )

        watcher = make_watcher(happens=hours_pass, **when)
        work(opened(config, watcher), TrialFilter(), StopConditions(deadline=time.monotonic() + 3600))
        assert watcher.notes == ["one, two: not done here, the time is up"]
        assert watcher.epochs == [(0, 1), (0, 2)]
        assert watcher.ended == []
        one, two = rows().values()
        assert (one.state, one.epochs, two.state) == (RowState.INTERRUPTED, 2, RowState.WAITING)

        again = make_watcher()
        work(opened(config, again), TrialFilter(), StopConditions())
        assert again.started == [("one", 0, True), ("two", 1, False)]
        (one, _) = ended(opened(config, again), TrialFilter())
        assert [attempt.after for attempt in one.attempts] == ["waiting", "stop"]
        assert one.outcome is not None
        assert one.outcome.total_epochs == 4

    def test_nothing_is_begun_when_it_is_up(self, write_config: WriteConfig, make_watcher: MakeWatcher) -> None:
        watcher = make_watcher()
        work(opened(write_config({"one": {}}), watcher), TrialFilter(), StopConditions(deadline=time.monotonic()))
        assert watcher.started == []
        assert watcher.notes == ["one: not done here, the time is up"]


class TestStop:
    def test_a_running_trial_is_left_after_its_epoch_and_gone_on_with(
        self, write_config: WriteConfig, make_watcher: MakeWatcher
    ) -> None:
        config = write_config({"one": {"training": {"num_epochs": 4}}, "two": ONE_EPOCH})
        watcher = make_watcher(in_batch=5 + 3, happens=lambda: request_stop(load_study_for_changes(OUT)[0]))
        session = opened(config, watcher)
        work(session, TrialFilter(), StopConditions())
        assert watcher.epochs == [(0, 1), (0, 2)]
        assert (watcher.left, watcher.ended) == ([0], [])
        assert watcher.notes == ["one, two: not done here, stop was asked for"]
        one, two = rows().values()
        assert (one.state, one.epochs, two.state) == (RowState.INTERRUPTED, 2, RowState.WAITING)
        # The same request stops its session for good, and nobody else.
        work(session, TrialFilter(), StopConditions())
        assert watcher.epochs == [(0, 1), (0, 2)]
        again = make_watcher()
        work(opened(config, again), TrialFilter(), StopConditions())
        assert again.started == [("one", 0, True), ("two", 1, False)]
        assert again.ended == ["one", "two"]
        (one_record, _) = ended(opened(config, again), TrialFilter())
        assert [attempt.after for attempt in one_record.attempts] == ["waiting", "stop"]

    def test_no_other_trial_is_begun(self, write_config: WriteConfig, make_watcher: MakeWatcher) -> None:
        watcher = make_watcher(after_epoch=1, happens=lambda: request_stop(load_study_for_changes(OUT)[0]))
        work(opened(write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}), watcher), TrialFilter(), StopConditions())
        assert (watcher.ended, watcher.left) == (["one"], [])
        assert watcher.notes == ["two: not done here, stop was asked for"]


class Seen(Display):
    """Keeps what it is told of the study: states of the trials by name, each time."""

    def __init__(self) -> None:
        self.studies: list[dict[str, RowState]] = []
        self.events: list[str] = []

    def run_started(self, planned_trials: Mapping[str, TrainingConfig | None], finished: Sequence[TrialRecord]) -> None:
        self.events.append("started")

    def trial_ended(self, record: TrialRecord) -> None:
        self.events.append("ended")

    def status_polled(self, status: StudyStatus) -> None:
        self.events.append("seen")
        self.studies.append({row.name: row.state for row in status.rows})


def test_the_display_sees_the_study_at_the_start_and_after_every_end(write_config: WriteConfig) -> None:
    display = Seen()
    work(opened(write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}), display), TrialFilter(), StopConditions())
    assert display.events == ["started", "seen", "ended", "seen", "ended", "seen"]
    assert [list(study.values()) for study in display.studies] == [
        [RowState.WAITING, RowState.WAITING],
        [RowState.COMPLETED, RowState.WAITING],
        [RowState.COMPLETED, RowState.COMPLETED],
    ]


def test_the_display_sees_the_study_also_while_a_trial_is_trained(
    write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.workers.loop._SECONDS_BETWEEN_POLLS", 0.0)
    monkeypatch.setattr("tuner.session.status_poller._MOST_SHARE", 1e9)
    display = Seen()
    work(opened(write_config({"one": ONE_EPOCH}), display), TrialFilter(), StopConditions())
    assert {"one": RowState.RUNNING} in display.studies


class TestUntilTargets:
    def test_nothing_more_is_begun_once_a_trial_has_met_them(
        self, write_config: WriteConfig, write_space: WriteSpace, make_watcher: MakeWatcher
    ) -> None:
        watcher = make_watcher()
        config = write_config({"one": ONE_EPOCH, "two": {}, "three": {}}, targets=EASY)
        session = opened(config, watcher, space=write_space(), trials=2)
        work(session, TrialFilter(), StopConditions(until_targets=True))
        assert watcher.ended == ["one"]
        assert watcher.notes == ["search_0003, search_0004, three and 1 more: not done here, one has met the targets"]
        work(session, TrialFilter(), StopConditions(until_targets=True))
        assert watcher.ended == ["one"]

    def test_without_being_asked_all_are_trained(self, write_config: WriteConfig, make_watcher: MakeWatcher) -> None:
        watcher = make_watcher()
        work(
            opened(write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}, targets=EASY), watcher),
            TrialFilter(),
            StopConditions(),
        )
        assert watcher.ended == ["one", "two"]

    @pytest.mark.parametrize("targets", [{}, EASY | {"character_accuracy": 1.0}], ids=["none", "missed"])
    def test_targets_that_nobody_meets_stop_nobody(
        self, targets: dict[str, float], write_config: WriteConfig, make_watcher: MakeWatcher
    ) -> None:
        watcher = make_watcher()
        session = opened(write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}, targets=targets), watcher)
        work(session, TrialFilter(), StopConditions(until_targets=True))
        assert watcher.ended == ["one", "two"]
